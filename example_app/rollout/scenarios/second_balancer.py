"""The name leads to a second balancer from now on; the first one is switched off when the rotation is over."""

import asyncio
from typing import TYPE_CHECKING

from example_app.rollout.scenarios.base import Scenario

if TYPE_CHECKING:
    from example_app.rollout.cluster import Cluster
    from example_app.rollout.tasks import Task

__all__ = ["SECOND_BALANCERS"]


async def wait(cluster: "Cluster", tasks: "list[Task]") -> None:
    """Change the balancer and wait, in the hope that clients leave by themselves."""
    await _change(cluster, [], tasks)


async def rotate(cluster: "Cluster", tasks: "list[Task]") -> None:
    """Change the balancer and rotate every task."""
    await _change(cluster, tasks, tasks)


async def _change(cluster: "Cluster", rotated: "list[Task]", tasks: "list[Task]") -> None:
    former, window = await cluster.change_balancer(), cluster.times.delay
    loop = asyncio.get_running_loop()
    ordered_at = loop.time()
    for task in rotated:
        order = {"window": window, "age": loop.time() - ordered_at, "reason": "second balancer"}
        if await task.post("/drain/rotation", order) is None:
            cluster.events.note("fault", f"{task.name} does not rotate")
    await asyncio.sleep(window + 1.0)
    for task in rotated:
        # A machine that stalls makes a rotation longer.
        while (await task.get("/drain/rotation") or {}).get("state") == "rotating":  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    for task in tasks:
        await former.cut(task.target)
        cluster.events.note("cut", task.name)


def _scenario(name: str, title: str, *, rotates: bool) -> Scenario:
    app = "example_app.rollout.scenarios.drain:app"
    return Scenario(name, title, app, drains=True, course=rotate if rotates else wait)


SECOND_BALANCERS = (
    _scenario("second-balancer-alone", "A second balancer: the first cuts all when it is switched off", rotates=False),
    _scenario("second-balancer", "The same with a rotation: all have moved before", rotates=True),
)
"""Without and with a rotation."""
