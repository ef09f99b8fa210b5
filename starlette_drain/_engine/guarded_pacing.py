"""A pace of the application's own that cannot stop a drain."""

import logging
from collections.abc import Callable
from typing import TypeVar

from starlette_drain._core.pacing import EvenPacing, Pacing

__all__ = ["GuardedPacing"]

logger = logging.getLogger("starlette_drain")

AnswerT = TypeVar("AnswerT")


class GuardedPacing:
    """
    Answers as *pacing* does until that fails: it is logged then, and an even pace goes on in its place.

    Args:
        pacing: The strategy.
    """

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing

    @property
    def interval(self) -> float:
        """Return the seconds between two batches."""
        return self._ask(lambda pacing: float(pacing.interval))

    def rate(self, remaining: float, time_left: float) -> float:
        """Return how many sessions per second may be asked to leave now."""
        return self._ask(lambda pacing: float(pacing.rate(remaining, time_left)))

    def describe(self, remaining: float, time_left: float) -> str:
        """Say in a few words what the rule does now."""
        return self._ask(lambda pacing: str(pacing.describe(remaining, time_left)))

    def _ask(self, question: Callable[[Pacing], AnswerT]) -> AnswerT:
        try:
            return question(self._pacing)
        except Exception:
            logger.exception("Pacing %r failed; the drain goes on, evenly from here on", self._pacing)
            self._pacing = EvenPacing()
            return question(self._pacing)
