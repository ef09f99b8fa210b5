"""An observer or a trigger may call the drain from inside an event: the change of state is complete by then."""

import asyncio
from itertools import pairwise

import pytest
from guests import Stubborn, open_guests

from starlette_drain import Drain, DrainCause, DrainState
from starlette_drain._core import events
from starlette_drain.testing import RecordingObserver

pytestmark = pytest.mark.anyio


class Caller(RecordingObserver):
    """Calls back once, at the first event of one kind."""

    def __init__(self, kind, call) -> None:
        super().__init__()
        self.kind = kind
        self.call = call
        self.states = []
        self.engine = None

    def notify(self, event) -> None:
        """Call."""
        super().notify(event)
        if type(event) is self.kind and self.call:
            call, self.call = self.call, None
            call(self.engine)
            self.states.append(self.engine.state)


def claim(engine, window=50.0, *, revocable=True, trigger="caller"):
    """Ask for a drain."""
    now = engine.time()
    engine.claim(DrainCause(trigger, "from inside", now, now + window, revocable=revocable))


def cancel(engine):
    """Cancel."""
    engine.cancel()


def withdraw(engine):
    """Take back what was asked for by hand."""
    engine.withdraw("manual")


def make(caller, other=()):
    """Return a drain with that observer first, and *other* behind it."""
    drain = Drain(triggers=[], observers=[caller, *other])
    drain.host.begin()
    caller.engine = drain.host.engine
    return drain


def kinds(recording):
    """Return the events of drains, by name and in order."""
    names = [type(each).__name__ for each in recording.events]
    return [name for name in names if name.startswith("Drain") and name != "DrainProgressed"]


@pytest.mark.parametrize("undo", [cancel, withdraw])
@pytest.mark.parametrize("guests", [0, 5])
async def test_undoing_a_drain_from_its_start(undo, guests):
    """Everybody hears start before end, in one order; the drain is over for those who wait."""
    caller, behind = Caller(events.DrainStarted, undo), RecordingObserver()
    drain = make(caller, [behind])
    open_guests(drain, guests, Stubborn)
    waiting = asyncio.create_task(drain.wait_drained())
    await asyncio.sleep(0)
    await drain.start(window=100)
    assert caller.states == [DrainState.SERVING]
    assert drain.state is DrainState.SERVING
    assert await waiting is (guests == 0), "without anybody it was over before anybody heard of it"
    expected = ["DrainStarted", "DrainCancelled"] if guests else ["DrainStarted", "DrainFinished", "DrainCancelled"]
    assert kinds(caller) == kinds(behind) == expected
    await asyncio.sleep(200)
    assert drain.host.engine.statistics().leaving == 0
    await drain.host.end()


@pytest.mark.parametrize("revocable", [True, False])
async def test_asking_again_when_a_drain_is_cancelled(revocable):
    """A second drain begins, with its own waiters; SIGTERM's among them is passed on when that one is over."""
    caller = Caller(events.DrainCancelled, lambda engine: claim(engine, revocable=revocable))
    drain = make(caller)
    guests = open_guests(drain, 5)
    waiting = asyncio.create_task(drain.wait_drained())
    await asyncio.sleep(0)
    await drain.start(window=100)
    await drain.cancel()
    assert caller.states == [DrainState.DRAINING]
    assert await waiting is False
    assert await drain.wait_drained() is True
    assert kinds(caller) == ["DrainStarted", "DrainCancelled", "DrainStarted", "DrainFinished"]
    assert [len(guest.asked_at) for guest in guests] == [1] * 5
    assert drain.report.causes[0].trigger == "caller"
    await drain.host.end()


@pytest.mark.parametrize("undo", [cancel, withdraw])
async def test_undoing_a_drain_when_it_is_over(undo):
    """It was over for those who waited; the process serves, and a new waiter waits."""
    caller = Caller(events.DrainFinished, undo)
    drain = make(caller)
    open_guests(drain, 2)
    waiting = asyncio.create_task(drain.wait_drained())
    await drain.start(window=10)
    assert await waiting is True
    assert drain.state is DrainState.SERVING
    assert drain.report.outcome == "drained"
    again = asyncio.create_task(drain.wait_drained())
    await asyncio.sleep(100)
    assert not again.done()
    await drain.host.end()
    assert await again is False


async def test_joining_from_the_start_of_a_drain():
    """A shorter deadline, asked for from inside, holds at once."""
    caller = Caller(events.DrainStarted, lambda engine: claim(engine, 20))
    drain = make(caller)
    guests = open_guests(drain, 10)
    began = drain.host.engine.time()
    await drain.start(window=100)
    assert drain.progress().time_left == 20
    assert kinds(caller) == ["DrainStarted", "DrainReplanned"]
    await drain.wait_drained()
    assert max(guest.asked_at[0] for guest in guests) <= began + 20
    await drain.host.end()


@pytest.mark.parametrize("kind", [events.SessionShed, events.SessionClosed, events.DrainProgressed])
@pytest.mark.parametrize("undo", [cancel, withdraw])
async def test_undoing_a_drain_while_sessions_leave(kind, undo):
    """Who was asked leaves; nobody else is asked; each is counted once."""
    caller = Caller(kind, undo)
    drain = make(caller)
    guests = open_guests(drain, 20)
    await drain.start(window=20)
    await asyncio.sleep(100)
    asked = [guest for guest in guests if guest.asked_at]
    assert 1 <= len(asked) <= 6
    assert all(len(guest.asked_at) == 1 for guest in asked)
    assert drain.state is DrainState.SERVING
    assert drain.report.outcome == "cancelled"
    assert drain.statistics().open == 20 - len(asked)
    await drain.host.end()


@pytest.mark.parametrize("kind", [events.SessionShed, events.SessionClosed])
async def test_bringing_the_deadline_to_now_while_sessions_leave(kind):
    """All who are left are asked, none of them twice."""
    caller = Caller(kind, lambda engine: claim(engine, 0.0))
    drain = make(caller)
    guests = open_guests(drain, 250)
    await drain.start(window=100)
    await drain.wait_drained()
    assert [len(guest.asked_at) for guest in guests] == [1] * 250
    assert drain.report.duration < 3
    await drain.host.end()


async def test_a_session_closed_without_a_drain_may_begin_one():
    """The event of an ordinary close asks for a drain: the one that has closed is in no figure of it."""
    caller = Caller(events.SessionClosed, claim)
    drain = make(caller)
    first, *_ = open_guests(drain, 3)
    first.go()
    assert drain.state is DrainState.DRAINING
    await drain.wait_drained()
    assert (drain.report.sessions_at_start, drain.report.left) == (2, 0)
    await drain.host.end()


async def test_a_task_that_starts_and_cancels_by_the_facade():
    """What is awaited from an event goes the same way, a turn later."""
    tasks = []

    def both(_engine):
        async def call():
            await drain.cancel()
            await drain.start(window=10)

        tasks.append(asyncio.create_task(call()))

    caller = Caller(events.DrainStarted, both)
    drain = make(caller)
    open_guests(drain, 3)
    await drain.start(window=100)
    await asyncio.sleep(0.1)
    assert drain.progress().window == 10
    assert await drain.wait_drained() is True
    assert kinds(caller) == ["DrainStarted", "DrainCancelled", "DrainStarted", "DrainFinished"]
    await drain.host.end()


async def test_what_is_emitted_from_inside_comes_after():
    """Events have one order for everybody, also those that an observer makes while it hears of another."""
    heard = Caller(events.DrainStarted, lambda engine: engine.emit(events.TriggerActed(engine.time(), "me", "inside")))
    behind = RecordingObserver()
    drain = make(heard, [behind])
    await drain.start()
    expected = ["DrainStarted", "DrainFinished", "TriggerActed"]
    assert [type(event).__name__ for event in heard.events] == expected
    assert [type(event).__name__ for event in behind.events] == expected
    assert all(first.at <= second.at for first, second in pairwise(behind.events))
    await drain.host.end()


async def test_an_exception_that_ends_the_program_loses_no_event():
    """KeyboardInterrupt in an observer passes; what was not told is told with the next event."""

    class Interrupting(RecordingObserver):
        def notify(self, event):
            super().notify(event)
            if len(self.events) == 1:
                raise KeyboardInterrupt

    drain = Drain(triggers=[], observers=[observer := Interrupting()])
    drain.host.begin()
    with pytest.raises(KeyboardInterrupt):
        await drain.start()
    assert drain.state is DrainState.DRAINED
    await drain.cancel()
    assert kinds(observer) == ["DrainStarted", "DrainFinished", "DrainCancelled"]
    await drain.host.end()
