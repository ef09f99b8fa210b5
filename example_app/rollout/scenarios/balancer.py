"""The balancer drops a third of its connections, as an ALB does with a node: no task is lost, and all get them back."""

from example_app.rollout.scenarios.base import Strike
from example_app.rollout.scenarios.crash import struck

__all__ = ["BALANCERS"]

STRIKE = Strike(connections=1 / 3)

BALANCERS = (
    struck("balancer", "The balancer drops a third of its connections, and all come back at once", STRIKE),
    struck("balancer-admission", "The same with admission=“auto”: handshakes in progress are limited", STRIKE),
)
"""Without and with a limit on the handshakes in progress."""
