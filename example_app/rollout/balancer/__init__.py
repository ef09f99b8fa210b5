"""The balancer: new connections go to healthy targets only, the others stay until they are cut."""

from example_app.rollout.balancer.base import Balancer, Target
from example_app.rollout.balancer.haproxy import HAProxyBalancer
from example_app.rollout.balancer.tcp import TCPBalancer

__all__ = ["BALANCERS", "Balancer", "Target"]

BALANCERS: dict[str, type[Balancer]] = {"tcp": TCPBalancer, "haproxy": HAProxyBalancer}
