"""The promise of _asgi/announcement.py: one line says what is watched, or that nothing is and why; never silence."""

import asyncio
import logging
from contextlib import nullcontext

import pytest
from plain_uvicorn import OURS, plain_uvicorn
from worker_crowd import soon

from starlette_drain import Drain, DrainMiddleware, Session
from starlette_drain._asgi.announcement import ELECTING, SETTLING, Announcement
from starlette_drain._core.events import TriggerStoodDown, WatchChanged, WatchReported
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio


class Idle:
    """A trigger that has nothing to do here, after a while."""

    name = "idle"

    def __init__(self, after: float = 0.0) -> None:
        self._after = after

    async def watch(self, control):
        """Stand down."""
        await asyncio.sleep(self._after)
        control.emit(TriggerStoodDown(control.time(), self.name, "there is nothing to see."))

    def status(self, now):  # noqa: ARG002
        """Say no more than any trigger."""
        return {"state": "stood down"}


class Busy:
    """A trigger that watches."""

    name = "busy"

    async def watch(self, control):  # noqa: ARG002
        """Watch for ever."""
        await asyncio.get_running_loop().create_future()

    def status(self, now):  # noqa: ARG002
        """Say that it watches."""
        return {"state": "watching"}


class Stayer(Session):
    """A session that does not go."""

    __slots__ = ()

    def begin_close(self, _policy):
        """Stay."""


def install(*triggers, observers=None, **options):
    """Make a drain as the middleware equips it."""
    drain = Drain(triggers=triggers, observers=observers, **options)
    DrainMiddleware(lambda *_: None, drain=drain)
    return drain


async def told(*triggers, seconds=SETTLING):
    """Return what is announced within so many seconds."""
    recording = RecordingObserver()
    async with install(*triggers, observers=[recording]).run():
        await asyncio.sleep(seconds + 0.01)
    return [(each.watched, each.off, each.is_alarm) for each in recording.of(WatchChanged)]


async def test_it_says_what_is_watched_and_what_is_not():
    """Each trigger with its state, or with the reason why it is off."""
    assert await told(Busy(), Idle()) == [(("busy (watching)",), (("idle", "there is nothing to see"),), False)]


async def test_it_says_that_nothing_is_watched(monkeypatch):
    """Off ECS that is as it should be; on ECS it is an alarm."""
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)
    assert await told(Idle()) == [((), (("idle", "there is nothing to see"),), False)]
    assert await told() == [((), (), False)]
    monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x")
    assert await told(Idle()) == [((), (("idle", "there is nothing to see"),), True)]


async def test_it_says_so_again_when_that_changes():
    """A trigger that finds out later that it has nothing to do is told of then."""
    assert await told(Busy(), Idle(after=30), seconds=31) == [
        (("busy (watching)", "idle (stood down)"), (), False),
        (("busy (watching)",), (("idle", "there is nothing to see"),), False),
    ]


class Seeing(Busy):
    """A trigger that reports what it sees, after a while, and later something else."""

    name = "seeing"

    def __init__(self, *reports: tuple[float, str]) -> None:
        self._reports = reports

    async def watch(self, control):
        """Report, and watch for ever."""
        for after, what in self._reports:
            await asyncio.sleep(after)
            control.emit(WatchReported(control.time(), self.name, "watching", what))
        await super().watch(control)

    def status(self, now):  # noqa: ARG002
        """Say that the first look has not been understood."""
        return {"state": "discovering", "watch": "not yet"}


async def test_it_waits_for_the_first_look():
    """One line, with what is watched, when the first look has been understood; and again when that changes."""
    seeing = Seeing((5, "a in b"), (60, "a in b"), (60, "a in b, delay 30 s"))
    assert await told(Busy(), seeing, seconds=200) == [
        (("busy (watching)", "seeing (a in b)"), (), False),
        (("busy (watching)", "seeing (a in b, delay 30 s)"), (), False),
    ]


async def test_it_does_not_wait_for_ever():
    """Where no look is understood for long, the line says what is known."""
    assert await told(Seeing((60, "a in b")), seconds=40) == [(("seeing (discovering)",), (), False)]


@pytest.mark.parametrize("environ", [{}, {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}])
async def test_what_should_be_watched_and_is_not_is_an_alarm(monkeypatch, environ):
    """A trigger may say so, also where others watch, on ECS and off it."""

    class Missing(Idle):
        async def watch(self, control):
            control.emit(TriggerStoodDown(control.time(), self.name, "no group", is_alarm=True))

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert await told(Busy(), Missing()) == [(("busy (watching)",), (("idle", "no group"),), True)]


async def test_of_the_workers_of_a_task_one_announces(crowd):
    """One line a task, and not one a worker; a worker that is started later adds none."""
    for _ in range(3):
        worker = crowd.hire(triggers=[Busy()])
        worker.drain.host.add(Announcement(worker.drain, worker.group, nullcontext(), {}))
        await soon()
    await asyncio.sleep(SETTLING + ELECTING)
    assert [len(worker.recording.of(WatchChanged)) for worker in crowd.everyone] == [1, 0, 0]
    assert [worker.member.speaks("announcement") for worker in crowd.everyone] == [True, False, False]


async def test_a_plain_uvicorn_shows_a_whole_drain():
    """The start, the beginning and the end of a drain are shown without any configuration, and that is undone."""
    with plain_uvicorn() as written:
        async with install(Busy()).run() as drain:
            await asyncio.sleep(1)
            await drain.start(window=1)
            await drain.wait_drained()
        assert (OURS.handlers, OURS.level) == ([], logging.NOTSET)
    start, begin, end = written.getvalue().splitlines()
    assert start == "INFO:     starlette_drain watches busy (watching)"
    assert begin.startswith("INFO:     Drain ")
    assert " starts, caused by manual (" in begin
    assert " is complete, " in end


async def test_a_drain_that_the_application_cuts_short_is_shown_to_its_end():
    """The report comes after the triggers have ended, and is shown all the same."""
    with plain_uvicorn() as written:
        async with install(Busy()).run() as drain:
            await asyncio.sleep(1)
            drain.host.engine.track(Stayer("/", drain.host.engine.time()))
            await drain.start(window=10)
        assert (OURS.handlers, OURS.level) == ([], logging.NOTSET)
    assert " ended with sessions still open, " in written.getvalue().splitlines()[-1]


async def test_the_switch_turns_it_off(monkeypatch):
    """With `log=False` nothing is attached, and the log goes where the application wants it."""
    monkeypatch.setenv("DRAIN_LOG", "false")
    with plain_uvicorn() as written:
        async with install(Busy()).run() as drain:
            await asyncio.sleep(1)
            await drain.start(window=1)
            assert OURS.handlers == []
    assert written.getvalue() == ""
