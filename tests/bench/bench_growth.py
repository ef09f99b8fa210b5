"""Whether memory grows: over drains and cancels, and over sessions that come and go. About a minute and a half."""

from harness.fresh import measure

DRAINS = 100
SESSIONS = 1_000_000
AT_ONCE = 1000
BOUND = 1.0
"""MB that are no growth: memory is taken and given back by the page and by the arena."""


def emit(report, what, grown, bare=None):
    """Report what was added from a tenth of the way to its end."""
    beside = {name: None if bare is None else [bare[name]] for name in ("blocks", "objects")}
    report.add(
        f"{what}, added",
        "MB, resident",
        [grown["resident"] / 1e6],
        None if bare is None else [bare["resident"] / 1e6],
        goal=BOUND,
        judged="ours",
    )
    report.add(f"{what}, added", "blocks of Python's allocator", [grown["blocks"]], beside["blocks"])
    report.add(f"{what}, added", "objects that the collector knows", [grown["objects"]], beside["objects"])
    assert grown["tasks"] == 0


def test_growth_by_drains(report):
    """Drains of a thousand sessions each, every other cancelled half way, the others when they are over."""
    grown = measure("growth_by_drains", number=AT_ONCE, window=0.2, rounds=DRAINS)
    emit(report, f"{DRAINS} drains and cancels", grown)


def test_growth_by_sessions(report):
    """A million sessions opened and closed by their clients, a thousand open at once; bare: without the middleware."""
    grown, bare = (
        measure("growth_by_sessions", number=SESSIONS, at_once=AT_ONCE, watched=watched) for watched in (True, False)
    )
    emit(report, f"{SESSIONS:,} sessions", grown, bare)
