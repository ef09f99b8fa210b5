"""Triggers that misbehave: each watches again or is left behind, is never silently gone, and hurts nobody."""

import asyncio
import contextlib
import logging

import pytest
from guests import open_guests

from starlette_drain import Drain, DrainCause, DrainState
from starlette_drain._engine.flush import BEFORE_EXIT_TIMEOUT
from starlette_drain._engine.trigger_tasks import END_TIMEOUT, FIRST_PAUSE, LONGEST_PAUSE
from starlette_drain.testing import RecordingObserver

pytestmark = pytest.mark.anyio


class Scripted:
    """A trigger that does what it is told to, and counts how often it is watched."""

    def __init__(self, script, name="scripted") -> None:
        self.name = name
        self.script = script
        self.began = []
        self.control = None

    async def watch(self, control):
        """Play the script."""
        self.control = control
        self.began.append(control.time())
        await self.script(self)

    def status(self, now):  # noqa: ARG002
        """Say how often it was watched."""
        return {"watched": len(self.began)}


async def for_ever():
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()


async def end(drain):
    """End the lifetime; return how many seconds that takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await drain.host.end()
    return loop.time() - began


def start(*triggers, **options):
    """Return a drain that watches *triggers*, from the next turn on."""
    drain = Drain(triggers=triggers, observers=[RecordingObserver()], **options)
    drain.host.begin()
    return drain


# Those that fail


async def fails(_trigger):
    """Fail."""
    msg = "no route"
    raise OSError(msg)


async def is_cancelled_by_what_it_waits_for(_trigger):
    """Wait for something that somebody else has cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize("script", [fails, is_cancelled_by_what_it_waits_for])
async def test_one_that_fails_watches_again_after_longer_and_longer_pauses(script, caplog):
    """After 1 s, doubled each time up to a minute; each failure is logged, and shown until it watches again."""
    drain = start(trigger := Scripted(script))
    await asyncio.sleep(400)
    pauses = [round(later - earlier) for earlier, later in zip(trigger.began, trigger.began[1:], strict=False)]
    assert pauses == [1, 2, 4, 8, 16, 32] + [60] * 5
    assert len(caplog.records) == 12
    status = drain.host.statuses()["scripted"]
    kind = "OSError" if script is fails else "CancelledError"
    assert status == {"watched": 12, "failed": f"{kind}; it restarts within 60 s"}
    assert await end(drain) == 0


async def test_one_that_has_worked_for_long_watches_again_soon():
    """The pauses begin anew once it has watched for longer than the longest of them."""

    async def works_for_a_while(trigger):
        if len(trigger.began) > 5:
            await asyncio.sleep(LONGEST_PAUSE + 1)
        raise ValueError

    drain = start(trigger := Scripted(works_for_a_while))
    await asyncio.sleep(1 + 2 + 4 + 8 + 16 + LONGEST_PAUSE + 1 + FIRST_PAUSE + 0.1)
    assert len(trigger.began) == 7
    assert trigger.began[6] - trigger.began[5] == LONGEST_PAUSE + 1 + FIRST_PAUSE
    assert drain.host.statuses() == {"scripted": {"watched": 7}}
    await drain.host.end()


async def test_the_claim_of_one_that_has_failed_stands():
    """It does not know; what it said last stands until it says otherwise."""

    async def claims_and_fails(trigger):
        if len(trigger.began) == 1:
            now = trigger.control.time()
            trigger.control.claim(DrainCause(trigger.name, "draining", now, now + 100))
            raise ValueError
        trigger.control.withdraw(trigger.name)
        await for_ever()

    drain = start(Scripted(claims_and_fails))
    open_guests(drain, 100)
    await asyncio.sleep(0.5)
    assert drain.state is DrainState.DRAINING
    await asyncio.sleep(1)
    assert drain.state is DrainState.SERVING
    await drain.host.end()


async def test_one_that_watches_no_coroutine_is_told_of(caplog):
    """``def watch`` where ``async def`` was meant is a failure like others."""

    class Plain(Scripted):
        def watch(self, control):
            self.began.append(control.time())

    drain = start(Plain(None), other := Scripted(lambda _: for_ever(), "other"))
    await asyncio.sleep(0.5)
    assert "TypeError" in drain.host.statuses()["scripted"]["failed"]
    assert len(caplog.records) == len(other.began) == 1
    await drain.host.end()


@pytest.mark.parametrize("status", [None, 7, "watching"])
async def test_a_status_that_is_none_is_told_of(status, caplog):
    """``GET /drain`` shows the others, and what is wrong with this one."""
    trigger = Scripted(lambda _: for_ever())
    trigger.status = lambda _now: status
    drain = start(trigger)
    assert set(drain.host.statuses()["scripted"]) == {"error"}
    assert "status of trigger" in caplog.text
    await drain.host.end()


# Those that do not end


async def hangs_at_its_end(_trigger):
    """Close a client that does not answer any more."""
    try:
        await for_ever()
    finally:
        await asyncio.sleep(3600)


async def hears_no_end(_trigger):
    """Swallow every cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@pytest.mark.parametrize("script", [hangs_at_its_end, hears_no_end])
async def test_one_that_does_not_end_is_left_behind_and_named(script, caplog):
    """The application ends after five seconds; those that end in time are not named."""
    drain = start(Scripted(script, "stuck"), Scripted(lambda _: for_ever(), "tidy"))
    await asyncio.sleep(1)
    assert await end(drain) == END_TIMEOUT
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "left behind: stuck;" in record.getMessage()
    await _end_all_but_this()


async def test_one_that_fails_at_its_end_is_logged_and_over(caplog):
    """It does not watch again, and nobody waits for it."""

    async def fails_at_its_end(_trigger):
        try:
            await for_ever()
        finally:
            msg = "the client is closed already"
            raise RuntimeError(msg)

    drain = start(trigger := Scripted(fails_at_its_end))
    await asyncio.sleep(1)
    assert await end(drain) == 0
    assert [record.getMessage() for record in caplog.records] == ["Trigger 'scripted' failed at its end"]
    await asyncio.sleep(100)
    assert len(trigger.began) == 1


async def test_one_that_returns_at_its_end_is_over(caplog):
    """Swallowing the one cancellation and returning is an end like others."""

    async def returns(_trigger):
        with contextlib.suppress(asyncio.CancelledError):
            await for_ever()

    drain = start(trigger := Scripted(returns))
    await asyncio.sleep(1)
    assert await end(drain) == 0
    await asyncio.sleep(100)
    assert (len(trigger.began), caplog.records) == (1, [])


async def test_one_that_is_in_its_pause_ends_too():
    """An end in the pause after a failure is an end."""
    drain = start(trigger := Scripted(fails))
    await asyncio.sleep(0.5)
    assert await end(drain) == 0
    await asyncio.sleep(100)
    assert len(trigger.began) == 1


async def test_what_one_claims_or_withdraws_at_its_end_changes_nothing():
    """The drain ends as it stands; nothing begins or is taken back on an event loop that is about to close."""

    async def has_second_thoughts(trigger):
        control = trigger.control
        now = control.time()
        if trigger.name == "first":
            control.claim(DrainCause("first", "draining", now, now + 100))
        try:
            await for_ever()
        finally:
            control.withdraw("first")
            control.claim(DrainCause("late", "too late", now, now))

    drain = start(Scripted(has_second_thoughts, "first"))
    guests = open_guests(drain, 5)
    await asyncio.sleep(1)
    await drain.host.end()
    assert drain.state is DrainState.DRAINED
    assert (drain.report.outcome, [cause.trigger for cause in drain.report.causes]) == ("incomplete", ["first"])

    drain = start(Scripted(has_second_thoughts, "second"))
    guests += open_guests(drain, 5)
    await asyncio.sleep(1)
    await drain.host.end()
    await asyncio.sleep(200)
    assert (drain.state, drain.report) == (DrainState.SERVING, None)
    assert sum(bool(guest.asked_at) for guest in guests) <= 1


async def test_an_end_that_is_cut_short_is_an_end():
    """A server that gives up on its lifespan leaves no lifetime that is about to end for ever."""
    drain = start(Scripted(hangs_at_its_end))
    waiting = asyncio.create_task(drain.wait_drained())
    await asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await drain.host.end()
    assert await waiting is False
    assert drain.host.has_ended
    assert drain.host.begin() is True
    await asyncio.sleep(0)
    assert await end(drain) == END_TIMEOUT
    await _end_all_but_this()


# What must happen before the exit


class Careful(Scripted):
    """A trigger with something to do before the exit."""

    def __init__(self, act, name="careful"):
        super().__init__(lambda _: for_ever(), name)
        self.act = act
        self.acted = 0

    async def before_exit(self):
        """Do it."""
        self.acted += 1
        await self.act()


async def test_what_must_happen_before_the_exit_happens_once():
    """Before SIGTERM is passed on, or else at the end, with a drain and without one; then observers are flushed."""
    for drains, flushes in ((False, False), (True, False), (True, True)):
        order = []

        async def act(order=order):
            await asyncio.sleep(1)
            order.append("acted")

        drain = start(trigger := Careful(act))
        observer = RecordingObserver()
        observer.flush = lambda _timeout, order=order: order.append("flushed")
        drain.host._observers.add(observer)
        if drains:
            await drain.start()
        if flushes:
            await drain.host.control().flush()
            assert order == ["acted", "flushed"]
        await drain.host.end()
        assert order == (["acted", "flushed"] if drains else ["acted"])
        assert trigger.acted == 1


async def test_what_must_happen_before_the_exit_has_a_limit_and_may_fail(caplog):
    """All at once, five seconds in all; what fails or hangs is told of, and the rest is done."""

    async def broken():
        raise ZeroDivisionError

    async def slow():
        await asyncio.sleep(4)

    drain = start(Careful(broken, "a"), Careful(for_ever, "b"), Careful(slow, "c"), Scripted(lambda _: for_ever(), "d"))
    plain = Careful(None, "e")
    plain.before_exit = lambda: None
    drain.host.add(plain)
    loop = asyncio.get_running_loop()
    cancelled = loop.create_future()
    cancelled.cancel()
    drain.host.add(Careful(lambda: cancelled, "f"))
    drain.host.add(Careful(for_ever, "g"))
    assert await end(drain) == BEFORE_EXIT_TIMEOUT
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING"]
    assert "more than 5 s" in caplog.text


async def _end_all_but_this():
    """End the tasks that were left behind, however stubborn."""
    mine = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() if "TriggerTasks._watch" in repr(task) and task is not mine]
    for task in left:
        task.get_coro().close()
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
