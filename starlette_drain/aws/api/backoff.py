"""How long to wait after failures."""

from random import Random

__all__ = ["Backoff"]


class Backoff:
    """
    Decorrelated backoff: each wait is drawn between the base and three times the previous wait.

    Of the schemes in https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ it is the one that
    spreads a fleet that was throttled at the same moment.

    Args:
        base: The shortest wait, in seconds, and the wait when nothing fails.
        cap: The longest wait, in seconds.
        rng: The source of randomness.
    """

    def __init__(self, base: float, cap: float, rng: Random) -> None:
        self._base = base
        self._cap = max(base, cap)
        self._rng = rng
        self._wait = base

    @property
    def wait(self) -> float:
        """The current wait, in seconds."""
        return self._wait

    def rebase(self, base: float, cap: float) -> None:
        """Change the shortest and the longest wait."""
        self._base = base
        self._cap = max(base, cap)
        self._wait = max(base, self._wait)

    def grow(self) -> float:
        """Draw a longer wait after a failure, and return it."""
        self._wait = min(self._cap, self._rng.uniform(self._base, self._wait * 3))
        return self._wait

    def reset(self) -> None:
        """Go back to the base after a success."""
        self._wait = self._base
