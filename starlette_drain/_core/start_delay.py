# Why wait before the first shed?
#
# A deployment at 100/200 (minimum and maximum healthy percent) takes all old tasks out within seconds of one another.
# The balancer still sends to those that it has not taken out yet, so a client shed by the first task is likely to
# reconnect to another old one, and to be shed again. NATS waits 10 s in its lame duck mode for that reason.
#
# The health of the target group does not say which targets are old. It says how many drain (D) and how many are healthy
# (H). Once as many old tasks have been taken out as new ones have come, H <= D, and there is nothing to wait for.
# Before that, H > D: some of the healthy targets may be old. It looks the same when one task of many is taken out for
# good. Then the wait is useless, so it is short.
"""A pacing that waits a little before another one begins."""

from dataclasses import dataclass

from starlette_drain._core.pacing import Pacing

__all__ = ["StartDelay", "may_be_next", "time_to_wait"]

LARGEST_PART = 0.25
"""The largest part of the time until the deadline that may be spent waiting."""


def may_be_next(draining: int, healthy: int) -> bool:
    """Return whether some of the healthy targets may be about to drain too."""
    return 0 < draining < healthy


def time_to_wait(wished: float, time_left: float, needed: float) -> float:
    """
    Return how many seconds to wait.

    Args:
        wished: The most seconds to wait.
        time_left: Seconds until the deadline.
        needed: Seconds that the pacing needs to shed all sessions without exceeding its rate.
    """
    return max(0.0, min(wished, time_left * LARGEST_PART, time_left - needed))


@dataclass(frozen=True, slots=True)
class StartDelay:
    """
    Sheds no session until *until* seconds before the deadline, then follows another pacing.

    An earlier deadline ends the wait.

    Args:
        pacing: The pacing that follows.
        until: Seconds before the deadline at which the wait ends.
        others: The number of healthy targets that may be about to drain too.
    """

    pacing: Pacing
    until: float
    others: int

    @property
    def interval(self) -> float:
        """The interval of the pacing that follows."""
        return self.pacing.interval

    def rate(self, remaining: float, time_left: float) -> float:
        """Return 0, then the rate of the other pacing."""
        return 0.0 if time_left > self.until else self.pacing.rate(remaining, time_left)

    def stance(self, remaining: float, time_left: float) -> str:
        """Return ``waiting``, then the stance of the other pacing, or ``started`` if it has none."""
        if time_left > self.until:
            return "waiting"
        stance = getattr(self.pacing, "stance", None)
        return str(stance(remaining, time_left)) if stance else "started"

    def describe(self, remaining: float, time_left: float) -> str:
        """Return how long the wait may last and why, then the description of the other pacing."""
        if time_left > self.until:
            longest = time_left - self.until
            return f"waiting, for at most {longest:.0f} s: some of {self.others} healthy targets may drain next"
        return self.pacing.describe(remaining, time_left)
