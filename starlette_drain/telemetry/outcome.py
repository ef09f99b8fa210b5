"""How a drain ended, in one word: the same one in the log and on the span."""

from starlette_drain._core.report import DrainReport

__all__ = ["outcome"]

ROUND_TRIP = 1.0
"""
Seconds after the deadline that are not called late: the last session was asked before it, and is gone when its client
has answered. The margin that every deadline keeps from the balancer's cut is there for those that take longer.
"""


def outcome(report: DrainReport) -> str:
    """Return ``drained``, ``late`` (everyone has gone, but after the deadline) or ``incomplete`` (somebody has not)."""
    if report.still_open:
        return "incomplete"
    return "late" if report.slack < -ROUND_TRIP else "drained"
