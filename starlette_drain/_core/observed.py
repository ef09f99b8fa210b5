"""The candidates of a drain in observe-only mode: sessions are counted, none is asked to leave."""

from random import Random

from starlette_drain._core.session import Session, SessionRegistry

__all__ = ["ObservedSessions"]


class ObservedSessions:
    """
    Stands in for a `SessionRegistry` in the plan of a drain with ``mode="observe"``.

    Args:
        registry: The real sessions, which stay untouched.
    """

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._picked = 0

    @property
    def waiting(self) -> int:
        """The number of sessions that may still be picked."""
        return max(0, self._registry.remaining - self._picked)

    remaining = waiting

    def pick(self, rng: Random, *, even_held: bool = False) -> Session | None:  # noqa: ARG002 - no real session is picked
        """Count one more session; return a placeholder for it, or ``None`` if all are counted."""
        if not self.waiting:
            return None
        self._picked += 1
        return Session("", 0.0)
