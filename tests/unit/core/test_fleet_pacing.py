"""One budget for many tasks: what a task may shed, when it pauses, and what the deadline makes of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsal import START, Rehearsal

from starlette_drain._core.fleet_pacing import FleetPacing, FleetView
from starlette_drain._core.pacing import EvenPacing, Pacing
from starlette_drain._core.start_delay import StartDelay, may_be_next, time_to_wait
from starlette_drain.exceptions import SettingsError


@pytest.mark.parametrize(
    ("pacing", "remaining", "time_left", "rate", "stance"),
    [
        (FleetPacing(500), 100, 280, 500, "within budget"),
        (FleetPacing(500, draining=8), 100, 280, 62.5, "within budget"),
        (FleetPacing(500, draining=0), 100, 280, 500, "within budget"),
        (FleetPacing(500, 8, healthy=8), 28_000, 280, 100, "gives way"),
        (FleetPacing(500, 8, healthy=0), 100, 280, 0, "paused"),
        (FleetPacing(500, 8, healthy=0), 17_499, 280, 0, "paused"),
        (FleetPacing(500, 8, healthy=0), 17_500, 280, 62.5, "within budget"),
        (FleetPacing(500, 8, healthy=0), 28_000, 280, 100, "gives way"),
        (FleetPacing(0.5, 100, healthy=1), 0, 1, 0.005, "within budget"),
        (FleetPacing(500, 2, healthy=14, to_follow=6), 100, 280, 62.5, "within budget"),
        (FleetPacing(500, 0, healthy=100, to_follow=100), 100, 280, 5, "within budget"),
    ],
)
def test_a_part_of_the_budget(pacing, remaining, time_left, rate, stance):
    """An equal part for each that drains; nothing while nobody else is healthy; what the deadline needs in any case."""
    assert pacing.rate(remaining, time_left) == pytest.approx(rate)
    assert pacing.stance(remaining, time_left) == stance
    assert isinstance(pacing, Pacing)


@pytest.mark.parametrize(
    ("draining", "healthy", "counted", "to_follow"),
    [
        (1, 15, True, 7),  # 8 old and 8 new ones, the first of them taken out
        (8, 8, True, 0),
        (1, 7, True, 3),  # half at a time, as at 50/100
        (4, 4, True, 0),
        (8, 0, True, 0),
        (1, 0, True, 0),
        (1, 1, True, 0),
        (1, 2, True, 1),
        (0, 16, False, 16),
        (8, 8, False, 8),
        (0, 0, False, 0),
    ],
)
def test_who_may_drain_besides(draining, healthy, counted, to_follow):
    """Half of all that live may be taken out; of those that were told by others anybody may have been."""
    assert to_follow == FleetView(draining, healthy, counted).to_follow


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan")])
def test_a_budget_of_nothing_is_refused(limit):
    """A limit that cannot work is refused at once."""
    with pytest.raises(SettingsError, match="500"):
        FleetPacing(limit)


def test_a_pause_ends_when_the_budget_just_does():
    """With nobody healthy nobody is asked until the rest needs the whole part, and then all leave at that pace."""
    play = Rehearsal(200, FleetPacing(20, draining=4, healthy=0), window=100).run()
    assert 58.5 <= play.moments[0] <= 61.5
    assert play.moments[-1] <= 100
    assert max(play.shed_within(moment, moment + 10) for moment in play.moments) <= 5 * 1.03 * 10 + 2
    assert all("paused, for" in call.words for call in play.calls if call.at < START + 58)


def test_a_pause_ends_when_somebody_is_healthy():
    """A new strategy takes over at once, and what did not flow in meanwhile is no debt."""
    play = Rehearsal(50, FleetPacing(20, draining=4, healthy=0), window=100).run(until=START + 30)
    assert play.moments == []
    play.plan.repace(play.now, FleetPacing(20, draining=4, healthy=3))
    play.note()
    play.run()
    assert play.moments[0] >= 30
    assert play.moments[-1] == pytest.approx(40, abs=0.5)
    assert play.burst() <= 0


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    healthy=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_fleet_does_the_part_holds(counts, healthy, seed):
    """As the number that drain goes up and down no stretch is busier than announced, and the deadline holds."""
    play = Rehearsal(100, FleetPacing(30), window=60, seed=seed)
    for number, draining in enumerate(counts):
        play.plan.repace(play.now, FleetPacing(30, draining, healthy[number]))
        play.note()
        play.run(until=START + 5 * (number + 1))
    play.run()
    assert play.burst() <= 0
    assert len(play.sheds) == 100
    assert play.moments[-1] <= 60


# --- The start delay ---


@pytest.mark.parametrize(
    ("draining", "healthy", "waits"),
    [(0, 10, False), (1, 10, True), (5, 15, True), (10, 10, False), (9, 11, True), (10, 0, False), (1, 1, False)],
)
def test_who_may_be_next(draining, healthy, waits):
    """While more are healthy than drain, old ones may be among them; when nobody drains, nobody is to come."""
    assert may_be_next(draining, healthy) is waits


@pytest.mark.parametrize(
    ("wished", "time_left", "needed", "seconds"),
    [(10, 280, 0, 10), (10, 20, 0, 5), (10, 0, 0, 0), (10, 280, 275, 5), (10, 280, 400, 0), (0, 280, 0, 0)],
)
def test_how_long_to_wait(wished, time_left, needed, seconds):
    """No longer than wished, than a quarter of the time, or than a budget can spare."""
    assert time_to_wait(wished, time_left, needed) == seconds


def test_the_wait_is_spent_once_and_the_deadline_holds():
    """Nobody is asked while it waits, then all evenly; a deadline brought forward ends the wait."""
    play = Rehearsal(90, StartDelay(EvenPacing(), 90, others=5), window=100).run()
    assert 10 <= play.moments[0] <= 12.5
    assert play.moments[-1] <= 100
    assert "waiting, for at most 9 s: some of 5 healthy targets may drain next" in play.calls[0].words

    play = Rehearsal(90, StartDelay(EvenPacing(), 90, others=5), window=100).run(until=START + 5)
    play.shorten(20)
    play.run()
    assert 5 <= play.moments[0] < 6
    assert play.moments[-1] <= 25
