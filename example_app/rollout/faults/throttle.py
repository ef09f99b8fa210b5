"""The account's budget of Describe calls is spent by somebody else for a third of the delay."""

from example_app.rollout.faults.base import Fault, Stage

__all__ = ["THROTTLE"]


async def strike(stage: Stage) -> None:
    """Throttle."""
    stage.cluster.events.note("fault", "AWS throttles DescribeTargetHealth")
    stage.cluster.aws.fail("throttle", action="DescribeTargetHealth", seconds=stage.cluster.times.delay / 3)


THROTTLE = Fault("throttle", "AWS throttles DescribeTargetHealth for the first third of the delay", strike)
