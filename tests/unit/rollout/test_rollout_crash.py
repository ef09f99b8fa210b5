"""What a crash does to the tasks that are left, in figures."""

import math

import pytest

crash = pytest.importorskip("example_app.rollout.crash", reason="the example is no part of the wheel")
records = pytest.importorskip("example_app.rollout.clients.records")


def test_the_time_until_all_are_back_stands_beside_that_of_an_even_rate():
    """The first is back after 1 s; then ten a second come, and the last one late."""
    found = crash.Survivors()
    backs = [101.0 + place / 10 for place in range(100)] + [115.0]
    found.count_returns([records.Loss(place, 100.0, 1006, back) for place, back in enumerate(backs)], 99.0)
    assert found.seconds == 15.0
    assert found.ideal == pytest.approx(11.0, abs=0.2)


def test_a_client_that_is_never_back_is_no_figure():
    """Nor is what was lost before."""
    found = crash.Survivors()
    found.count_returns([records.Loss(1, 90.0, 1012, 91.0), records.Loss(2, 100.0, 1006, None)], 99.0)
    assert found.seconds == math.inf
    crash.Survivors().count_returns([], 99.0)
