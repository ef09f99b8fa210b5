"""What a scenario is, and the example app without the package, on which those before ours stand."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import Lifespan

from example_app.server import connect, health

__all__ = ["Scenario", "Strike", "plain_app"]


@dataclass(frozen=True, slots=True)
class Strike:
    """
    What is lost in one moment, without a drain.

    Attributes:
        tasks: How many of so many tasks are killed.
        connections: Share of its connections that the balancer drops.
    """

    tasks: Callable[[int], int] = lambda _: 0
    connections: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One way for a task to leave.

    Attributes:
        name: As on the command line.
        title: One line for the picture.
        app: What uvicorn runs: a function that makes the application.
        drains: Whether the task has the package's admin route, and the lab asks it how far it is.
        strike: What is lost in place of a deployment; the application then tells ``/watch``.
        environment: What its tasks are told besides.
        course: What happens in place of a deployment, given the cluster and its tasks.
    """

    name: str
    title: str
    app: str
    drains: bool = False
    strike: Strike | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    course: Callable[[Any, Any], Awaitable[None]] | None = None


def plain_app(lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Make the example app without the one line."""
    routes = [Route("/healthz", health), WebSocketRoute("/devices/{device_id}", connect)]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.devices = {}
    return app
