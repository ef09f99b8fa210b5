"""The example app as it is: it sees that its target is draining, and spends the delay closing sessions one by one."""

from starlette.applications import Starlette

from example_app.rollout.scenarios.base import Scenario

__all__ = ["DRAIN", "app"]

DRAIN = Scenario(
    name="drain",
    title="starlette_drain: one by one, from the moment the balancer says “draining”",
    app=f"{__name__}:app",
    drains=True,
)


def app() -> Starlette:
    """Make the application."""
    from example_app.server import app as application  # noqa: PLC0415 - it reads the environment of the task

    return application
