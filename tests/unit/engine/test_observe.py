"""``mode="observe"``: the drain is decided, paced and reported, and takes no session from anyone."""

import asyncio
from random import Random

import pytest
from guests import Stubborn, open_guests

from starlette_drain import Drain, DrainCause, DrainState
from starlette_drain._core.events import DrainFinished, DrainProgressed, DrainStarted, SessionShed
from starlette_drain._core.observed import ObservedSessions
from starlette_drain._core.session import SessionRegistry
from starlette_drain.testing import RecordingObserver

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house():
    """Return a drain that only watches, its hundred sessions, and what it tells."""
    recording = RecordingObserver()
    drain = Drain(triggers=[], observers=[recording], rng=Random(7), mode="observe")
    async with drain.run():
        guests = open_guests(drain, 100, Stubborn)
        recording.clear()
        yield drain, guests, recording


async def test_everything_is_told_and_nobody_is_closed(house):
    """The figures are those of a drain that closes; the sessions stay, and new ones are let in."""
    drain, guests, recording = house
    await drain.start(window=50)
    assert drain.state is DrainState.DRAINING
    assert drain.host.engine.admits()
    assert not drain.host.engine.sends_away
    await asyncio.sleep(25)
    assert drain.progress().shed == pytest.approx(50, abs=2)
    assert await drain.wait_drained()
    report = drain.report
    assert (report.sessions_at_start, report.shed, report.still_open, report.outcome) == (100, 100, 0, "drained")
    assert report.peak_rate <= 4
    assert report.slack >= 0
    assert drain.statistics().open == drain.statistics().waiting == 100
    assert not any(guest.asked_at or guest.shed_at or guest.reconnect_after for guest in guests)
    kinds = [type(event) for event in recording.events]
    assert kinds == [DrainStarted, *[DrainProgressed] * 3, DrainFinished]
    assert recording.of(SessionShed) == []


async def test_those_who_leave_meanwhile_need_not_be_closed(house):
    """Whoever goes by itself is counted as such, whether it would have been closed or not."""
    drain, guests, _ = house
    await drain.start(window=50)
    await asyncio.sleep(25)
    shed = drain.progress().shed
    for guest in guests[:80]:
        guest.go()
    assert drain.state is DrainState.DRAINED
    assert (drain.report.shed, drain.report.left) == (shed, 100 - shed)
    assert 0 < shed < 60


async def test_it_is_undone_like_any_other(house):
    """A withdrawn claim, a cancel: the process serves, as it did all the time."""
    drain, guests, _ = house
    engine = drain.host.engine
    engine.claim(DrainCause("health", "draining", engine.time(), engine.time() + 50))
    await asyncio.sleep(10)
    engine.withdraw("health")
    assert drain.state is DrainState.SERVING
    assert drain.report.outcome == "cancelled"
    await drain.start(window=0)
    await asyncio.sleep(1)
    assert drain.report.shed == 100
    assert not any(guest.asked_at for guest in guests)


async def test_arrivals_when_it_is_over_are_watched_too(house):
    """Nobody sends them away, so they come: another run until the deadline, and at once after it."""
    drain, _, recording = house
    await drain.start(window=50)
    await drain.wait_drained()
    (late,) = open_guests(drain, 1, Stubborn)
    assert await drain.wait_drained()
    assert len(recording.of(DrainFinished)) == 2
    await asyncio.sleep(100)
    (later,) = open_guests(drain, 1, Stubborn)
    assert await drain.wait_drained()
    assert drain.state is DrainState.DRAINED
    assert not late.asked_at
    assert not later.asked_at


async def test_ages_close_nobody_either():
    """``max_session_age`` is a close too."""
    drain = Drain(triggers=[], observers=[], mode="observe", max_session_age=100)
    async with drain.run():
        guests = open_guests(drain, 10, Stubborn)
        await asyncio.sleep(1000)
        assert not any(guest.asked_at for guest in guests)


def test_nobody_is_left_to_be_picked():
    """What is picked stands for a session, and there are no more of them than sessions."""
    observed = ObservedSessions(registry := SessionRegistry())
    assert observed.pick(Random(7)) is None
    assert (observed.waiting, observed.remaining, len(registry)) == (0, 0, 0)
