"""Taking a drain back: only by the trigger that has asked for it, and only where it alone has."""

import asyncio

import pytest

from starlette_drain import Drain, DrainState
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


async def test_the_only_cause_can_be_retracted():
    """The trigger that alone has asked takes its drain back, and the process serves again."""
    drain = Drain(triggers=[one := ManualTrigger("one")], observers=[])
    async with drain.run():
        assert drain.retract("one") is False
        await _turn()
        one.fire(window=60)
        assert drain.retract("other") is False
        assert drain.state is not DrainState.SERVING
        assert drain.retract("one") is True
        assert drain.state is DrainState.SERVING


@pytest.mark.parametrize("revocable", [True, False])
async def test_what_others_asked_for_stays(revocable):
    """With a second cause, or one that told the process to stop, there is nothing to retract."""
    drain = Drain(triggers=[one := ManualTrigger("one"), other := ManualTrigger("other")], observers=[])
    async with drain.run():
        await _turn()
        one.fire(window=60, revocable=revocable)
        if revocable:
            other.fire(window=90)
        assert drain.retract("one") is False
        assert drain.state is not DrainState.SERVING


async def test_a_trigger_that_listens():
    """A trigger that is an observer hears of the drain that another one began."""
    listening, other = ListeningTrigger("one"), ManualTrigger("other")
    drain = Drain(triggers=[listening, other], observers=[RecordingObserver()])
    drain.equip(list, list)
    async with drain.run():
        await _turn()
        other.fire(window=60)
        drain.retract("other")
    assert {"DrainStarted", "DrainCancelled"} <= set(listening.heard)


async def test_sessions_of_the_task():
    """Sessions of the other workers count, as far as they have told."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        assert (drain.open_sessions(), drain.workers) == (0, 1)
        drain.open_elsewhere = 7
        drain.divide(3)
        assert (drain.open_sessions(), drain.workers) == (7, 3)


async def _turn():
    """Let the triggers begin to watch."""
    await asyncio.sleep(0.01)
