"""What the application plugs in may fail, at any moment: a drain goes on, and everybody leaves in time."""

import asyncio
import logging
import math
from random import Random

import pytest
from guests import Guest

from starlette_drain import Drain, DrainState
from starlette_drain._core.events import SessionShed
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio


class Failing:
    """A pace that is even until its method *what* has been called *after* times, and then answers *wrong*."""

    def __init__(self, what, after, wrong):
        self._what, self._left, self._wrong = what, after, wrong

    def _answer(self, what, right):
        if what == self._what:
            self._left -= 1
            if self._left < 0:
                return self._wrong()
        return right

    @property
    def interval(self):
        """Return 0."""
        return self._answer("interval", 0.0)

    def rate(self, remaining, time_left):
        """Return the even rate."""
        return self._answer("rate", remaining / time_left)

    def describe(self, *_):
        """Say nothing."""
        return self._answer("describe", "evenly")


def raises():
    """Fail."""
    return 1 / 0


def house(**options):
    """Return a drain with fifty guests, and what is told of it."""
    recording = RecordingObserver()
    drain = Drain(triggers=[], observers=[recording], rng=Random(7), **options)
    drain.host.begin()
    for _ in range(50):
        drain.host.engine.track(Guest(drain))
    return drain, recording


@pytest.mark.parametrize("after", [0, 1, 2, 30])
@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("rate", raises),
        ("rate", lambda: "fast"),
        ("rate", lambda: None),
        ("describe", raises),
        ("interval", raises),
        ("interval", lambda: "often"),
        ("rate", lambda: math.nan),
        ("rate", lambda: 10**400),
        ("interval", lambda: math.nan),
        ("interval", lambda: math.inf),
        ("interval", lambda: -1.0),
    ],
)
async def test_pace_that_fails_is_replaced_by_an_even_one(what, wrong, after, caplog):
    """It is logged once, at the start as well as in the middle, and everybody is asked before the deadline."""
    pacing = Failing(what, after + (what == "interval"), wrong)  # the first is looked at when the options are checked
    drain, recording = house(pacing=pacing)
    await drain.start(window=100)
    assert drain.state is DrainState.DRAINING
    for _ in range(50):
        assert drain.progress() is not None
        await asyncio.sleep(1)
    assert await drain.wait_drained()
    assert len(recording.of(SessionShed)) == 50
    assert (drain.report.shed, drain.report.still_open) == (50, 0)
    assert drain.report.slack >= 0
    assert drain.report.peak_rate <= 3
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "at an even pace" in caplog.text
    await drain.host.end()


@pytest.mark.parametrize("answer", [math.inf, -math.inf, -1.0])
async def test_pace_with_a_strange_answer_meets_the_deadline(answer):
    """What is a number is taken as one: at once, none, none."""
    drain, _ = house(pacing=Failing("rate", 0, lambda: answer))
    await drain.start(window=100)
    assert await drain.wait_drained()
    assert (drain.report.shed, drain.report.still_open) == (50, 0)
    assert drain.report.duration <= 100
    await drain.host.end()


async def test_precedence_that_fails_is_logged_for_what_it_is(caplog):
    """The order is lost, and nothing else: everybody leaves evenly, at random."""
    drain, _ = house(shed_first=lambda _: raises())
    await drain.start(window=100)
    assert await drain.wait_drained()
    assert (drain.report.shed, drain.report.still_open) == (50, 0)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["shed_first failed"]
    await drain.host.end()


async def test_pace_that_fails_is_not_blamed_on_the_precedence(caplog):
    """Each is logged under its own name, and the order stays."""
    drain, recording = house(shed_first="newest", pacing=Failing("rate", 5, raises))
    newest = Guest(drain)
    newest.opened_at += 1
    drain.host.engine.track(newest)
    await drain.start(window=100)
    assert await drain.wait_drained()
    assert recording.of(SessionShed)[0].session is newest
    assert "shed_first" not in caplog.text
    await drain.host.end()


class Moody(Failing):
    """A pace with a stance that it cannot tell."""

    @property
    def stance(self):
        """Fail, though not as an attribute that is missing does."""
        raise ZeroDivisionError


async def test_pace_that_cannot_tell_its_stance_is_replaced_too(caplog):
    """What is asked for only to be told of is as good a reason to fail."""
    drain, _ = house(pacing=Moody("nothing", 0, raises))
    await drain.start(window=100)
    assert await drain.wait_drained()
    assert (drain.report.shed, drain.report.outcome) == (50, "drained")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    await drain.host.end()


@pytest.mark.parametrize("words", [None, 7, b"slow", ["fast"]])
async def test_words_that_are_none_are_made_some(words):
    """``GET /drain`` and the log show text, whatever a strategy answers."""
    drain, _ = house(pacing=Failing("describe", 0, lambda: words))
    await drain.start(window=100)
    assert drain.progress().pacing == str(words)
    await drain.host.end()
