"""Plain uvicorn: when SIGTERM comes it closes every WebSocket in one pass of its event loop."""

from starlette.applications import Starlette

from example_app.rollout.scenarios.base import Scenario, plain_app

__all__ = ["SIGTERM_ONLY", "app"]

SIGTERM_ONLY = Scenario(
    name="sigterm-only",
    title="Plain uvicorn: no client leaves before SIGTERM, then all at once",
    app=f"{__name__}:app",
)


def app() -> Starlette:
    """Make the application."""
    return plain_app()
