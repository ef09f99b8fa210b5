"""What a fault is, and what it can reach."""

from collections.abc import Callable, Coroutine
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
    """

    cluster: Cluster
    old: list[Task]


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
    """

    name: str
    what: str
    strike: Callable[[Stage], Coroutine[Any, Any, None]] = nothing
    deaf: float = 0.0
