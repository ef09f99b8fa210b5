"""The plan of a drain, move by move; test_plan_properties.py holds it to its promises in general."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from rehearsal import EVEN, START, Rehearsal, crowd

from starlette_drain._core.pacing import BatchPacing, RateCapPacing
from starlette_drain._core.plan import CATCH_UP, TICK, ShedPlan

PAGE = Path(__file__).parents[3] / "docs" / "how-a-drain-works.md"


@dataclass(frozen=True)
class Custom:
    """A strategy of the application's own."""

    answer: object
    interval: float = 0.0

    def rate(self, remaining, time_left):
        """Return what the test wants."""
        return self.answer(remaining, time_left)

    def describe(self, remaining, time_left):
        """Say nothing much."""
        return f"{self.rate(remaining, time_left)} sessions/s, in its own way"


# Even


@pytest.mark.parametrize(("count", "window"), [(1, 10), (7, 3), (10, 10), (100, 285), (333, 7.77)])
def test_every_slot_sheds_exactly_one(count, window):
    """The window has as many slots as there are sessions, and each sheds one, whether they divide evenly or not."""
    play = Rehearsal(count, window=window).run()
    slot = window / count
    # The rate is so low that a tick is not seen: the moments are the plan's own.
    assert [int(moment / slot * (1 + 1e-9)) for moment in play.moments] == list(range(count))


def test_moments_within_the_slots_are_random():
    """Two tasks that drain at once do not beat in time, and no task sheds at the same place of every slot."""
    places = [moment % 1.0 for moment in Rehearsal(1000, window=1000).run().moments]
    others = [moment % 1.0 for moment in Rehearsal(1000, window=1000, seed=8).run().moments]
    assert sum(places) / 1000 == pytest.approx(0.5, abs=0.04)
    for quarter in range(4):
        assert sum(quarter <= 4 * place < quarter + 1 for place in places) == pytest.approx(250, abs=60)
    assert sum(abs(one - other) < 0.01 for one, other in zip(places, others, strict=True)) < 50


def test_same_luck_same_plan():
    """All luck is handed in: the same seed gives the same moments."""
    assert Rehearsal(50, window=60).run().moments == Rehearsal(50, window=60).run().moments


def test_rate_is_constant_while_nobody_comes_or_goes():
    """The closed loop does not wander: the rate announced at the start is the rate all along."""
    play = Rehearsal(1000, window=100).run(until=START + 99)
    assert {round(rate, 6) for _, rate in play.rates} == {10.0}


def test_sessions_that_leave_slow_it_down():
    """When half of those left go by themselves the pace halves, and the rest take the time that they have."""
    play = Rehearsal(1000, window=100).run(until=START + 50)
    play.leave(play.waiting[:250])
    assert play.plan.rate(play.now) == pytest.approx(5.0, abs=0.05)
    play.run()
    assert play.shed_within(50, 75) == pytest.approx(125, abs=2)
    assert play.shed_within(75, 100) == pytest.approx(125, abs=2)


def test_arrivals_speed_it_up():
    """Late arrivals get a place in what remains, among all the others."""
    play = Rehearsal(1000, window=100).run(until=START + 50)
    late = set(play.arrive(500))
    assert play.plan.rate(play.now) == pytest.approx(20.0, abs=0.05)
    play.run()
    assert play.shed_within(50, 75) == pytest.approx(500, abs=2)
    first_half = {shed.session for shed in play.sheds if 50 <= shed.at - START < 75}
    assert len(first_half & late) == pytest.approx(250, abs=60)


def test_arrival_after_all_have_gone_gets_a_place_in_what_remains():
    """An empty process that is still draining saves up no debt for the first who comes."""
    play = Rehearsal(10, window=100).run(until=START + 50)
    play.leave(play.waiting)
    assert play.plan.ask_at is None
    play.now += 40
    play.arrive(10)
    assert play.plan.rate(play.now) == pytest.approx(1.0, rel=0.2)
    play.run()
    assert [play.shed_within(begin, begin + 2) for begin in (90, 92, 94, 96, 98)] == pytest.approx([2] * 5, abs=2)
    assert play.moments[-1] <= 100


def test_arrival_does_not_take_the_place_of_one_who_left():
    """Somebody who was due and left by himself leaves nothing behind for the next who comes."""
    play = Rehearsal(100, window=100)
    play.now = play.plan.ask_at
    play.leave(play.waiting)
    play.now += 50
    play.arrive()
    assert play.plan.ask_at > play.now
    play.run(until=play.now + 1)
    assert play.sheds == []


def test_all_are_asked_before_the_deadline():
    """With a caller who is on time nobody is left for the deadline itself."""
    for seed in range(50):
        play = Rehearsal(20, window=10, seed=seed).run()
        assert play.moments[-1] < 10
        assert play.plan.ask_at is None


# Counts and windows at the edges


def test_nobody_there():
    """A drain of nobody asks for nothing and does nothing."""
    play = Rehearsal(0)
    assert (play.plan.ask_at, play.plan.rate(START), play.plan.eta(START + 5)) == (None, 0.0, START + 5)
    assert play.call() == []


@pytest.mark.slow
def test_one_session_is_shed_anywhere_in_the_window():
    """Of a hundred tasks with one session each, the windows fill evenly."""
    moments = [Rehearsal(1, window=100, seed=seed).run().moments[0] for seed in range(400)]
    for quarter in range(4):
        assert sum(25 * quarter <= moment < 25 * (quarter + 1) for moment in moments) == pytest.approx(100, abs=35)


@pytest.mark.parametrize("window", [0.0, -1.0, -1e9])
def test_deadline_in_the_past(window):
    """When there is no time everyone is due now, held or not, `limit` at a time."""
    play = Rehearsal(250, window=window)
    play.hold(play.waiting[:50])
    assert (play.plan.ask_at, play.plan.rate(START), play.plan.eta(START)) == (START, 0.0, START)
    assert play.plan.describe(START) == "all that are left at once: the deadline has passed"
    assert [len(play.call()) for _ in range(4)] == [100, 100, 50, 0]
    assert play.plan.ask_at is None


def test_three_thousand_in_four_seconds():
    """Envoy's case: 750 a second, several in each tick, every tenth of a second as busy as any other."""
    play = Rehearsal(3000, window=4).run()
    tenths = [play.shed_within(tenth / 10, (tenth + 1) / 10) for tenth in range(40)]
    assert tenths == pytest.approx([75] * 40, abs=6)
    assert len(play.calls) <= 4 / TICK + 1
    assert sum(play.shed_within(second, second + 1) for second in range(4)) == 3000


@pytest.mark.slow
def test_fast_drain_does_not_wake_up_for_each():
    """There are never more moments than ticks, and a tick never hands out more than it is worth."""
    play = Rehearsal(50_000, window=10, limit=1000).run()
    assert len(play.calls) <= 10 / TICK + 1
    assert max(call.count for call in play.calls) <= 5000 * TICK + 3


@pytest.mark.unmeasured
@pytest.mark.slow
def test_a_hundred_thousand_sessions():
    """100,000 sessions in a minute: every second is within 1 % of the mean, and no more than a tick's worth is last."""
    play = Rehearsal(100_000, window=60).run()
    seconds = [play.shed_within(second, second + 1) for second in (0, 1, 30, 58, 59)]
    assert seconds == pytest.approx([100_000 / 60] * 5, rel=0.01)
    assert len({shed.session for shed in play.sheds}) == 100_000
    assert play.shed_within(60, math.inf) <= 100_000 / 60 * TICK + 2


def test_clock_of_a_machine_that_is_up_for_years():
    """The moment asked for finds somebody due, even where the clock's last digit is coarse."""
    now = 3e7 + 1 / 3
    registry = crowd(1500)
    plan = ShedPlan(registry, EVEN, Random(7), now=now, deadline=now + 10)
    idle = 0
    while plan.ask_at is not None:
        now = plan.ask_at
        idle += not plan.due(now, 100)
    assert idle <= 15


# Shortening


def test_shorten_spreads_what_is_left_over_what_is_left():
    """SIGTERM half-way: the rest leaves in the SIGTERM window, evenly, not at once."""
    play = Rehearsal(1000, window=100).run(until=START + 50)
    play.shorten(20)
    assert play.plan.deadline == START + 70
    assert play.plan.rate(play.now) == pytest.approx(25.0, rel=0.01)
    play.run()
    assert [play.shed_within(begin, begin + 5) for begin in (50, 55, 60, 65)] == pytest.approx([125] * 4, abs=2)


def test_a_deadline_moved_to_where_it_is_changes_nothing():
    """Whoever is told the same twice does the same."""
    play = Rehearsal(10, window=100)
    before = play.plan.ask_at
    play.move(START + 100)
    assert (play.plan.deadline, play.plan.ask_at) == (START + 100, before)


@pytest.mark.parametrize("pacing", [EVEN, BatchPacing(2)], ids=repr)
def test_a_later_deadline_spreads_what_is_left_over_it(pacing):
    """The earliest claim was withdrawn: the rest leaves until the next one, evenly, without a pause or a burst."""
    play = Rehearsal(100, pacing, window=100).run(until=START + 50)
    play.move(START + 150)
    play.run()
    assert [play.shed_within(begin, begin + 10) for begin in range(0, 150, 10)] == pytest.approx(
        [10] * 5 + [5] * 10, abs=1
    )
    assert play.moments[-1] <= 150


def test_a_later_deadline_after_it_has_passed_spares_those_who_are_left():
    """Whoever has not been asked when the deadline moves has time again."""
    play = Rehearsal(300, window=10)
    play.now = START + 10
    assert len(play.call()) == 100
    play.move(START + 110)
    assert play.plan.rate(play.now) == pytest.approx(2, rel=0.01)
    assert play.run().shed_within(10.001, 60) == pytest.approx(100, abs=2)


def test_shorten_to_now_is_the_deadline():
    """A cause without any time left makes everyone due."""
    play = Rehearsal(150, window=100).run(until=START + 1)
    play.shorten(0)
    assert play.plan.ask_at == play.now
    assert len(play.call()) == 100


# Holds


def test_held_leave_at_the_deadline():
    """The application's "not now" is heeded until the deadline, and not longer."""
    play = Rehearsal(10, window=100)
    held = play.waiting[:3]
    play.hold(held)
    play.run()
    assert [shed.session for shed in play.sheds[:7]] != held
    assert {shed.session for shed in play.sheds if shed.at == START + 100} == set(held)
    assert [moment < 100 for moment in play.moments] == [True] * 7 + [False] * 3


@pytest.mark.parametrize("pacing", [EVEN, RateCapPacing(5), BatchPacing(2)], ids=repr)
def test_release_of_all_is_no_burst(pacing):
    """When all were held for a while, and others keep coming and going, a release finds no debt."""
    play = Rehearsal(100, pacing, window=100)
    everybody = play.waiting
    play.hold(everybody)
    assert (play.plan.rate(play.now), play.plan.eta(play.now)) == (0.0, START + 100)
    assert play.plan.describe(play.now) == "none for now: all that are left are held"
    for _ in range(50):
        play.leave(play.arrive())
        play.run(until=play.now + 1)
    assert play.sheds == []
    play.release(everybody)
    play.run()
    assert play.shed_within(50, 51.9) <= 5 * 1.9 + 2
    assert play.burst() <= 0 or pacing.interval
    assert play.moments[-1] < 100


@pytest.mark.parametrize("pacing", [EVEN, RateCapPacing(5), BatchPacing(2)], ids=repr)
def test_held_do_not_stand_in_for_others(pacing):
    """When more are due than may be picked, the held are not taken to make up the number."""
    play = Rehearsal(100, pacing, window=100)
    held = play.waiting[1:]
    play.hold(held)
    play.run(until=START + 99)
    assert len(play.sheds) == 1
    play.run()
    assert play.shed_within(100, 100.1) == 99


def test_hold_in_the_middle_of_a_batch_pours_the_rest_away():
    """What was due when everybody was held is not due at once when they are released."""
    play = Rehearsal(1000, BatchPacing(20), window=100, limit=30)
    play.call()
    held = play.waiting
    play.hold(held)
    play.now += 5
    play.release(held)
    play.run(until=play.now + 5)
    assert len(play.sheds) <= 30 + 1


def test_one_who_is_held_again_and_again_still_leaves_before_the_deadline():
    """Holding around each message puts a session off by the time it is held, not for ever."""
    play = Rehearsal(1, window=100)
    (session,) = play.waiting
    while not play.sheds and play.now < START + 100:
        play.hold([session])
        play.run(until=play.now + 0.5)
        play.release([session])
        play.run(until=play.now + 0.5)
    assert play.moments[0] < 100


# Callers who come late


@pytest.mark.parametrize("late", [1.0, 10.0, 60.0])
def test_stalled_caller_finds_no_burst(late):
    """After a stall at most what CATCH_UP is worth is due at once; the rest is spread over the time left."""
    play = Rehearsal(1000, window=100).run(until=START + 20)
    play.now += late
    handed_out = len(play.call())
    assert handed_out <= 10 * CATCH_UP + 2
    assert play.plan.rate(play.now) == pytest.approx((800 - handed_out) / (80 - late), rel=0.01)
    play.run()
    assert play.burst() <= 0
    assert play.moments[-1] < 100


def test_stall_during_which_others_keep_counting_finds_no_burst():
    """Sessions that come, go and hold during a stall do not make the plan forget that the caller is late."""
    play = Rehearsal(1000, window=100).run(until=START + 20)
    for _ in range(200):
        play.now += 0.05
        play.leave(play.arrive())
    assert len(play.call()) <= 12 * CATCH_UP + 2


def test_caller_who_is_always_a_little_late_loses_nothing():
    """Event loops are late by milliseconds all the time: that must not add up to a rush at the end."""
    play = Rehearsal(2000, window=100).run(late=0.03)
    assert {round(rate, 3) for _, rate in play.rates[:-100]} == {20.0}
    assert play.shed_within(99, 100.1) == pytest.approx(20, abs=3)


@pytest.mark.slow
def test_small_slices_do_not_slow_it_down():
    """A caller who takes ten at a time, a millisecond apart, keeps the pace, and no rush builds up for the end."""
    play = Rehearsal(20_000, window=20, limit=10)
    while play.plan.ask_at is not None:
        play.now = max(play.now + 0.001, play.plan.ask_at)
        play.call()
    assert [play.shed_within(second, second + 1) for second in range(20)] == pytest.approx([1000] * 20, abs=20)


def test_caller_who_cannot_keep_up_runs_up_no_debt():
    """When the caller takes fewer than are due for long, the backlog stays as small as CATCH_UP."""
    play = Rehearsal(1000, window=100, limit=1)
    while play.now < START + 50:
        play.now += 0.5
        play.call()
    play.limit = 1000
    assert len(play.call()) <= play.calls[-1].peak * CATCH_UP + 2


def test_early_call_does_no_harm():
    """Asked before the moment, the plan hands out nobody and keeps its moment."""
    play = Rehearsal(10, window=5)
    moment = play.plan.ask_at
    play.now = START + (moment - START) / 2
    assert play.call() == []
    assert play.plan.ask_at == pytest.approx(moment)


def test_clock_that_goes_back_does_no_harm():
    """A moment that is a little older than the last counts for nothing, and is not counted twice."""
    play = Rehearsal(1000, window=100).run(until=START + 10)
    shed = len(play.sheds)
    for _ in range(50):
        play.plan.recount(START + 9)
        play.plan.recount(START + 10)
    play.call()
    assert len(play.sheds) - shed <= 1


def test_limit_hands_out_the_rest_at_once():
    """A burst is handed out in slices, so that it does not hold up everybody else."""
    play = Rehearsal(250, window=10).run(until=START)
    play.now = START + 10
    assert len(play.call()) == 100
    assert play.plan.ask_at == play.now
    assert [len(play.call()) for _ in range(2)] == [100, 50]


# Batches


def test_batches_are_even():
    """100 sessions in 10 s, every 2 s: five batches of twenty, the first at once."""
    play = Rehearsal(100, BatchPacing(2), window=10)
    assert play.plan.describe(START) == "batches of 20 every 2 s"
    assert play.plan.rate(START) == pytest.approx(10)
    play.run()
    assert [(call.at - START, call.count) for call in play.calls] == [(0, 20), (2, 20), (4, 20), (6, 20), (8, 20)]


@pytest.mark.parametrize(("count", "window"), [(3, 300), (100, 300), (160, 300), (101, 9), (20, 11), (1, 60)])
def test_batches_that_do_not_divide_evenly(count, window):
    """A fraction is carried to the next batch: sizes differ by one, the whole window is used, nobody is left over."""
    play = Rehearsal(count, BatchPacing(2), window=window).run()
    sizes = [play.shed_within(begin - 1e-6, begin + 2 - 1e-6) for begin in range(0, window, 2)]
    full = sizes if window % 2 == 0 else sizes[:-1]  # the last interval may be cut short by the deadline
    assert max(full) - min(full) <= 1
    assert sum(sizes) == count
    assert all(moment % 2 == pytest.approx(0, abs=1e-9) or moment % 2 > 2 - 1e-9 for moment in play.moments)
    halves = play.shed_within(0, window / 2), play.shed_within(window / 2, window)
    assert halves[0] == pytest.approx(halves[1], abs=max(2, count / window * 4))


def test_announced_batch_is_the_next():
    """Between two batches the announced size and rate are those of the next, not of the fewer sessions just now."""
    play = Rehearsal(100, BatchPacing(2), window=10).run(until=START + 0.1)
    assert play.plan.describe(play.now) == "batches of 20 every 2 s"
    assert play.plan.rate(play.now) == pytest.approx(10)


def test_batch_in_slices_is_one_batch():
    """A batch greater than the limit is handed out at once, in slices, and the next waits for its interval."""
    play = Rehearsal(1000, BatchPacing(2), window=10, limit=30).run(until=START + 1.9)
    assert len(play.sheds) == 200
    assert set(play.moments) == {0.0}
    assert play.plan.ask_at == START + 2


def test_batch_that_is_not_finished_in_time_is_spread_anew():
    """A caller who needs longer than an interval for a batch does not get two at once."""
    play = Rehearsal(1000, BatchPacing(2), window=10, limit=1)
    play.call()
    play.limit, play.now = 1000, START + 2
    assert len(play.call()) == pytest.approx(999 / 4, abs=1)


def test_late_batches_make_the_next_greater_and_meet_the_deadline():
    """A caller who is always late by half an interval gets fewer, greater batches."""
    play = Rehearsal(100, BatchPacing(2), window=10).run(late=1)
    assert [call.at - START for call in play.calls] == [1, 4, 7, 10] or play.moments[-1] < 10
    assert len(play.sheds) == 100
    assert play.moments[-1] <= 10 + 1


def test_shortened_batches():
    """A nearer deadline re-plans the sizes; one that is nearer than the next batch brings that forward."""
    play = Rehearsal(100, BatchPacing(2), window=10).run(until=START + 1)
    play.shorten(7)
    play.run()
    assert [play.shed_within(begin, begin + 2) for begin in (0, 2, 4, 6)] == pytest.approx([20, 27, 27, 27], abs=1)
    play = Rehearsal(100, BatchPacing(20), window=100).run(until=START + 1)
    play.shorten(6)
    play.run()
    assert [play.shed_within(begin, begin + 2) for begin in (0, 2, 4, 6)] == pytest.approx([20, 40, 40, 0], abs=1)


@pytest.mark.parametrize("interval", [4.0, 10.0, 1e9])
def test_batches_further_apart_than_the_time_left_are_no_burst(interval):
    """One batch of everybody is what the drain is there to prevent: there are three at least, and it says so."""
    for pacing in (BatchPacing(interval), Custom(lambda remaining, time_left: remaining / time_left, interval)):
        play = Rehearsal(120, pacing, window=6, limit=1000)
        words = play.plan.describe(START)
        play.run()
        assert [play.shed_within(begin, begin + 2) for begin in (0, 2, 4)] == [40, 40, 40]
    assert words == "20.0 sessions/s, in its own way"
    assert Rehearsal(120, BatchPacing(interval), window=6).plan.describe(START) == "batches of 40 every 2 s"


def test_batches_whose_deadline_moves_later_keep_their_interval_again():
    """The interval that was cut short for a near deadline is the strategy's own when there is time."""
    play = Rehearsal(120, BatchPacing(10), window=6, limit=1000).run(until=START + 1)
    assert play.registry.remaining == 80
    play.move(START + 82)
    play.run()
    assert [play.shed_within(begin, begin + 10) for begin in range(2, 82, 10)] == pytest.approx([10] * 8, abs=1)


def test_interval_too_short_to_be_true():
    """Batches every microsecond wake up no more often than an even pace."""
    play = Rehearsal(10, BatchPacing(1e-6), window=1).run()
    assert len(play.calls) <= 1 / TICK + 2


# Strategies of the application's own


def test_strategy_that_sheds_nobody_leaves_all_to_the_deadline():
    """Rate 0 is asked again once a second, and the deadline holds."""
    play = Rehearsal(10, Custom(lambda *_: 0.0), window=5).run()
    assert play.moments == [5.0] * 10
    assert [call.at - START for call in play.calls] == [1, 2, 3, 4, 5]


def test_strategy_that_waits_and_begins_is_noticed():
    """A rate may change with the time left: it is asked for again although nobody comes or goes."""
    patient = Custom(lambda remaining, time_left: remaining / time_left if time_left < 50 else 1e-9)
    play = Rehearsal(100, patient, window=100).run()
    assert play.shed_within(0, 50) <= 1
    assert play.shed_within(51, 75) == pytest.approx(49, abs=3)
    assert play.burst() <= 0


def test_strategy_with_a_negative_rate_sheds_nobody_for_now():
    """A negative rate is 0: the deadline holds all the same."""
    play = Rehearsal(5, Custom(lambda *_: -5.0), window=3).run()
    assert play.moments == [3.0] * 5


@pytest.mark.parametrize("answer", [math.nan, "fast", None, 10**400])
def test_strategy_that_answers_nonsense_is_replaced_by_an_even_pace(answer):
    """No number, or one that no float can be: the plan says what was wrong, and goes on evenly."""
    play = Rehearsal(10, Custom(lambda *_: answer), window=10)
    assert isinstance(play.plan.failure, (ValueError, TypeError, OverflowError))
    play.run()
    assert [int(moment) for moment in play.moments] == list(range(10))


@pytest.mark.parametrize("interval", [math.nan, math.inf, -1.0, "often", None])
def test_interval_that_is_none_is_replaced_by_an_even_pace(interval):
    """Batches without a length of time between them would spin, or never come."""
    play = Rehearsal(10, Custom(lambda remaining, time_left: remaining / time_left, interval), window=10)
    assert isinstance(play.plan.failure, (ValueError, TypeError))
    play.run()
    assert [int(moment) for moment in play.moments] == list(range(10))
    assert len(play.calls) <= 25


def test_strategy_that_says_at_once():
    """An infinite rate is a tick: everyone leaves at once, in slices, and no figure is infinite."""
    play = Rehearsal(1000, Custom(lambda *_: math.inf), window=60)
    assert math.isfinite(play.plan.rate(START))
    play.run()
    assert play.moments[-1] <= 20 * TICK


# What it says of itself


def test_eta_is_the_end_of_an_early_finish():
    """A rate cap that has time to spare says when it will be done, and says the same a moment later."""
    play = Rehearsal(1000, RateCapPacing(50), window=100)
    for second in range(0, 19, 3):
        play.run(until=START + second + 0.005)
        assert play.plan.eta(play.now) == pytest.approx(START + 20, abs=0.1)
        assert play.plan.eta(play.now + CATCH_UP / 2) == pytest.approx(START + 20, abs=0.1)
    play.run()
    assert play.moments[-1] == pytest.approx(20, abs=0.1)


def test_eta_of_an_even_pace_is_the_deadline():
    """An even pace takes all the time there is; nobody left, no time."""
    play = Rehearsal(100, window=100).run(until=START + 30)
    assert play.plan.eta(play.now) == pytest.approx(START + 100)
    play.run()
    assert play.plan.eta(play.now) == play.now


def test_rate_cap_gives_way_and_says_so():
    """With too many for the limit the plan says that it gives way, and stops saying so when enough have left."""
    play = Rehearsal(1000, RateCapPacing(5), window=100)
    assert play.plan.describe(START) == "10 sessions/s: the limit of 5/s gives way to the deadline"
    play.leave(play.waiting[:700])
    assert play.plan.describe(START) == "at most 5 sessions/s"
    assert play.plan.rate(START) == 5


# Several processes, and a precedence that fails


@pytest.mark.parametrize("share", [2, 3, 8])
def test_share_keeps_the_promise_for_the_sum(share):
    """Of so many processes with as many sessions each, every one sheds its part of the rate."""
    play = Rehearsal(100, RateCapPacing(24), window=300)
    play.plan.divide(START, share)
    assert play.plan.rate(START) == pytest.approx(24 / share)
    play.run()
    assert play.moments[-1] == pytest.approx(100 * share / 24, abs=share / 24 + TICK)
    play = Rehearsal(100, RateCapPacing(24), window=10)
    play.plan.divide(START, share)
    assert play.plan.describe(START) == RateCapPacing(24).describe(100 * share, 10)


# What the documentation says


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.parent.is_dir(), reason="the documentation is not here: these are the tests of a wheel")
def test_the_sum_in_the_documentation_adds_up():
    """The drain that docs/how-a-drain-works.md tells of goes as told, line by line."""
    pattern = r"\|\s*(\d+) \| (.+) \| (\d+) \| (\d+) \| ([\d.]+) \|"
    told = [match.groups() for match in re.finditer(pattern, PAGE.read_text(encoding="utf-8"))]
    play, happenings = Rehearsal(20_000, window=280), []
    for moment, what, remaining, time_left, rate in told:
        play.run(until=START + int(moment))
        happenings += (verbs := re.findall("leave|arrive|SIGTERM", what))
        match verbs:
            case ["leave"]:
                play.leave(play.waiting[:2400])
            case ["arrive"]:
                play.arrive(1400)
            case ["SIGTERM"]:
                play.shorten(20)
        assert play.registry.remaining == pytest.approx(int(remaining), abs=2)
        assert play.plan.deadline - play.now == int(time_left)
        assert play.plan.rate(play.now) == pytest.approx(float(rate), abs=0.06)
    assert happenings == ["leave", "arrive", "SIGTERM"]
