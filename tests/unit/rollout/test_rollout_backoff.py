"""How clients come back."""

from random import Random

import pytest

backoff = pytest.importorskip("example_app.rollout.clients.backoff", reason="the example is no part of the wheel")


@pytest.fixture
def traits():
    """One client's luck."""
    return backoff.Traits(Random(7))


def test_phoenix_follows_its_table(traits):
    """10 ms at first, without jitter, and 5 s for ever in the end."""
    waits = [backoff.BEHAVIOURS["phoenix"].wait(attempt, traits) for attempt in range(11)]
    assert waits == [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 5.0]


def test_immediate_waits_only_after_a_failure(traits):
    """A connection that was established is replaced at once; failed attempts are spaced out."""
    waits = [backoff.BEHAVIOURS["immediate"].wait(attempt, traits) for attempt in range(50)]
    assert waits[0] == 0.0
    assert 0.0 < waits[1] <= 5.0
    assert waits[2:] == sorted(waits[2:])
    assert waits[-1] == 90.0


def test_full_jitter_stays_under_a_growing_cap(traits):
    """Each wait is drawn between nothing and base times 2 to the attempt."""
    for attempt in range(40):
        wait = backoff.BEHAVIOURS["full-jitter"].wait(attempt, traits)
        assert 0.0 <= wait <= min(30.0, 2.0**attempt)


def test_reconnecting_websocket_draws_once():
    """1 to 5 s, the same for each loss, and growing by 1.3 up to 10 s."""
    for seed in range(100):
        traits = backoff.Traits(Random(seed))
        waits = [backoff.BEHAVIOURS["reconnecting-websocket"].wait(attempt, traits) for attempt in range(20)]
        assert 1.0 <= waits[0] <= 5.0
        assert waits[0] == backoff.BEHAVIOURS["reconnecting-websocket"].wait(0, traits)
        assert waits[1] == pytest.approx(waits[0] * 1.3)
        assert waits[-1] == 10.0
