# A drain spreads who leaves. When they come back is another matter: those that are refused in one moment, or shed in
# one batch, would come back in one moment too. So each one that is sent away gets a place in one plan of arrivals.
#
#   - One that a drain or its age asks to leave has its place already: where it stands in the line of all who leave.
#   - One that a drain refuses gets the emptiest second from `retry_after` to twice that.
#   - One that the limit on handshakes refuses gets the first second that has room at the rate at which it is served.
#
# Nothing is drawn but where the process begins within a second, once: two processes do not beat in time.
"""When those come back that were sent away: one plan of arrivals for the process."""

import math
from random import Random

__all__ = ["ReturnPlan"]

GOLDEN = (math.sqrt(5) - 1) / 2
"""Steps of this fraction fill an interval evenly, however many there are (Kronecker sequence)."""

FURTHEST = 120.0
"""Seconds after which a client is asked back at the latest, however many there are."""


class ReturnPlan:
    """
    Counts, second by second, how many are asked to come back.

    It knows no clock and has no randomness of its own.

    Args:
        rng: The source of randomness: where within a second it begins.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._phase: float | None = None
        self.busiest = 0
        """How many were asked back in the busiest second, since this was set to 0."""
        self._counts: dict[int, int] = {}
        self._pruned = 0

    def note(self, now: float, delay: float) -> None:
        """Take note of one that comes back *delay* seconds from *now*."""
        second = math.floor(now + delay)
        self._counts[second] = count = self._counts.get(second, 0) + 1
        self.busiest = max(self.busiest, count)
        if self._pruned != (this := math.floor(now)):
            self._pruned = this
            self._counts = {each: count for each, count in self._counts.items() if each >= this}

    def place(self, now: float, least: float, rate: float | None = None) -> float:
        """
        Return the seconds from *now* after which one more should come back, and keep that place for it.

        Args:
            now: The moment.
            least: Seconds that it stays away at least, and without a *rate* at most twice.
            rate: How many can be served per second, where that is known.
        """
        self._phase = phase = (self._rng.random() if self._phase is None else self._phase + GOLDEN) % 1.0
        first, last = now + least, now + (2 * least if rate is None else max(least, FURTHEST))
        best, fewest = (first, last), math.inf
        for second in range(math.floor(first), max(math.floor(first) + 1, math.ceil(last))):
            begin, end = max(first, second), min(last, second + 1)
            count = self._counts.get(second, 0) / max(end - begin, 1e-6)
            if count < fewest:
                best, fewest = (begin, end), count
            if rate is not None and count < rate:
                break
        begin, end = best
        delay = begin + phase * (end - begin) - now
        self.note(now, delay)
        return delay
