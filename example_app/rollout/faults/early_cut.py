"""The balancer closes the connections of draining targets half-way, as a proxy with an idle limit of its own may."""

import asyncio

from example_app.rollout.faults.base import Fault, Stage

__all__ = ["EARLY_CUT"]


async def strike(stage: Stage) -> None:
    """Cut."""
    await asyncio.sleep(stage.cluster.times.delay / 2)
    stage.cluster.events.note("fault", "the balancer cuts half-way")
    for task in stage.old:
        await stage.cluster.balancer.cut(task.target)


EARLY_CUT = Fault("early-cut", "the balancer cuts what is left half-way through the delay", strike)
