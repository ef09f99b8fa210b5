"""What a fault is, and what it can reach."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from example_app.rollout.cluster import Cluster
from example_app.rollout.tasks import Task

__all__ = ["Fault", "Stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """
    What a fault can reach.

    Attributes:
        cluster: Everything that runs.
        old: The tasks that the deployment replaces.
        deploy_again: Deploy once more, and return when that has ended.
    """

    cluster: Cluster
    old: list[Task]
    deploy_again: Callable[[], Awaitable[None]]


async def nothing(_stage: Stage) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Something that goes wrong.

    Attributes:
        name: As on the command line.
        what: What happens, in one line.
        strike: Called when the first target is deregistered.
        deaf: Share of the clients that never read.
        deployments: How many there are with it; more than one needs all tasks to go at once.
    """

    name: str
    what: str
    strike: Callable[[Stage], Coroutine[Any, Any, None]] = nothing
    deaf: float = 0.0
    deployments: int = 1
