# When must the last session be gone?
#
# AWS does not say when the deregistration of a target began: DescribeTargetHealth returns no timestamp. We only know
# when an answer last said "not draining". The deregistration began at that moment or later, so the balancer cuts at
#
#     began + deregistration delay        began = the last time an answer said "not draining"
#
# or later. Counting from the earliest possible beginning can only make us finish early. If there was no earlier answer
# (the process started during the deregistration, or every call has failed since), one poll interval is assumed, and
# the reason of the cause says that the age is unknown.
#
# After a long run of failed polls, "finish early" would be a burst: after seven minutes without answers the deadline is
# now. But a target that still shows `draining` proves that the delay is not over. So from the poll that finds it, the
# drain gets at least a quarter of the delay, unless another source knows when it began. SIGTERM still ends it.
#
# The margin is subtracted from that, for the last close handshakes. If the delay is shorter than twice the margin, the
# margin is half of the delay, so that there is still time to spread the sheds.
#
# A target that is *gone* needs no other formula. A balancer that honours its delay finishes at began + delay at the
# earliest, so "gone" is seen after that moment and the deadline is now. If it is seen sooner, the balancer has not
# honoured its delay, but that does not mean that the connections are cut: the sessions still open are shed evenly over
# what is left of the delay, not all at once. If the delay was only assumed, the assumption was wrong, and the deadline
# is now. In both cases SIGTERM follows as soon as the target is gone, with a deadline of its own.
"""Computes deadlines from the deregistration delay. Pure functions."""

__all__ = ["deadline", "effective_margin", "fitting_window"]


def effective_margin(margin: float, delay: float) -> float:
    """Return the seconds to keep free at the end of *delay*: *margin*, but at most half of the delay."""
    return min(margin, delay / 2)


def fitting_window(delay: float, poll_interval: float, margin: float) -> float:
    """Return the seconds left to spread the sheds if a deregistration is noticed a whole *poll_interval* late."""
    return max(0.0, delay - poll_interval - effective_margin(margin, delay))


def deadline(  # noqa: PLR0917 - the whole formula in one place
    now: float, began: float, delay: float, margin: float, window: float | None = None, least: float = 0.0
) -> float:
    """
    Return when the last session must be gone, never before *now*. All times are seconds on one clock.

    Args:
        now: When the deregistration was noticed.
        began: The earliest moment at which the delay may have begun.
        delay: Seconds from then until connections are cut.
        margin: Seconds to keep free before the cut.
        window: The most seconds that the drain may take from *now*; ``None`` for no limit.
        least: The fewest seconds that the drain gets from *now*; *window* still limits it.
    """
    ends = max(now + least, began + delay - effective_margin(margin, delay))
    return ends if window is None else min(ends, now + window)
