"""The cluster keeps the balancer in step with the target group, in virtual time."""

import asyncio
from types import SimpleNamespace

import pytest

from starlette_drain.testing import FakeAWS

cluster_module = pytest.importorskip("example_app.rollout.cluster", reason="the example is no part of the wheel")
events_module = pytest.importorskip("example_app.rollout.events")
times_module = pytest.importorskip("example_app.rollout.times")

pytestmark = pytest.mark.anyio

PORT = 25001


class SlowBalancer:
    """Takes three seconds to obey, or refuses."""

    port = 25000

    def __init__(self, error=None):
        self.healthy = []
        self._error = error

    async def route_to(self, weights):
        """Obey."""
        await asyncio.sleep(3)
        if self._error:
            raise self._error
        self.healthy = [target for target, weight in weights.items() if weight]


def make_cluster(balancer):
    """Make a cluster of one task that needs no process; return both."""
    loop = asyncio.get_running_loop()
    aws = FakeAWS(clock=loop.time)
    cluster = cluster_module.Cluster(
        scenario=None,
        times=times_module.Times(scale=1.0),
        aws=aws,
        endpoint=None,
        balancer=balancer,
        children=None,
        events=events_module.Events(clock=loop.time),
        results=None,
    )
    record = aws.add_task(
        cluster._service,
        register=False,
        network_mode="bridge",
        host_ports={8000: PORT},
        instance_id="i-0123456789abcdef0",
    )
    return cluster, SimpleNamespace(name="task-1", record=record, target=("127.0.0.1", PORT))


async def test_a_target_is_registered_when_the_balancer_sends_to_it():
    """Not when the balancer is about to be told."""
    balancer = SlowBalancer()
    cluster, task = make_cluster(balancer)
    following = asyncio.create_task(cluster.follow())
    await cluster.register(task)
    assert balancer.healthy == [task.target]
    following.cancel()


async def test_a_balancer_that_does_not_obey_is_an_error():
    """Nothing that is registered would ever be reached, so whoever runs `follow` hears of it."""
    cluster, task = make_cluster(SlowBalancer(RuntimeError("no such server")))
    cluster.aws.register(task.record)
    with pytest.raises(RuntimeError, match="no such server"):
        await cluster.follow()
