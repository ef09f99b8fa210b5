"""Half as many tasks again: do the old ones give the new ones their share?"""

import asyncio
from typing import TYPE_CHECKING

from example_app.rollout.scenarios.base import Scenario

if TYPE_CHECKING:
    from example_app.rollout.cluster import Cluster
    from example_app.rollout.tasks import Task

__all__ = ["SCALE_OUTS"]

MINUTES = 10
"""Of ECS, for which it is watched."""


async def scale_out(cluster: "Cluster", tasks: "list[Task]") -> None:
    """Start half as many tasks again, and wait."""
    fresh = await asyncio.gather(*(cluster.start() for _ in range(max(1, len(tasks) // 2))))
    await asyncio.gather(*(cluster.register(task) for task in fresh))
    cluster.events.note("healthy", f"{len(fresh)} tasks more")
    for _ in range(MINUTES):
        await asyncio.sleep(60 * cluster.times.scale)
        await cluster.count_sessions()


def _scenario(name: str, title: str, **environment: str) -> Scenario:
    app = "example_app.rollout.scenarios.drain:app"
    return Scenario(name, title, app, drains=True, environment=environment, course=scale_out)


SCALE_OUTS = (
    _scenario("scale-out-alone", "A scale-out: the balancer moves no connection, and the new tasks stay empty"),
    _scenario(
        "scale-out",
        "The same with rebalance: the old tasks give the new ones their share",
        DRAIN_REBALANCE="true",
        DRAIN_PACING="fleet:100",
    ),
)
"""Without and with rebalance."""
