# When must the last session be gone?
#
# Nothing tells since when the time of a target runs: an answer about its health carries no timestamp. What we know is
# when we last asked and were told otherwise. The deregistration began at that moment or later, so the balancer cuts at
#
#     began + deregistration delay        began = the last time an answer said "not draining"
#
# or later. Counting from the earliest possible beginning can only make us finish early. Where no earlier answer exists
# (the process came up in the middle, or the calls had failed since the start), one poll interval is assumed, and the
# reason of the cause says that the age is unknown.
#
# Where polls have failed for long, "finish early" would be a burst: after seven minutes without answers the deadline is
# now. But a target that still shows `draining` proves that the delay is not over, so from a look that finds it the
# drain gets a quarter of the delay at the least, unless something else tells when it began. SIGTERM still ends it.
#
# From that the margin is taken: the last close handshakes happen in it. A delay shorter than twice the margin gives
# half of itself, so that a short delay still leaves time to spread the sheds.
#
# A target that is *gone* needs no other sum. A balancer that keeps to its delay is done at began + delay at the
# earliest, so "gone" is seen after that moment and the deadline comes out as now. If it is seen sooner, what was
# promised has not been kept, but nothing says that the connections are cut either: the sessions that are still open are
# shed at an even pace, and not all in one instant, for as long as the promise would have run. Where the delay was only
# assumed, the assumption is refuted, and the deadline is now. In both cases SIGTERM comes as soon as the target is
# gone, and that brings a deadline of its own.
"""The arithmetic of the deregistration delay: pure."""

__all__ = ["deadline", "effective_margin", "fitting_window"]


def effective_margin(margin: float, delay: float) -> float:
    """Return what is kept free at the end of *delay*: the margin wished for, but half of the delay at the most."""
    return min(margin, delay / 2)


def fitting_window(delay: float, poll_interval: float, margin: float) -> float:
    """Return for how many seconds sheds may spread when a deregistration is noticed as late as polling allows."""
    return max(0.0, delay - poll_interval - effective_margin(margin, delay))


def deadline(  # noqa: PLR0917 - the whole sum in one place
    now: float, began: float, delay: float, margin: float, window: float | None = None, least: float = 0.0
) -> float:
    """
    Return when the last session must be gone; never before *now*.

    Args:
        now: When it was noticed.
        began: The earliest moment at which the delay may have begun.
        delay: Seconds from then until connections are cut.
        margin: Seconds to keep free before that.
        window: Seconds from *now* that the drain may take at the most, where that is set.
        least: Seconds from *now* that it gets at the least, *window* allowing.
    """
    ends = max(now + least, began + delay - effective_margin(margin, delay))
    return ends if window is None else min(ends, now + window)
