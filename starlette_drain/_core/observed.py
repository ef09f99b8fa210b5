"""What a drain picks from that only watches: it counts, and takes no session from anyone."""

from random import Random

from starlette_drain._core.session import Session, SessionRegistry

__all__ = ["ObservedSessions"]


class ObservedSessions:
    """
    Stands for the sessions of a registry in the plan of a drain with ``mode="observe"``.

    Args:
        registry: Where the sessions are, and stay.
    """

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._picked = 0

    @property
    def waiting(self) -> int:
        """How many may be picked."""
        return max(0, self._registry.remaining - self._picked)

    remaining = waiting

    def pick(self, rng: Random, *, even_held: bool = False) -> Session | None:  # noqa: ARG002 - none is taken
        """Count one more; return something that stands for it."""
        if not self.waiting:
            return None
        self._picked += 1
        return Session("", 0.0)
