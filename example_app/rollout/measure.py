"""From records and events to figures: pure."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from example_app.rollout.clients.records import NO_CLOSE_FRAME, Records
from example_app.rollout.events import Events
from example_app.rollout.times import Times

__all__ = ["Figures", "busiest_second", "measure", "percentile", "windows"]


@dataclass(frozen=True, slots=True)
class Figures:
    """
    One rollout in figures.

    Attributes:
        peak: New connections in the busiest second of the deployment, wherever that second begins: TCP connections
            that clients make to the balancer, which an ALB counts as NewConnectionCount.
        peak_opened: WebSockets established in the busiest second, as fast as the servers can.
        mean: New connections per second if they were spread evenly over the windows.
        windows: Seconds in which sessions could leave in good order: from each deregistration to the end of its delay
            (or from the shift of the traffic to the end of its pause or bake time) less the margin, put together where
            they overlap; all of it where no target was deregistered.
        new_connections: TCP connections that clients made during the deployment.
        codes: Connections that ended, by close code; 1006 is none.
        cut: Connections that ended without a close frame.
        never_back: Clients that had no connection in the end.
        hops: Connections lost per client that lost any.
        without_p50: Median of the seconds without a connection.
        without_p99: 99th percentile.
        without_max: The longest.
        failures: Attempts that failed, by reason.
        deaf: What clients that never read found in the end, by close code.
        duration: Seconds from the first new task to the end of the last old one.
    """

    peak: int
    peak_opened: int
    mean: float
    windows: float
    new_connections: int
    codes: dict[int, int]
    cut: int
    never_back: int
    hops: float
    without_p50: float
    without_p99: float
    without_max: float
    failures: dict[str, int]
    deaf: dict[str, int]
    duration: float

    @property
    def ratio(self) -> float:
        """How much busier the busiest second is than the mean."""
        return self.peak / self.mean if self.mean else math.nan


def measure(records: Records, events: Events, times: Times) -> Figures:
    """Make the figures of one rollout."""
    began, ended = events.times("deployment began")[0], events.times("deployment ended")[-1]
    opened = sorted(each for each in records.opened if each >= began)
    connected = sorted(each for each in records.connected if each >= began)
    losses = [each for each in records.losses if each.lost >= began]
    without = sorted(each.back - each.lost for each in losses if each.back is not None)
    codes = Counter(each.code for each in losses)
    starts = events.times("shifted") or events.times("deregistered")
    total = sum(end - start for start, end in windows(starts, times)) or ended - began
    return Figures(
        peak=busiest_second(connected),
        peak_opened=busiest_second(opened),
        mean=len(connected) / total if total else math.nan,
        windows=total,
        new_connections=len(connected),
        codes=dict(sorted(codes.items())),
        cut=codes[NO_CLOSE_FRAME],
        never_back=sum(each.back is None for each in losses),
        hops=len(losses) / max(1, len({each.client for each in losses})),
        without_p50=percentile(without, 0.5),
        without_p99=percentile(without, 0.99),
        without_max=without[-1] if without else 0.0,
        failures=dict(records.failures),
        deaf=dict(records.deaf),
        duration=ended - began,
    )


def windows(starts: Iterable[float], times: Times) -> list[tuple[float, float]]:
    """Return the stretches of time in which sessions could leave in good order, put together where they overlap."""
    together: list[tuple[float, float]] = []
    for start in sorted(starts):
        end = start + times.leaving - times.margin
        if together and start <= together[-1][1]:
            together[-1] = together[-1][0], max(together[-1][1], end)
        else:
            together.append((start, end))
    return together


def busiest_second(moments: Sequence[float]) -> int:
    """Return the most of the sorted *moments* that fall within any one second, not only within one on the clock."""
    return max((index + 1 - bisect_right(moments, moment - 1.0) for index, moment in enumerate(moments)), default=0)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least *share* of the values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
