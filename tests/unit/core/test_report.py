"""How a drain went: the tally and the report made from it."""

from dataclasses import FrozenInstanceError, fields

import pytest

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.report import Tally

CAUSE = DrainCause("target-health", "draining", at=1000.0, lag=5.0)


def report_at(tally, now, *, deadline=1100.0, still_open=0, causes=(CAUSE,), is_cancelled=False):
    """Make the report."""
    return tally.report(now, causes=causes, deadline=deadline, still_open=still_open, is_cancelled=is_cancelled)


def tally_of(*moments, sessions=10):
    """Return the tally of a drain that shed at *moments*, in seconds from its start."""
    tally = Tally("d1", 1000.0, sessions)
    for moment in moments:
        tally.count_shed(1000.0 + moment)
    return tally


def test_report_carries_what_was_counted():
    """Every count and moment stands in the report under its own name."""
    tally = tally_of(1.0, 2.0, 50.0)
    tally.arrived, tally.left, tally.refused, tally.forced = 4, 5, 6, 1
    later = DrainCause("sigterm", "told to stop", at=1050.0, deadline=1070.0, revocable=False)
    report = report_at(tally, 1060.0, deadline=1070.0, still_open=2, causes=(CAUSE, later))
    assert (report.drain_id, report.causes, report.sessions_at_start) == ("d1", (CAUSE, later), 10)
    assert (report.window, report.duration, report.slack, report.detection_lag) == (70.0, 60.0, 10.0, 5.0)
    assert (report.arrived, report.shed, report.left, report.refused, report.forced) == (4, 3, 5, 6, 1)
    assert report.still_open == 2


def test_missed_deadline_is_negative_slack():
    """Whoever looks at one figure only sees that the deadline was missed."""
    assert report_at(tally_of(), 1103.5).slack == -3.5


def test_report_is_frozen():
    """A report is a fact."""
    report = report_at(tally_of(), 1001.0)
    for each in fields(report):
        with pytest.raises(FrozenInstanceError):
            setattr(report, each.name, None)


@pytest.mark.parametrize(
    ("moments", "peak", "mean"),
    [
        ([], 0.0, 0.0),
        ([0.5], 1.0, 1.0),
        ([0.001, 0.002, 0.003], 3.0, 3.0),  # not 1,000 a second: within one second
        ([0.1, 0.9, 1.0, 1.1, 1.2, 4.0], 3.0, 1.5),
        ([0.0, 10.0], 1.0, 0.2),
        ([2.0] * 5 + [3.0] * 4, 5.0, 3.0),
    ],
)
def test_rates(moments, peak, mean):
    """The peak is the busiest whole second; the mean runs to the last shed, over a second at least."""
    report = report_at(tally_of(*moments), 1060.0)
    assert (report.peak_rate, report.mean_rate) == (peak, mean)


def test_tally_of_a_long_drain_does_not_grow():
    """Counting costs no memory: there are slots only, and none of them is a list."""
    tally = tally_of(*range(10_000))
    assert not hasattr(tally, "__dict__")
    assert not any(hasattr(getattr(tally, name), "append") for name in Tally.__slots__)


@pytest.mark.parametrize(
    ("shed", "left", "remaining", "percent"),
    [(0, 0, 0, 100), (0, 0, 10, 0), (1, 0, 2, 33), (1, 1, 1, 66), (0, 5, 0, 100), (999, 0, 1, 99)],
)
def test_percent(shed, left, remaining, percent):
    """Progress never says 100 % while somebody is left, and a drain of nobody is done."""
    tally = tally_of(*range(shed))
    tally.left = left
    assert tally.percent(remaining) == percent
