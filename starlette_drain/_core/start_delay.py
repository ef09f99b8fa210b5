# Why wait at all?
#
# A deployment at 100/200 takes all old tasks out within seconds of one another. The balancer goes on sending to those
# it has not taken out yet, so a client shed by the first lands, as likely as not, on one that is next, and is shed
# again. NATS waits 10 s in its lame duck mode for that reason.
#
# One answer about the target group does not say which targets are old. It says how many drain (D) and how many are
# healthy (H). When as many old tasks have been taken out as new ones have come, H <= D and there is nothing to wait
# for. Before that, H > D: among the healthy there may be old ones. The same is seen when one task of many is taken out
# for good; then the wait is in vain, which is why it is short.
"""A pace that waits a little before another begins."""

from dataclasses import dataclass

from starlette_drain._core.pacing import Pacing

__all__ = ["StartDelay", "may_be_next", "time_to_wait"]

LARGEST_PART = 0.25
"""Of the time to the deadline, that may be spent waiting."""


def may_be_next(draining: int, healthy: int) -> bool:
    """Tell whether some of the healthy targets may be about to drain too."""
    return 0 < draining < healthy


def time_to_wait(wished: float, time_left: float, needed: float) -> float:
    """
    Return for how many seconds to wait.

    Args:
        wished: Seconds, at the most.
        time_left: Seconds until the deadline.
        needed: Seconds of them that the pace takes, if it is not to go faster than it should.
    """
    return max(0.0, min(wished, time_left * LARGEST_PART, time_left - needed))


@dataclass(frozen=True, slots=True)
class StartDelay:
    """
    No session until *until* seconds before the deadline, then another pace. A deadline that is brought forward ends it.

    Args:
        pacing: The pace that follows.
        until: Seconds before the deadline.
        others: Targets that may be about to drain too.
    """

    pacing: Pacing
    until: float
    others: int

    @property
    def interval(self) -> float:
        """That of the pace that follows."""
        return self.pacing.interval

    def rate(self, remaining: float, time_left: float) -> float:
        """Return 0, then what the other pace says."""
        return 0.0 if time_left > self.until else self.pacing.rate(remaining, time_left)

    def stance(self, remaining: float, time_left: float) -> str:
        """Return ``waiting``, then what the other pace says."""
        if time_left > self.until:
            return "waiting"
        words = getattr(self.pacing, "stance", None)
        return str(words(remaining, time_left)) if words else "started"

    def describe(self, remaining: float, time_left: float) -> str:
        """Say for how long, and why."""
        if time_left > self.until:
            longest = time_left - self.until
            return f"waiting, for {longest:.0f} s at the most: some of {self.others} healthy targets may drain next"
        return self.pacing.describe(remaining, time_left)
