"""The API answers 503 for as long as the deployment lasts."""

from example_app.rollout.faults.base import Fault, Stage

__all__ = ["API_DOWN"]


async def strike(stage: Stage) -> None:
    """Break the API."""
    stage.cluster.events.note("fault", "AWS answers 503")
    stage.cluster.aws.fail("error")


API_DOWN = Fault("api-down", "AWS answers 503 from the deregistration on", strike)
