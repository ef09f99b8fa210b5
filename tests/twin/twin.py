"""One application and one client, played bare or behind the middleware, in virtual time."""

import asyncio
import gc
import itertools
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

from anyio._backends._asyncio import CancelScope
from drawn_app import Performance, Steps, described
from model_client import HttpClient, WebSocketClient, make_client
from model_server import ModelServer, make_config

from starlette_drain import Drain, DrainMiddleware
from starlette_drain._core.events import DrainStarted, SessionRefused, SessionShed
from starlette_drain.testing import RecordingObserver, VirtualTimeLoop

__all__ = ["Draining", "Played", "Scene", "Stop", "play"]

HORIZON = 200.0
"""Seconds after which a run is over, whatever still waits."""

Seen = tuple[float, str, Any]
"""When, who, what."""

ACTORS = ("app", "client", "server", "lifespan", "loop")
"""Whose traces are compared."""

TOO_BUSY = 3000
"""Passes of the event loop in one second that are no work any more."""


@dataclass(frozen=True)
class Draining:
    """A drain that begins *at* some second, and how it is to go."""

    at: float
    window: float = 10.0
    grace: float = 5.0
    late_arrivals: str = "refuse"


@dataclass(frozen=True)
class Stop:
    """SIGTERM *at* some second, to a server that waits *patience* seconds for its applications."""

    at: float
    patience: int


@dataclass(frozen=True)
class Scene:
    """All that one run needs to know."""

    program: Steps
    client: WebSocketClient | HttpClient
    http: str = "h11"
    websockets: str = "websockets-sansio"
    stop: Stop | None = None
    drain: Draining | None = None


@dataclass
class Played:
    """
    What came of a scene.

    Attributes:
        trace: What was seen of the application, the client and the server's log: when, who, what.
        cancels: Each cancellation of a task of the application's by the package: when, whether the connection was over
            for the application, and what the task was in and those that it waited for.
        deadline: When the drain is to be over.
        shed_at: When the session was asked to leave, or turned away.
        is_refused: Whether it was turned away.
        is_over: Whether nothing more counts.
        ours: What the package logged as an error, and what went wrong in its own tasks.
    """

    trace: list[Seen] = field(default_factory=list)
    cancels: list[tuple[float, bool, list[str]]] = field(default_factory=list)
    deadline: float | None = None
    shed_at: float | None = None
    is_refused: bool = False
    is_over: bool = False
    ours: list[str] = field(default_factory=list)

    def of(self, actor: str) -> list[Seen]:
        """Return what was seen of one of `ACTORS`, in order; the application is an actor with all its tasks."""
        return [(at, who, what) for at, who, what in self.trace if who.startswith(actor)]

    def by_actor(self, until: float = math.inf) -> dict[str, list[Seen]]:
        """Return what was seen of each. In the same moment, the order between two of them means nothing."""
        seen = {actor: [each for each in self.of(actor) if each[0] < until] for actor in ACTORS}
        # What nobody retrieved is told of when the garbage collector comes by.
        seen["loop"] = sorted(((until, *each[1:]) for each in self.of("loop")), key=repr) if until == math.inf else []
        return seen

    def __str__(self) -> str:
        return "\n".join(f"  {at:9.4f} {who:8} {what}" for at, who, what in self.trace)


class TwinLoop(VirtualTimeLoop):
    """A loop that counts its passes, and lets timers that are due together fire in the order they were set in."""

    def __init__(self) -> None:
        super().__init__(start=0.0)
        self.ticks = 0
        self._this_second = (0, 0)
        self._set = 0

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        self._set += 1
        return super().call_at(when + self._set * 1e-10, callback, *args, context=context)

    def _run_once(self) -> None:
        self.ticks += 1
        second, ticks = int(self.time()), self._this_second[1] + 1
        self._this_second = (second, ticks if second == self._this_second[0] else 1)
        if self._this_second[1] == TOO_BUSY:
            self.stop()
        super()._run_once()


class WatchedTask(asyncio.Task[Any]):
    """
    A task that tells who cancels it.

    Task groups keep their tasks in a set and cancel them in its order, so that order must not be luck.
    """

    def __init__(self, coroutine: Any, place: int, watch: Any, **more: Any) -> None:
        self.place, self.watch = place, watch
        super().__init__(coroutine, **more)

    def __hash__(self) -> int:
        return self.place

    def cancel(self, msg: Any = None) -> bool:
        caller = sys._getframe(1).f_globals["__name__"]
        if caller.startswith("starlette_drain.") and not self.done():
            self.watch(self)
        return super().cancel(msg)


class OrderedSet(dict[Any, None]):
    """A set that is walked through in the order in which it was filled."""

    def add(self, each: Any) -> None:
        self[each] = None

    def remove(self, each: Any) -> None:
        del self[each]

    def discard(self, each: Any) -> None:
        self.pop(each, None)


_make_scope = CancelScope.__init__


def _make_ordered_scope(scope: CancelScope, *args: Any, **more: Any) -> None:
    """Make a cancel scope of anyio's, which would cancel the scopes inside it in the order of their addresses: luck."""
    _make_scope(scope, *args, **more)
    scope._child_scopes = OrderedSet()


class _Log(logging.Handler):
    """Notes what uvicorn logs, and what the package logs as an error."""

    def __init__(self, note: Any, ours: list[str]) -> None:
        super().__init__()
        self.note, self.ours = note, ours

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.name.startswith("starlette_drain"):
            if record.levelno >= logging.ERROR:
                self.ours.append(f"{record.getMessage()} {error!r}")
        else:
            who = "lifespan" if "pplication s" in record.getMessage() else "server"
            self.note(who, record.levelname, record.getMessage().strip(), described(error))


@contextmanager
def logged(note: Any, ours: list[str]) -> Iterator[None]:
    """Note inside the block what is logged."""
    handler = _Log(note, ours)
    loggers = [logging.getLogger("uvicorn.error"), logging.getLogger("starlette_drain")]
    before = [(each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
        each.propagate = False
    try:
        yield
    finally:
        for each, (level, propagate) in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)
            each.propagate = propagate


def play(scene: Scene, *, wrapped: bool, until: float = HORIZON) -> Played:
    """Play *scene* until some second; bare, there is no drain."""
    played = Played()
    loop = TwinLoop()

    def note(who: str, *what: Any) -> None:
        if not played.is_over:
            played.trace.append((round(loop.time(), 4), who, what))

    app = Performance(scene.program, note, lambda: loop.ticks)

    _equip(loop, app, note, played)
    recording = RecordingObserver()
    # When the garbage collector runs is luck, and what nobody retrieved is told of when it does: let it run once, at
    # the end, and look at nothing but what the run has left.
    gc.disable()
    gc.freeze()
    try:
        with logged(note, played.ours), patch.object(CancelScope, "__init__", _make_ordered_scope):
            drain = _make_drain(scene, recording) if wrapped else None
            try:
                loop.run_until_complete(_play(scene, app, note, drain, until))
            except RuntimeError:  # the loop was stopped
                note("loop", "is too busy")
    finally:
        played.is_over = True
        app.spins = True  # every further step of the program ends it
        _clean_up(loop)
        gc.collect()
        gc.unfreeze()
        gc.enable()
    for event in recording.events:
        match event:
            case DrainStarted():
                played.deadline = event.deadline
            case SessionShed() | SessionRefused():
                played.shed_at = round(event.at, 4)
                played.is_refused = isinstance(event, SessionRefused)
    return played


def _equip(loop: TwinLoop, app: Performance, note: Any, played: Played) -> None:
    """Let *loop* tell of cancellations by the package, and of errors that nobody retrieves."""

    def watch(task: asyncio.Task[Any]) -> None:
        if task in app.tasks:
            _, who = app.calling.get(task, (None, "app"))
            # What it spawned (``+``) is not its own any more; what it waits for is.
            awaited = [each for each, name in app.calling.values() if name.startswith(who) and "+" not in name]
            played.cancels.append((round(loop.time(), 4), app.is_over, awaited))

    made = itertools.count()

    def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> WatchedTask:
        is_apps = asyncio.current_task(loop) in app.tasks
        return WatchedTask(coroutine, next(made) if is_apps else -2, watch, loop=loop, **more)

    def unhandled(_: Any, context: dict[str, Any]) -> None:
        coroutine = getattr(context.get("task") or context.get("future"), "get_coro", lambda: None)()
        if "starlette_drain" in getattr(getattr(coroutine, "cr_code", None), "co_filename", ""):
            played.ours.append(str(context))
        else:
            note("loop", context["message"].partition(":")[0], described(context.get("exception")))

    loop.set_task_factory(make_task)
    loop.set_exception_handler(unhandled)


def _make_drain(scene: Scene, recording: RecordingObserver) -> Drain:
    wish = scene.drain or Draining(0.0)
    return Drain(
        triggers=(),
        observers=[recording],
        rng=Random(0),
        window=wish.window,
        grace=wish.grace,
        late_arrivals=wish.late_arrivals,
    )


async def _play(scene: Scene, app: Performance, note: Any, drain: Drain | None, until: float) -> None:
    loop = asyncio.get_running_loop()
    served = app if drain is None else DrainMiddleware(app, drain=drain)
    server = ModelServer(make_config(served, scene.http, scene.websockets, scene.stop.patience if scene.stop else None))
    await server.begin()
    client = make_client(scene.client, lambda *what: note("client", *what))
    tasks: list[asyncio.Task[Any]] = []

    def stop() -> None:
        note("server", "is told to stop")
        tasks.append(loop.create_task(server.shutdown()))

    if drain and scene.drain:
        loop.call_at(scene.drain.at, lambda: tasks.append(loop.create_task(drain.start())))
    if scene.stop:
        loop.call_at(scene.stop.at, stop)
    server.connect(client)
    await asyncio.sleep(until - loop.time())
    gc.collect()
    note("client", "is gone" if client.is_over.is_set() else "is still there")
    note("server", "waits for", len(server.server_state.tasks), "tasks", len(server.server_state.connections))
    if scene.stop:
        note("server", "has stopped" if tasks[-1].done() else "has not stopped")
    if drain:
        note("drain", "counts", drain.statistics().open)


def _clean_up(loop: TwinLoop) -> None:
    """Let go of what still waits: the run is over, and what is said of it now is no part of it."""
    loop.set_exception_handler(lambda *_: None)
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.disabled = True
    try:
        for _ in range(3):
            for task in asyncio.all_tasks(loop):
                task.cancel()
            for _ in range(20):
                loop.call_soon(loop.stop)
                loop.run_forever()
    finally:
        uvicorn.disabled = False
        loop.close()
