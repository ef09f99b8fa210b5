"""One of the draining tasks is killed half-way: out of memory, for instance."""

import asyncio

from example_app.rollout.faults.base import Fault, Stage

__all__ = ["KILL_TASK"]


async def strike(stage: Stage) -> None:
    """Kill one."""
    await asyncio.sleep(stage.cluster.times.delay / 2)
    victim = stage.old[0]
    stage.cluster.events.note("fault", f"{victim.name} killed")
    await victim.kill()


KILL_TASK = Fault("kill-task", "one draining task gets SIGKILL half-way through the delay", strike)
