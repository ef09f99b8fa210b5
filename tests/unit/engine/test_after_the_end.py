"""When a drain is over, or the application is: what changes no more, what is forgotten, what does not begin."""

import asyncio
import gc
import inspect
import weakref

import pytest
from guests import Guest, Stubborn, open_guests

from starlette_drain import Drain, DrainCause, DrainState, IllegalTransition
from starlette_drain._core.events import DrainCancelled, DrainFinished, DrainStarted
from starlette_drain._core.session import Session
from starlette_drain._engine.control import LocalControl
from starlette_drain.exceptions import DrainEnded
from starlette_drain.testing import ManualTrigger, RecordingObserver

pytestmark = pytest.mark.anyio


class Referable(Stubborn):
    """A session that can be referred to weakly."""

    __slots__ = ("__weakref__",)


def test_the_facade_is_small():
    """A Drain has at most 16 public names, and no logic to inherit."""
    drain = Drain(triggers=[], observers=[])
    names = {name for name, _ in inspect.getmembers(drain) if not name.startswith("_")}
    assert len(names) <= 16, sorted(names)
    assert Drain.__mro__ == (Drain, object)


# The report


async def test_a_report_never_changes():
    """Cancelled when it was over, joined by others, started anew: the report of a drain is that of its end."""
    recording = RecordingObserver()
    drain = Drain(triggers=[], observers=[recording])
    async with drain.run():
        open_guests(drain, 5)
        await drain.start(window=10)
        await drain.wait_drained()
        first = drain.report
        figures = repr(first)
        assert first.outcome == "drained"
        await asyncio.sleep(100)
        now = drain.host.engine.time()
        drain.host.engine.claim(DrainCause("health", "draining", now, now + 5))
        drain.host.engine.refused("websocket", "/")
        assert drain.report is first
        await drain.cancel()
        assert drain.report is first
        (cancelled,) = recording.of(DrainCancelled)
        assert cancelled.report is first
        guest = open_guests(drain, 1, Stubborn)[0]
        await drain.start(window=1)
        assert drain.report is first, "until the next one is over"
        await asyncio.sleep(30)
        second = drain.report
        assert second.outcome == "incomplete"
        guest.go(forced=True)
        assert (drain.report, drain.report.forced) == (second, 0)
        await drain.cancel()
    assert repr(first) == figures
    assert drain.report is second
    assert [event.report for event in recording.of(DrainFinished)] == [first, second]


async def test_every_end_has_its_outcome():
    """Drained in time, late, incomplete, or cancelled."""
    drain = Drain(triggers=[], observers=[], grace=9)
    async with drain.run():
        (guest,) = open_guests(drain, 1, Stubborn)
        await drain.start(window=2)
        await asyncio.sleep(5)
        guest.go()
        assert (drain.report.outcome, drain.report.still_open, drain.report.slack) == ("late", 0, -3)
        await drain.cancel()
        open_guests(drain, 1, Stubborn)
        await drain.start(window=2)
        await drain.cancel()
        assert (drain.report.outcome, drain.report.still_open) == ("cancelled", 1)
        await drain.start(window=2)
    assert (drain.report.outcome, drain.report.still_open) == ("incomplete", 1)


# What is forgotten


@pytest.mark.parametrize("order", ["random", "oldest", "newest", "idle"])
@pytest.mark.parametrize("ending", ["cancel", "withdraw", "finish", "end"])
async def test_a_session_that_closes_after_a_drain_is_forgotten(order, ending):
    """Whatever the order of leaving and however the drain ended, no closed session is kept in memory."""
    drain = Drain(triggers=[], observers=[], shed_first=order)
    drain.host.begin()
    guests = open_guests(drain, 200, Referable)
    await drain.start(window=100)
    await asyncio.sleep(10)
    match ending:
        case "cancel":
            await drain.cancel()
        case "withdraw":
            drain.host.engine.withdraw("manual")
        case "finish":
            await drain.wait_drained()
        case "end":
            await drain.host.end()
    traces = [weakref.ref(guest) for guest in guests]
    for guest in guests:
        guest.go()
    del guests, guest
    gc.collect()
    assert [trace for trace in traces if trace() is not None] == []
    await drain.host.end()


async def test_the_next_drain_has_an_order_of_its_own():
    """After a cancel the order is made anew, of those who are there then."""
    drain = Drain(triggers=[], observers=[], shed_first="newest")
    async with drain.run():
        old = open_guests(drain, 3)
        await drain.start(window=1000)
        await drain.cancel()
        await asyncio.sleep(1)
        new = open_guests(drain, 3)
        await drain.start(window=10)
        await drain.wait_drained()
    assert max(guest.asked_at[0] for guest in new) < min(guest.asked_at[0] for guest in old)


# What does not begin


async def test_after_the_end_no_drain_begins():
    """By hand it is an error that says so; by a trigger that was left behind, or by a session, it is nothing."""
    recording = RecordingObserver()
    drain = Drain(triggers=[], observers=[recording], late_arrivals="accept")
    async with drain.run():
        control = drain.host.control()
    with pytest.raises(DrainEnded, match="has ended"):
        await drain.start()
    with pytest.raises(IllegalTransition, match="has ended"):
        await drain.cancel()
    now = drain.host.engine.time()
    cause = DrainCause("left-behind", "too late", now, now + 10, revocable=False)
    control.claim(cause)
    assert drain.host.engine.claim(cause) is False
    control.note_window(5)
    control.note_fleet(1, 1)
    open_guests(drain, 3, Stubborn)[0].go()
    await asyncio.sleep(100)
    assert drain.state is DrainState.SERVING
    assert recording.of(DrainStarted) == []
    assert not drain.host.is_running


async def test_after_the_end_of_a_drain_that_is_over_none_goes_on():
    """A late arrival on an event loop that is about to close makes no further run; a claim withdrawn no new service."""
    drain = Drain(triggers=[], observers=[], late_arrivals="accept")
    async with drain.run():
        control = drain.host.control()
        await drain.start(window=100)
        report = drain.report
    (guest,) = open_guests(drain, 1)
    assert control.withdraw("manual") is False
    with pytest.raises(IllegalTransition, match="has ended"):
        control.cancel()
    assert (drain.state, drain.report) == (DrainState.DRAINED, report)
    await asyncio.sleep(200)
    assert guest.asked_at == []


async def test_an_end_that_is_asked_for_twice_is_one():
    """Also while the first one still waits for what must happen before the exit."""
    drain = Drain(triggers=[], observers=[recording := RecordingObserver()])
    drain.host.begin()
    await drain.start()
    first = asyncio.create_task(drain.host.end())
    await asyncio.sleep(0)
    await drain.host.end()
    await first
    await drain.host.end()
    assert len(recording.flushes) == 1


async def test_without_a_lifetime_there_is_nothing_to_end():
    """A Drain that never ran ends at once, and cannot be cancelled."""
    drain = Drain(triggers=[], observers=[])
    await drain.host.end()
    with pytest.raises(IllegalTransition):
        await drain.cancel()
    await drain.host.end()


async def test_late_arrivals_after_the_deadline_are_in_no_drain():
    """Where they are accepted they are refused from the deadline on; one that slips through is asked at once."""
    drain = Drain(triggers=[], observers=[], late_arrivals="accept")
    async with drain.run():
        await drain.start(window=10)
        await asyncio.sleep(11)
        assert not drain.host.engine.admits()
        (guest,) = open_guests(drain, 1, Guest)
        await asyncio.sleep(1)
        assert len(guest.asked_at) == 1
        assert drain.report.window == 0
        assert drain.report.outcome == "drained"


async def test_a_session_of_no_kind_is_closed_by_nobody(caplog):
    """What cannot be closed is logged and stays open, also in a rotation."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        drain.host.engine.track(session := Session("/\n", 0.0))
        drain.host.engine.opened(session)
        await drain.rotate(window=1)
        await asyncio.sleep(1)
        assert "could not be closed" in caplog.text


# What comes in an unusual order


async def test_what_is_due_while_serving_is_nobody():
    """A caller that looks too late, after a cancel, closes nobody."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        (guest,) = open_guests(drain, 1)
        assert drain.host.engine.collect() == []
        drain.host.engine.refused("websocket", "/")
        assert guest.asked_at == []


async def test_workers_that_come_and_go_divide_the_pace():
    """What the pacing promises holds for the sum of all processes, from the moment on at which there are more."""
    drain = Drain(triggers=[], observers=[], pacing="rate:40")
    async with drain.run():
        open_guests(drain, 1000)
        await drain.start(window=1000)
        assert drain.progress().rate == 40
        drain.host.engine.divide(4)
        drain.host.engine.divide(4)
        assert (drain.progress().rate, drain.host.control().workers) == (10, 4)


async def test_a_claim_that_was_cancelled_elsewhere_is_muted_here():
    """A worker that comes after a cancel does not begin the drain that the others have ended."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        engine = drain.host.engine
        cause = DrainCause("health", "draining", engine.time(), engine.time() + 100)
        assert not engine.is_muted("health")
        engine.mute(cause)
        assert engine.is_muted("health")
        assert engine.claim_of("health") is cause
        assert engine.claim(cause) is False
        assert drain.state is DrainState.SERVING
        engine.withdraw("health")
        assert engine.claim(cause) is True
        assert drain.state is DrainState.DRAINED


async def test_a_control_that_comes_late_is_for_those_who_do_not_watch_yet():
    """The middleware may be made after the beginning; before it, nobody has to be told."""

    class Counting(LocalControl):
        pass

    for begins in (False, True):
        drain = Drain(triggers=[early := ManualTrigger("early")], observers=[])
        if begins:
            drain.host.begin()
        else:
            drain.host.attach()
        await asyncio.sleep(0)
        drain.host.coordinate(lambda life, host=drain.host: Counting(life, lambda: host.triggers), lambda each: each)
        drain.host.add(late := ManualTrigger("late"))
        drain.host.begin()
        await asyncio.sleep(0.1)
        assert isinstance(drain.host.control(), Counting)
        assert isinstance(early._control, Counting) is not begins
        assert isinstance(late._control, Counting)
        assert drain.host.equip(tuple, tuple) is True
        assert drain.host.equip(tuple, tuple) is False
        await drain.host.end()


def test_a_waiter_of_a_loop_that_is_gone_is_forgotten():
    """A Drain that was waited for on one event loop may live on the next."""
    drain = Drain(triggers=[], observers=[])

    async def wait():
        waiting = asyncio.create_task(drain.wait_drained())
        await asyncio.sleep(0)
        assert not waiting.done()

    async def live():
        async with drain.run():
            await drain.start()
            return await drain.wait_drained()

    asyncio.run(wait())
    assert asyncio.run(live()) is True
