"""Somebody deploys again before the first deployment has ended."""

import asyncio

from example_app.rollout.faults.base import Fault, Stage

__all__ = ["SECOND_DEPLOYMENT"]


async def strike(stage: Stage) -> None:
    """Deploy again."""
    await asyncio.sleep(stage.cluster.times.delay / 2)
    stage.cluster.events.note("fault", "a second deployment begins")
    await stage.deploy_again()


SECOND_DEPLOYMENT = Fault(
    "second-deployment", "a second deployment begins half-way through the first's delay", strike, deployments=2
)
