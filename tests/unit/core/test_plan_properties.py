"""
What every strategy promises, held against any course of events.

A further strategy joins by one line in STRATEGIES; where it promises more than to meet the deadline, by a function that
says from outside, from nothing but the sessions and the seconds left, how fast it may be.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rehearsal import START, Rehearsal

from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain._core.pacing import BatchPacing, EvenPacing, Pacing, RateCapPacing
from starlette_drain._core.plan import CATCH_UP, TICK


@dataclass(frozen=True)
class FallingPacing:
    """A strategy of an application, as the documentation shows one: fast first."""

    interval = 0.0

    def rate(self, remaining, time_left):
        """Return twice the even rate."""
        return 2 * remaining / time_left

    def describe(self, remaining, time_left):
        """Name the rate."""
        return f"falling, now {self.rate(remaining, time_left):.3g} sessions/s"


STRATEGIES = [EvenPacing(), RateCapPacing(8), RateCapPacing(0.5), BatchPacing(2), BatchPacing(7.3), FallingPacing()]
STRATEGIES += [FleetPacing(8), FleetPacing(20, draining=8, healthy=5)]

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

every_strategy = pytest.mark.parametrize("pacing", STRATEGIES, ids=repr)
one_by_one = pytest.mark.parametrize("pacing", [each for each in STRATEGIES if not each.interval], ids=repr)
in_batches = pytest.mark.parametrize("pacing", [each for each in STRATEGIES if each.interval], ids=repr)


def greatest_rate(pacing: Pacing, remaining: int, time_left: float) -> float:
    """Return the rate that *pacing* may announce; one session more, for a slot may just have begun."""
    needed = (remaining + 1) / time_left
    match pacing:
        case EvenPacing():
            return needed
        case RateCapPacing(limit=limit):
            return max(limit, needed)
        case FleetPacing(limit=limit, draining=draining):
            return max(limit / draining, needed)
        case FallingPacing():
            return 2 * needed
    return math.inf


class Step(NamedTuple):
    """One thing that happens, and how long after the one before."""

    after: float
    what: str
    amount: float


gaps = st.one_of(st.just(0.0), st.floats(0.0, 0.2), st.floats(0.0, 15.0))
amounts = st.floats(0.0, 1.0, exclude_max=True)
kinds = st.sampled_from(["arrive", "leave", "hold", "release", "shorten", "stall", "poke"])
steps = st.lists(st.builds(Step, gaps, kinds, amounts), max_size=25)


class Course:
    """Lets steps happen to a drain, and keeps the books on its own."""

    def __init__(self, pacing, *, late, **start):
        self.play = Rehearsal(pacing=pacing, **start)
        self.pacing = pacing
        self.late = late
        self.arrived_at = dict.fromkeys(self.play.waiting, START)
        self.left = set()
        self.held = []
        self.deadlines = [self.play.plan.deadline]
        self.check_rate()

    def take(self, step):
        """Let time pass, and *step* happen."""
        play = self.play
        if step.what == "stall":
            play.now += step.after
            return
        play.run(until=play.now + step.after, late=self.late)
        some = int(step.amount * 20)
        match step.what:
            case "arrive":
                self.arrived_at |= dict.fromkeys(play.arrive(some), play.now)
            case "leave":
                gone = (play.waiting + self.held)[:: some + 1]
                self.held = [session for session in self.held if session not in gone]
                self.left |= set(gone) - {each.session for each in play.sheds}
                play.leave(gone)
            case "hold":
                chosen = play.waiting[: int(step.amount * 1.3 * len(play.waiting)) + 1]
                play.hold(chosen)
                self.held += chosen
            case "release":
                chosen, self.held = self.held[:some], self.held[some:]
                play.release(chosen)
            case "shorten":
                window = max(0.0, min(self.deadlines) - play.now) * (0.5 + step.amount)
                play.shorten(window)
                self.deadlines.append(play.now + window)
            case "poke":
                play.recount()
        self.check_rate()

    def check_rate(self):
        """The announced rate is one that the strategy may have, and a limit that gives way says so."""
        play, plan = self.play, self.play.plan
        assert plan.deadline == min(self.deadlines)
        if (time_left := plan.deadline - play.now) <= 0:
            return
        rate = plan.rate(play.now)
        assert 0 <= rate <= greatest_rate(self.pacing, play.registry.remaining, time_left) * (1 + 1e-9)
        if isinstance(self.pacing, RateCapPacing) and rate > self.pacing.limit * (1 + 1e-6):
            assert "gives way" in plan.describe(play.now)
        if isinstance(self.pacing, FleetPacing) and rate > self.pacing.part * (1 + 2e-6):
            assert "gives way" in plan.describe(play.now)

    def end(self):
        """Let the rest of the drain happen."""
        self.play.run(late=self.late)
        return self


BEGIN = {
    "count": st.integers(0, 150),
    "window": st.floats(0.5, 60.0),
    "seed": st.integers(0, 2**32),
    "late": st.sampled_from([0.0, 0.001, 0.05, 0.3]),
    "limit": st.sampled_from([1, 7, 100]),
}
"""What makes a Course, but for the strategy."""

anyhow = st.fixed_dictionaries(BEGIN)
on_time = st.fixed_dictionaries(BEGIN | {"late": st.just(0.0)})
at_leisure = st.fixed_dictionaries(BEGIN | {"window": st.just(400.0)})
uncut = st.fixed_dictionaries(BEGIN | {"limit": st.just(1000)})


def crowd_of(count, limit=1000):
    """Return one certain start."""
    return {"count": count, "window": 30.0, "seed": 7, "late": 0.0, "limit": limit}


def live(pacing, start, happenings):
    """Return the whole course of a drain."""
    course = Course(pacing, **start)
    for step in happenings:
        course.take(step)
    return course.end()


@every_strategy
@given(start=anyhow, happenings=steps)
@example(start=crowd_of(0), happenings=[Step(29, "arrive", 0.9), Step(2, "arrive", 0.9)])
@example(start=crowd_of(50, limit=7), happenings=[Step(1, "hold", 0.9), Step(100, "stall", 0.0)])
@settings(max_examples=40, deadline=None)
def test_everyone_is_shed_once_or_leaves_by_itself(pacing, start, happenings):
    """Nobody is asked twice, nobody is forgotten, nobody is asked who has gone or is yet to come."""
    course = live(pacing, start, happenings)
    shed = [each.session for each in course.play.sheds]
    assert len(set(shed)) == len(shed)
    assert set(shed) | course.left == set(course.arrived_at)
    assert not set(shed) & course.left
    assert all(each.at >= course.arrived_at[each.session] for each in course.play.sheds)
    assert course.play.plan.ask_at is None
    assert course.play.registry.remaining == 0


@every_strategy
@given(start=anyhow, happenings=steps)
@example(start=crowd_of(100), happenings=[Step(10, "hold", 0.99), Step(5, "shorten", 0.2)])
@example(start=crowd_of(100), happenings=[Step(29.9, "arrive", 0.99)])
@settings(max_examples=40, deadline=None)
def test_nobody_is_shed_after_the_deadline(pacing, start, happenings):
    """The first call at the deadline or later takes all who are left; later ones only those who came after it."""
    course = live(pacing, start, happenings)
    deadline = course.play.plan.deadline
    assert deadline == min(course.deadlines)
    first = next((call.at for call in course.play.calls if call.at >= deadline), math.inf)
    assert all(each.at <= first or course.arrived_at[each.session] >= deadline for each in course.play.sheds)
    stalled = start["late"] or any(step.what == "stall" for step in happenings)
    if not stalled and all(at < deadline for at in course.arrived_at.values()):
        assert all(each.at <= deadline for each in course.play.sheds)


@one_by_one
@given(start=anyhow, happenings=steps)
@example(start=crowd_of(150), happenings=[Step(10, "stall", 0.0)])
@example(start=crowd_of(150), happenings=[Step(1, "hold", 0.99), Step(9, "release", 0.99), Step(0, "release", 0.99)])
@example(start=crowd_of(150), happenings=[Step(0.04, "poke", 0.0) for _ in range(25)])
@settings(max_examples=60, deadline=None)
def test_no_stretch_is_busier_than_announced(pacing, start, happenings):
    """In any stretch before the deadline there are no more sheds than the announced rate makes in it, and two."""
    assert live(pacing, start, happenings).play.burst() <= 0


@pytest.mark.parametrize("limit", [8, 0.5])
@given(start=at_leisure, happenings=steps)
@settings(max_examples=40, deadline=None)
def test_rate_cap_holds_where_there_is_time(limit, start, happenings):
    """Where the limit meets the deadline no stretch has more than limit x seconds and two, and it finishes early."""
    start["count"] = min(start["count"], int(limit * 20))
    happenings = [step for step in happenings if step.what in {"leave", "poke", "stall"}]
    play = live(RateCapPacing(limit), start, happenings).play
    moments = play.moments
    for first, begin in enumerate(moments):
        for last in range(first, len(moments), 7):
            assert last - first + 1 < limit * (moments[last] - begin + CATCH_UP) + 2 + 1e-3
    assert all("gives way" not in call.words for call in play.calls)
    stalled = sum(step.after for step in happenings) + start["late"] * (len(moments) + 1)
    assert not moments or moments[-1] <= (start["count"] + 1) / limit + stalled + 1


@in_batches
@given(start=uncut, happenings=steps)
@example(
    start=crowd_of(100), happenings=[Step(2.5, "hold", 0.99), *[Step(2, "poke", 0.0)] * 5, Step(0, "release", 0.99)]
)
@example(start=crowd_of(100), happenings=[Step(9, "stall", 0.0)])
@settings(max_examples=60, deadline=None)
def test_one_batch_an_interval_of_the_announced_size(pacing, start, happenings):
    """
    In any stretch shorter than the interval there is one batch, no greater than announced, before the deadline.

    The interval is the one that the plan announces, which is shorter where three of them would not fit.
    """
    play = live(pacing, start, happenings).play
    calls = [call for call in play.calls if call.count and call.at < play.plan.deadline]
    for index, first in enumerate(calls):
        # One session may follow its batch: it was due, and somebody held it at that moment.
        interval = min(float(call.words.split()[4]) for call in calls[index : index + 2])
        within = [call for call in calls[index:] if call.at < first.at + interval * 0.99]
        sizes = [int(call.words.split()[2]) for call in within]
        assert sum(call.count for call in within) <= max(sizes) + 1


@every_strategy
@given(start=on_time, happenings=steps)
@settings(max_examples=40, deadline=None)
def test_undisturbed_drain_ends_without_a_burst(pacing, start, happenings):
    """With departures only, and a caller on time, the pace never rises, and nobody is left for the deadline."""
    course = live(pacing, start, [step for step in happenings if step.what in {"leave", "poke"}])
    play = course.play
    rates = [rate for at, rate in play.rates if at < play.plan.deadline - 2 * TICK]
    if not pacing.interval:
        assert all(after <= before * (1 + 1e-6) + 1e-9 for before, after in pairwise(rates))
    at_the_end = sum(each.at >= play.plan.deadline for each in play.sheds)
    assert at_the_end <= 1 + max((rate for _, rate in play.rates), default=0) * TICK


@one_by_one
@given(start=on_time)
@settings(max_examples=40, deadline=None)
def test_left_alone_no_second_is_busier_than_the_first_rate(pacing, start):
    """Nobody comes, goes or is late: any second has at most the rate of the start, two sessions and a tick's worth."""
    play = Course(pacing, **start).end().play
    moments, highest = play.moments, max((rate for _, rate in play.rates[:1]), default=0.0)
    for moment in moments:
        assert play.shed_within(moment, moment + 1) < highest * (1 + TICK) + 2 + 1e-3
