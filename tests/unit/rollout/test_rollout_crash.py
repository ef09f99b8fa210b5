"""What a crash does to the tasks that are left, in figures."""

import math

import pytest

crash = pytest.importorskip("example_app.rollout.crash", reason="the example is no part of the wheel")
remembered = pytest.importorskip("example_app.rollout.clients.records")


def records(*backs, connected=(), lost=100.0):
    """Make what clients remember that have lost their connection in one moment."""
    losses = [remembered.Loss(number, lost, 1006, back) for number, back in enumerate(backs)]
    return remembered.Records(connected=[99.5, *connected], losses=[remembered.Loss(0, 90.0, 1012, 91.0), *losses])


def test_the_time_until_all_are_back_stands_beside_an_ideal_schedule():
    """Ten a second are set up from the first second on, and the last one late; what was lost before does not count."""
    found = crash.Survivors()
    backs = [101.0 + place / 10 for place in range(100)]
    found.count_returns(records(*backs, 115.0, connected=[101.0] * 101), 99.0)
    assert found.seconds == 15.0
    assert found.ideal == pytest.approx(11.1, abs=0.2)


def test_no_schedule_serves_clients_before_they_connect():
    """Half of them connect after 10 s, so it takes at least 10 s and their time."""
    found = crash.Survivors()
    backs = [101.0 + place / 10 for place in range(50)] + [110.0 + place / 10 for place in range(50)]
    found.count_returns(records(*backs, connected=[100.0] * 50 + [110.0] * 50), 99.0)
    assert found.ideal >= 10 + 50 * 0.1


def test_a_client_that_is_never_back_is_no_figure():
    """Where none was lost there is nothing to count."""
    found = crash.Survivors()
    found.count_returns(records(None, 101.0, connected=[100.0]), 99.0)
    assert found.seconds == math.inf
    none = crash.Survivors()
    none.count_returns(remembered.Records(), 99.0)
    assert none.seconds == 0.0
