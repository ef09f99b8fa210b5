"""How even a shed was, from the moments at which sessions were closed: pure arithmetic."""

from collections.abc import Sequence

__all__ = ["busiest", "deviation"]


def deviation(moments: Sequence[float], start: float, end: float) -> float:
    """
    Return the largest distance from the straight line, in percent of all.

    Args:
        moments: When each session was closed, in order.
        start: When the line begins: nobody is closed.
        end: When the line ends: everybody is.
    """
    number = len(moments)
    worst = 0.0
    for closed, moment in enumerate(moments):
        line = number * min(max(0.0, (moment - start) / (end - start)), 1.0)
        worst = max(worst, line - closed, closed + 1 - line)
    return 100 * worst / number


def busiest(moments: Sequence[float], seconds: float, start: float, end: float) -> float:
    """Return the number closed in the busiest stretch of *seconds*, wherever it begins, ÷ the mean."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most / (len(moments) * seconds / (end - start))
