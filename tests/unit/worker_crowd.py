"""Several workers of one task inside one process: each with its own Drain, all with one directory."""

import asyncio
import subprocess
from contextlib import suppress
from random import Random

from starlette_drain import Drain, Session
from starlette_drain._workers.group import Workers
from starlette_drain._workers.leader import LeaderOnly
from starlette_drain.testing.recording import RecordingObserver

__all__ = ["GUNICORN", "Crowd", "Guest", "Lookout", "Worker", "deadline", "hang", "soon", "states"]

GUNICORN = {"SERVER_SOFTWARE": "gunicorn/27.0.1"}
"""The environment of workers that have a supervisor: the parent of this process."""


class Guest(Session):
    """A session that leaves when asked to, at once."""

    __slots__ = ("drain",)

    def __init__(self, drain: Drain) -> None:
        super().__init__("/guest", drain.time())
        self.drain = drain

    def leave(self, close_policy):  # noqa: ARG002
        """Go."""
        asyncio.get_running_loop().call_soon(lambda: self.drain.closed(self, forced=False))


class Lookout:
    """A trigger of which one per task is enough."""

    name = "lookout"
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

    def __init__(self, environ, triggers, **options) -> None:
        self.process = subprocess.Popen(["sleep", "1000"])
        self.recording = RecordingObserver()
        self.drain = Drain(triggers=triggers, observers=[self.recording], rng=Random(7), **options)
        self.drain.equip(triggers=tuple, observers=tuple)
        self.workers = Workers(self.drain, environ, pid=self.process.pid)
        self.drain.coordinate(self.workers, lambda trigger: LeaderOnly(trigger, self.workers))
        self.drain.begin()

    def seat(self, count: int) -> None:
        """Open *count* sessions."""
        for _ in range(count):
            guest = Guest(self.drain)
            self.drain.enter(guest)
            self.drain.opened(guest)

    def status(self):
        """Return what ``GET /drain`` shows of the agreement."""
        return self.drain.trigger_status()["workers"]

    async def die(self) -> None:
        """Be killed: nothing is tidied up, the kernel gives the locks back."""
        self.process.kill()
        self.process.wait()
        await self.drain.end()

    async def leave(self) -> None:
        """Stop as one does."""
        await self.drain.end()
        self.process.kill()
        self.process.wait()


class Crowd:
    """The workers of one task."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.everyone: list[Worker] = []

    def hire(self, *, environ=None, triggers=(), **options) -> Worker:
        """Start one more."""
        worker = Worker(environ or {}, triggers, **({"workers_dir": str(self.directory)} | options))
        self.everyone.append(worker)
        return worker

    async def dismiss(self) -> None:
        """End them all."""
        for worker in self.everyone:
            await worker.leave()
            with suppress(ProcessLookupError):
                worker.process.kill()


async def soon() -> None:
    """Let pass what all need to hear of an order, and to answer it."""
    await asyncio.sleep(0.6)


def states(crowd):
    """Return the state of every worker."""
    return [worker.drain.state for worker in crowd.everyone]


def deadline(worker):
    """Return when the drain of *worker* ends."""
    return worker.drain.time() + worker.drain.progress().time_left


def hang(worker):
    """Let *worker* do nothing any more, and live; return what lets it go on."""
    look, worker.workers.look = worker.workers.look, lambda: None
    return lambda: setattr(worker.workers, "look", look)
