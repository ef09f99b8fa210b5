"""The trigger that fires when told to."""

import asyncio

import pytest

from starlette_drain import Drain, DrainState, SettingsError, TooLateToCancel, Trigger
from starlette_drain._core.events import DrainStarted
from starlette_drain.testing.recording import RecordingObserver
from starlette_drain.triggers.manual import ManualTrigger

pytestmark = pytest.mark.anyio


async def test_it_fires_when_told_to():
    """One call, one cause, with the trigger's name, the reason and the window given."""
    recording = RecordingObserver()
    trigger = ManualTrigger("button")
    drain = Drain(triggers=[trigger], observers=[recording])
    async with drain.run():
        await asyncio.sleep(0)
        assert drain.state is DrainState.SERVING
        trigger.fire("somebody pressed it", window=60)
        (started,) = recording.of(DrainStarted)

    assert (started.cause.trigger, started.cause.reason) == ("button", "somebody pressed it")
    assert (started.cause.deadline, started.cause.revocable) == (started.at + 60, True)
    assert started.deadline == started.at + 60


async def test_without_a_window_the_drain_takes_its_own():
    """Where none was given the deadline is that of the options."""
    recording = RecordingObserver()
    trigger = ManualTrigger()
    async with Drain(triggers=[trigger], observers=[recording], window=33).run():
        await asyncio.sleep(0)
        trigger.fire()
    (started,) = recording.of(DrainStarted)
    assert started.cause.deadline == started.deadline == started.at + 33


async def test_it_can_play_a_trigger_that_cannot_be_taken_back():
    """With revocable=False it plays SIGTERM's part."""
    trigger = ManualTrigger()
    drain = Drain(triggers=[trigger], observers=[])
    async with drain.run():
        await asyncio.sleep(0)
        trigger.fire(revocable=False)
        with pytest.raises(TooLateToCancel):
            await drain.cancel()


async def test_firing_before_and_after_is_an_error_that_says_what_to_do():
    """Fired where no drain watches it, it says so instead of doing nothing."""
    trigger = ManualTrigger("button")
    with pytest.raises(RuntimeError, match="'button' is not watched; give it to a Drain"):
        trigger.fire()
    async with Drain(triggers=[trigger], observers=[]).run():
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="not watched"):
        trigger.fire()
    assert trigger.status(0.0) == {"fired": 0}


async def test_it_counts_how_often_it_fired():
    """Its status tells how often it fired."""
    trigger = ManualTrigger()
    async with Drain(triggers=[trigger], observers=[]).run():
        await asyncio.sleep(0)
        trigger.fire()
        trigger.fire()
    assert trigger.status(0.0) == {"fired": 2}


def test_it_is_a_trigger():
    """It keeps to the protocol that it is the pattern of."""
    assert isinstance(ManualTrigger(), Trigger)


async def test_what_it_asked_for_can_be_withdrawn():
    """The level that it holds goes down again, once."""
    trigger = ManualTrigger("button")
    with pytest.raises(RuntimeError, match="'button' is not watched"):
        trigger.withdraw()
    drain = Drain(triggers=[trigger], observers=[])
    async with drain.run():
        await asyncio.sleep(0)
        assert trigger.withdraw() is False
        trigger.fire()
        assert drain.state is DrainState.DRAINED
        assert trigger.withdraw() is True
        assert trigger.withdraw() is False
        assert drain.state is DrainState.SERVING


@pytest.mark.parametrize("window", [-1, float("nan"), float("inf"), "60", True])
async def test_a_window_that_cannot_work_is_refused(window):
    """It neither fires nor counts."""
    trigger = ManualTrigger("button")
    drain = Drain(triggers=[trigger], observers=[])
    async with drain.run():
        await asyncio.sleep(0)
        with pytest.raises(SettingsError, match="window"):
            trigger.fire(window=window)
        assert drain.state is DrainState.SERVING
    assert trigger.status(0.0) == {"fired": 0}


async def test_firing_again_after_a_cancel_counts_again():
    """Cancel drops what was fired by hand, whatever the trigger is called; it mutes no later call."""
    trigger = ManualTrigger("deploy")
    drain = Drain(triggers=[trigger], observers=[])
    async with drain.run():
        await asyncio.sleep(0.01)
        trigger.fire(window=60)
        await drain.cancel()
        trigger.fire(window=60)
        assert [each.trigger for each in drain.host.engine.claims] == ["deploy"]
        assert trigger.withdraw()
        assert drain.host.engine.claims == ()
