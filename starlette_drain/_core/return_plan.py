# A drain spreads when clients leave, but not when they come back: clients refused together, or shed in one batch, would
# reconnect together. So every client that is sent away gets a place in one plan of arrivals.
#
#   - A client that a drain or the age of its session asks to leave already has its place: see
#     `DrainRun.reconnect_delay`.
#   - A client that a drain refuses gets the emptiest second from `retry_after` to twice that.
#   - A client that the limit on handshakes refuses gets the first second with room at the current rate of set-ups.
#
# The only random number is the starting point within a second, drawn once, so that processes are not in step.
"""Plans when the clients that were sent away come back: one plan for the process."""

import math
from random import Random

__all__ = ["ReturnPlan"]

GOLDEN = (math.sqrt(5) - 1) / 2
"""Steps of this fraction fill an interval evenly, however many there are (Kronecker sequence)."""

FURTHEST = 120.0
"""The longest delay, in seconds, if the rate is known, however many clients there are."""


class ReturnPlan:
    """
    Counts, for each second, how many clients are asked to reconnect. It reads no clock.

    Args:
        rng: The source of randomness, for the starting point within a second.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._phase: float | None = None
        self.busiest = 0
        """The most clients asked to reconnect in one second since this was set to 0."""
        self._counts: dict[int, int] = {}
        self._pruned = 0

    def note(self, now: float, delay: float) -> None:
        """Count a client that is asked to reconnect *delay* seconds from *now*."""
        second = math.floor(now + delay)
        self._counts[second] = count = self._counts.get(second, 0) + 1
        self.busiest = max(self.busiest, count)
        if self._pruned != (this := math.floor(now)):
            self._pruned = this
            self._counts = {each: count for each, count in self._counts.items() if each >= this}

    def place(self, now: float, least: float, rate: float | None = None) -> float:
        """
        Return the seconds from *now* after which one more client should reconnect, and count it there.

        Args:
            now: The time, in seconds.
            least: The shortest delay in seconds. Without a *rate* the longest is twice that.
            rate: How many clients can be set up per second, if known.
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
