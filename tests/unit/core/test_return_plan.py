"""The plan of arrivals: spread, not drawn."""

from collections import Counter
from random import Random

import pytest

from starlette_drain._core.return_plan import ReturnPlan


def test_those_refused_in_one_moment_come_back_evenly():
    """A thousand refused at once are spread over the whole interval, as evenly as whole clients can be."""
    plan = ReturnPlan(Random(7))
    delays = [plan.place(100.0, 5.0) for _ in range(1000)]
    assert 5.0 <= min(delays) < 5.05
    assert 9.95 < max(delays) <= 10.0
    per_second = Counter(int(delay) for delay in delays)
    assert set(per_second.values()) == {200}
    assert plan.busiest == 200


def test_those_refused_fill_the_gaps_that_a_drain_leaves():
    """What is planned already counts: the emptiest seconds are taken first."""
    plan = ReturnPlan(Random(7))
    for _ in range(10):
        plan.note(100.0, 6.5)
    delays = [plan.place(100.0, 5.0) for _ in range(40)]
    assert Counter(int(delay) for delay in delays)[6] == 0


def test_no_second_gets_more_than_can_be_served():
    """With a known rate the seconds are filled one after the other, up to it."""
    plan = ReturnPlan(Random(7))
    delays = [plan.place(100.0, 5.0, 50.0) for _ in range(500)]
    assert set(Counter(int(delay) for delay in delays).values()) == {50}
    assert (int(min(delays)), int(max(delays))) == (5, 14)


def test_more_than_two_minutes_ahead_nobody_is_asked_back():
    """Where even that has no room, the emptiest second has to do."""
    plan = ReturnPlan(Random(7))
    delays = [plan.place(0.0, 5.0, 1.0) for _ in range(500)]
    assert max(delays) <= 120.0
    assert plan.busiest <= 6


@pytest.mark.parametrize("least", [0.0, 0.2, 0.5, 1.0, 3.7])
@pytest.mark.parametrize("now", [0.0, 0.3, 12345.9])
def test_short_intervals_are_kept(least, now):
    """Where the interval is less than a second, too."""
    plan = ReturnPlan(Random(7))
    for _ in range(20):
        assert least - 1e-9 <= plan.place(now, least) <= 2 * least + 1e-9


def test_it_forgets_what_has_passed():
    """Memory does not grow."""
    plan = ReturnPlan(Random(7))
    for second in range(10_000):
        plan.note(float(second), 5.0)
    assert len(plan._counts) <= 7
