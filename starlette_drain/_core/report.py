"""How a drain went: the tally kept while it runs, and the report made from it."""

from dataclasses import dataclass
from typing import Literal

from starlette_drain._core.cause import DrainCause

__all__ = ["DrainReport", "Tally"]

ROUND_TRIP = 1.0
"""
Seconds after the deadline that do not count as late: the last session is asked before the deadline, and is gone when
its client has answered. Clients that take longer use up the margin between the deadline and the balancer's cut.
"""


@dataclass(frozen=True, slots=True)
class DrainReport:
    """
    One drain, in figures.

    Attributes:
        drain_id: Identifies the drain in logs, spans and answers.
        causes: The claims that caused the drain, in order.
        window: Seconds from the start to the deadline as it stood at the end.
        detection_lag: Upper bound, in seconds, of how late the first cause was noticed.
        duration: Seconds from the start to the end.
        sessions_at_start: Open when the drain began, without those already leaving.
        arrived: Opened while it ran (only where late arrivals are accepted).
        shed: Asked to leave by the drain.
        left: Closed by themselves, without being asked.
        refused: Late arrivals refused.
        forced: Of those shed, the sessions whose application had to be cancelled.
        still_open: Open when the report was made, asked to leave or not.
        peak_rate: Sheds in the busiest second, per second.
        mean_rate: Sheds per second from the start to the last shed.
        outcome: How it ended: ``"drained"``, ``"late"`` (all have gone, but after the deadline), ``"incomplete"``
            (some are still open), or ``"cancelled"``.
        slack: Seconds from the end of the drain to the deadline; negative if it was missed.
        return_rate: The most clients asked to reconnect within one second, to any task.
    """

    drain_id: str
    causes: tuple[DrainCause, ...]
    window: float
    detection_lag: float
    duration: float
    sessions_at_start: int
    arrived: int
    shed: int
    left: int
    refused: int
    forced: int
    still_open: int
    peak_rate: float
    mean_rate: float
    outcome: Literal["drained", "late", "incomplete", "cancelled"]
    slack: float
    return_rate: int = 0


class Tally:
    """Counts a drain while it runs. Rates are per whole second since the start, so memory does not grow."""

    __slots__ = (
        "_busiest",
        "_in_second",
        "_second",
        "arrived",
        "drain_id",
        "forced",
        "last_shed_at",
        "left",
        "refused",
        "return_rate",
        "sessions_at_start",
        "shed",
        "started_at",
    )

    def __init__(self, drain_id: str, started_at: float, sessions_at_start: int) -> None:
        self.drain_id = drain_id
        self.started_at = started_at
        self.sessions_at_start = sessions_at_start
        self.arrived = self.shed = self.left = self.refused = self.forced = 0
        self.last_shed_at = started_at
        self._second = self._in_second = self._busiest = self.return_rate = 0

    def count_shed(self, now: float) -> None:
        """Count one session that was asked to leave."""
        self.shed += 1
        self.last_shed_at = now
        second = int(now - self.started_at)
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        self._busiest = max(self._busiest, self._in_second)

    def percent(self, remaining: int) -> int:
        """Return how much of the drain is done, in whole percent, with *remaining* sessions not yet asked to leave."""
        done = self.shed + self.left
        return 100 * done // (done + remaining) if done + remaining else 100

    def report(
        self, now: float, *, causes: tuple[DrainCause, ...], deadline: float, still_open: int, is_cancelled: bool
    ) -> DrainReport:
        """Return the report as of *now*."""
        slack = deadline - now
        ending: Literal["late", "drained"] = "late" if slack < -ROUND_TRIP else "drained"
        # A rate over less than one second is meaningless: three sheds in 10 ms are not 300/s.
        shedding = max(self.last_shed_at - self.started_at, 1.0)
        return DrainReport(
            drain_id=self.drain_id,
            causes=causes,
            window=deadline - self.started_at,
            detection_lag=causes[0].lag,
            duration=now - self.started_at,
            sessions_at_start=self.sessions_at_start,
            arrived=self.arrived,
            shed=self.shed,
            left=self.left,
            refused=self.refused,
            forced=self.forced,
            still_open=still_open,
            peak_rate=float(self._busiest),
            mean_rate=self.shed / shedding,
            outcome="cancelled" if is_cancelled else "incomplete" if still_open else ending,
            slack=slack,
            return_rate=self.return_rate,
        )
