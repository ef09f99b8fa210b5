"""Withdrawing a claim: by the trigger that holds it; the drain ends where no other stands."""

import asyncio

import pytest
from guests import open_guests

from starlette_drain import Drain, DrainCause, DrainState
from starlette_drain.testing import ManualTrigger, RecordingObserver

pytestmark = pytest.mark.anyio


class ListeningTrigger(ManualTrigger):
    """A trigger that is an observer too."""

    def __init__(self, name):
        super().__init__(name)
        self.heard = []

    def notify(self, event):
        """Note a fact."""
        self.heard.append(type(event).__name__)

    def flush(self, timeout):
        """Hold nothing."""


async def test_the_only_claim_can_be_withdrawn():
    """The trigger that alone has asked takes its drain back, and the process serves again."""
    drain = Drain(triggers=[one := ManualTrigger("one")], observers=[])
    async with drain.run():
        assert drain.host.engine.withdraw("one") is False
        await _turn()
        one.fire(window=60)
        assert drain.host.engine.withdraw("other") is False
        assert drain.state is not DrainState.SERVING
        assert drain.host.engine.withdraw("one") is True
        assert drain.state is DrainState.SERVING


async def test_what_others_want_stays():
    """With a second claim the drain goes on, until the deadline of that one."""
    drain = Drain(triggers=[one := ManualTrigger("one"), other := ManualTrigger("other")], observers=[])
    async with drain.run():
        await _turn()
        open_guests(drain, 10)
        one.fire(window=60)
        other.fire(window=90)
        assert drain.progress().time_left == 60
        assert one.withdraw() is True
        assert one.withdraw() is False
        assert drain.state is DrainState.DRAINING
        assert drain.progress().time_left == 90
        assert [cause.trigger for cause in drain.progress().causes] == ["other"]
        assert other.withdraw() is True
        assert drain.state is DrainState.SERVING


async def test_what_cannot_be_taken_back_stays():
    """A process that was told to stop cannot be told otherwise."""
    drain = Drain(triggers=[one := ManualTrigger("one")], observers=[])
    async with drain.run():
        await _turn()
        one.fire(window=60, revocable=False)
        assert drain.host.engine.withdraw("one") is False
        assert drain.state is not DrainState.SERVING


async def test_a_claim_that_only_follows_others_begins_no_drain():
    """Alone it waits, for as long as it stands; with another it brings its deadline, whichever came first."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        open_guests(drain, 10)
        engine = drain.host.engine
        now = engine.time()
        follower = DrainCause("follower", "deregistered", now, now + 60, follows=True)
        engine.claim(follower)
        assert drain.state is DrainState.SERVING
        engine.withdraw("follower")
        assert drain.state is DrainState.SERVING
        engine.claim(follower)
        engine.claim(DrainCause("one", "it is time", now, now + 90))
        assert drain.progress().time_left == 60
        assert [cause.trigger for cause in drain.progress().causes] == ["follower", "one"]
        engine.withdraw("one")
        assert drain.state is DrainState.SERVING


async def test_a_trigger_that_listens():
    """A trigger that is an observer hears of the drain that another one began."""
    listening, other = ListeningTrigger("one"), ManualTrigger("other")
    drain = Drain(triggers=[listening, other], observers=[RecordingObserver()])
    drain.host.equip(list, list)
    async with drain.run():
        await _turn()
        other.fire(window=60)
        drain.host.engine.withdraw("other")
    assert {"DrainStarted", "DrainCancelled"} <= set(listening.heard)


async def test_sessions_of_the_task():
    """Sessions of the other workers count, as far as they have told."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        assert (drain.host.engine.open_sessions(), drain.host.engine.workers) == (0, 1)
        drain.host.engine.open_elsewhere = 7
        drain.host.engine.divide(3)
        assert (drain.host.engine.open_sessions(), drain.host.engine.workers) == (7, 3)
        assert (drain.host.control().open_sessions(), drain.host.control().workers) == (7, 3)


async def _turn():
    """Let the triggers begin to watch."""
    await asyncio.sleep(0.01)
