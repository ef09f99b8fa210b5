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
    assert waits[-1] == pytest.approx(90.0, abs=0.1)


def test_stubborn_never_waits(traits):
    """Whatever it was answered."""
    assert {backoff.BEHAVIOURS["stubborn"].wait(attempt, traits) for attempt in range(50)} == {0.0}


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
        assert waits[1] == pytest.approx(waits[0] * 1.3, abs=0.01)
        assert waits[-1] == 10.0


def test_patience_is_the_clients_own_or_that_of_chromium():
    """Python's websockets and reconnecting-websocket set limits to a handshake; phoenix.js leaves it to the browser."""
    patience = {name: backoff.BEHAVIOURS[name].patience for name in ("websockets", "reconnecting-websocket", "phoenix")}
    assert patience == {"websockets": 10.0, "reconnecting-websocket": 4.0, "phoenix": 240.0}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("websockets", "at once, the way websockets does"),
        ("partysocket", "after 3 s, the way partysocket does"),
        ("reconnecting-websocket", "after 1 to 5 s at random, drawn once, the way reconnecting-websocket does"),
    ],
)
def test_the_words_say_the_first_wait(name, words):
    """For the picture: what begins with "Clients reconnect"."""
    assert backoff.BEHAVIOURS[name].words == words
