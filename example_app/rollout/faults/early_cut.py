"""The balancer closes the connections of a draining target half-way, as a proxy with a limit of its own may."""

import asyncio

from example_app.rollout.faults.base import Fault, Stage
from example_app.rollout.tasks import Task

__all__ = ["EARLY_CUT"]


async def strike(stage: Stage) -> None:
    """Cut each of the old tasks, in its own time."""
    async with asyncio.TaskGroup() as cutting:
        for task in stage.old:
            cutting.create_task(_cut(task, stage))


async def _cut(task: Task, stage: Stage) -> None:
    await stage.cluster.events.wait_for("deregistered", task.name)
    await asyncio.sleep(stage.cluster.times.delay / 2)
    stage.cluster.events.note("fault", f"the balancer cuts {task.name} half-way")
    await stage.cluster.balancer.cut(task.target)


EARLY_CUT = Fault("early-cut", "the balancer cuts what is left of a task half-way through its delay", strike)
