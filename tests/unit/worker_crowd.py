"""Several workers of one task inside one process: each with its own Drain, all with one directory."""

import asyncio
import subprocess
from contextlib import suppress
from random import Random

from starlette_drain import Drain, Session
from starlette_drain._workers.group import WorkerGroup
from starlette_drain.testing.recording import RecordingObserver

__all__ = ["GUNICORN", "Crowd", "Guest", "Watcher", "Worker", "deadline", "hang", "soon", "states"]

GUNICORN = {"SERVER_SOFTWARE": "gunicorn/27.0.1"}
"""The environment of workers that have a supervisor: the parent of this process."""


class Guest(Session):
    """A session that closes when asked to, at once."""

    __slots__ = ("engine",)

    def __init__(self, drain: Drain) -> None:
        self.engine = drain.host.engine
        super().__init__("/guest", self.engine.time())

    def begin_close(self, close_policy):  # noqa: ARG002
        """Close."""
        asyncio.get_running_loop().call_soon(lambda: self.engine.closed(self, forced=False))


class Watcher:
    """A trigger of which one per task is enough."""

    name = "watcher"
    once_per_task = True

    def __init__(self) -> None:
        self.control = None

    async def watch(self, control):
        """Watch for ever."""
        self.control = control
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.control = None

    def status(self, now):  # noqa: ARG002
        """Say that it watches."""
        return {"state": "watching"}


class Worker:
    """One worker: a Drain that agrees with the others, under the pid of a process that really lives."""

    def __init__(self, environ, triggers, directory, *, seed=7, **options) -> None:
        self.process = subprocess.Popen(["sleep", "1000"])
        self.recording = RecordingObserver()
        self.drain = Drain(triggers=triggers, observers=[self.recording], rng=Random(seed), **options)
        host = self.drain.host
        host.equip(triggers=tuple, observers=tuple)
        self.group = WorkerGroup(environ, pid=self.process.pid, directory=directory)
        host.coordinate(lambda life: self.group.join(life, lambda: host.triggers), self.group.lead)
        host.add(self.group)
        host.begin()

    @property
    def engine(self):
        """Its engine."""
        return self.drain.host.engine

    @property
    def control(self):
        """What its triggers, and commands by hand, may do."""
        return self.drain.host.control()

    @property
    def member(self):
        """It as part of the group."""
        return self.group.member

    @property
    def directory(self):
        """The shared directory, as its thread knows it."""
        return self.member._exchange._directory

    def seat(self, count: int) -> None:
        """Open *count* sessions."""
        for _ in range(count):
            guest = Guest(self.drain)
            self.engine.track(guest)
            self.engine.opened(guest)

    def status(self, trigger="workers"):
        """Return what ``GET /drain`` shows of a trigger, or of the workers."""
        return self.drain.host.statuses()[trigger]

    async def die(self) -> None:
        """Be killed: nothing is tidied up."""
        self.process.kill()
        self.process.wait()
        await self.drain.host.end()

    async def leave(self) -> None:
        """Stop as one does."""
        await self.drain.host.end()
        self.process.kill()
        self.process.wait()


class Crowd:
    """The workers of one task."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.everyone: list[Worker] = []

    def hire(self, *, environ=None, triggers=(), alone=False, **options) -> Worker:
        """Start one more; it meets the others in their directory unless it is *alone*."""
        worker = Worker(
            environ or {}, triggers, None if alone else str(self.directory), seed=len(self.everyone), **options
        )
        self.everyone.append(worker)
        return worker

    async def dismiss(self) -> None:
        """End them all."""
        for worker in self.everyone:
            await worker.leave()
            with suppress(ProcessLookupError):
                worker.process.kill()


async def soon() -> None:
    """Let pass the time in which all hear of a command, and publish what came of it."""
    await asyncio.sleep(1.1)


def states(crowd):
    """Return the state of every worker."""
    return [worker.drain.state for worker in crowd.everyone]


def deadline(worker):
    """Return when the drain of *worker* ends."""
    return worker.engine.time() + worker.drain.progress().time_left


def hang(worker):
    """Let *worker* do nothing any more, and live; return what lets it go on."""

    async def nothing():
        pass

    meet, worker.member._meet = worker.member._meet, nothing
    return lambda: setattr(worker.member, "_meet", meet)
