"""
The public API, used as applications use it: `make types` checks this file, and no test runs it.

mypy and pyright check it, both strictly. A line that must be an error says so in a comment for each of them; when it is
no longer one, they complain about the comment.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Literal, assert_type

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocket

from starlette_drain import (
    BatchPacing,
    Control,
    Drain,
    DrainCause,
    DrainEnded,
    DrainError,
    DrainMiddleware,
    DrainProgress,
    DrainReport,
    DrainState,
    EvenPacing,
    EventStreamSession,
    Observer,
    Pacing,
    RateCapPacing,
    RegistryStatistics,
    Session,
    Settings,
    Trigger,
    WebSocketSession,
    session_of,
)
from starlette_drain.telemetry import Event, SessionShed
from starlette_drain.testing import FakeAWS, ManualTrigger, RecordingObserver, VirtualTimeLoop

# The installation: with and without options, by argument and by object


starlette = Starlette(middleware=[Middleware(DrainMiddleware), Middleware(DrainMiddleware, window=240)])
starlette.add_middleware(DrainMiddleware)
starlette.add_middleware(DrainMiddleware, window=240, close_code=1012)
starlette.add_middleware(DrainMiddleware, streams={"/watch/*": "session", "/feed": "session:cut"})
starlette.add_middleware(DrainMiddleware, streams="/watch/*=session, /feed=session:cut")

fastapi = FastAPI()
fastapi.add_middleware(DrainMiddleware)
fastapi.add_middleware(DrainMiddleware, drain=Drain())

wrapped = DrainMiddleware(starlette, pacing="fleet:500", admin_path="/internal/drain")

drain = Drain(
    window=240,
    margin=5,
    pacing=EvenPacing(),
    late_arrivals="refuse",
    close_code=1012,
    grace=10,
    shed_first="oldest",
    target_group_arn=("arn:a", "arn:b"),
    sources=("target-health", "task-state"),
    rng=Random(7),
)

Drain(windw=240)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
Drain(window="240")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Drain(late_arrivals="perhaps")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
DrainMiddleware(starlette, windw=240)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


# A drain by hand, and what it tells


async def drain_by_hand() -> None:
    """Start, look, cancel, wait."""
    try:
        assert_type(await drain.start(), bool)
        await drain.start(window=60, reason="a new node", age=3.5)
    except DrainEnded:
        return
    assert_type(drain.state, DrainState)
    assert_type(drain.settings.grace, float)
    assert_type(Settings.load({}, {}).poll_interval, float)
    assert_type(drain.statistics(), RegistryStatistics)
    assert_type(drain.progress(), DrainProgress | None)
    assert_type(await drain.wait_drained(), bool)
    if (report := drain.report) is not None:
        assert_type(report, DrainReport)
        assert_type(report.outcome, Literal["drained", "late", "incomplete", "cancelled"])
    try:
        await drain.cancel()
    except DrainError as error:
        assert_type(str(error), str)
    async with drain.run():
        pass


# Close hooks: for one kind of session, and for any


@drain.before_close
async def say_goodbye(session: WebSocketSession) -> None:
    """Say in the application's own words that the session ends."""
    await session.send_json({"type": "reconnect"})
    await session.send_text("bye")


@drain.before_close
async def note(session: Session) -> None:
    """See every session, whatever its kind."""
    assert_type(session.path, str)


# Sessions


async def commands(websocket: WebSocket) -> None:
    """Hold the session while an update is half way."""
    session = session_of(websocket)
    assert_type(session, WebSocketSession)
    async with session.hold():
        await websocket.send_text("half")
    await session.wait_shed()


async def prices(request: Request) -> StreamingResponse:
    """Find the session of an event stream, before its response and in it, and say what it is."""
    session_of(request).declare("session", end="cut")
    session_of(request).declare("answer")
    either = session_of(request.scope)
    assert_type(either, WebSocketSession | EventStreamSession)

    async def events() -> AsyncIterator[str]:
        session = session_of(request)
        assert_type(session, EventStreamSession)
        async with session.hold():
            yield "data: 1\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


# What is made to be extended: a class of the user's own satisfies each protocol


@dataclass(frozen=True)
class Hurried:
    """A pacing strategy."""

    interval: float = 0.0

    def rate(self, remaining: float, time_left: float) -> float:
        """Go twice as fast as there is need to."""
        return 2 * remaining / time_left

    def describe(self, remaining: float, time_left: float) -> str:
        """Say so."""
        return f"hurriedly, {self.rate(remaining, time_left):.3g} sessions/s"


class Counter:
    """An observer."""

    subscribes = (SessionShed,)

    def __init__(self) -> None:
        self.shed = 0

    def notify(self, event: Event) -> None:
        """Count the sessions that were asked to leave."""
        if isinstance(event, SessionShed):
            self.shed += 1


class Plug:
    """A trigger."""

    name = "plug"
    once_per_task = True

    async def watch(self, control: Control) -> None:
        """Want a drain at once, and then no more."""
        control.note_window(240.0)
        control.note_fleet(1, 3, counted=False)
        control.claim(DrainCause(self.name, "pulled", control.time(), None))
        assert_type(control.withdraw(self.name), bool)
        assert_type(await control.wait_drained(), bool)

    async def before_exit(self) -> None:
        """Have nothing to do."""

    def status(self, now: float) -> dict[str, float]:
        """Return what the admin route shows."""
        return {"pulled": now}


pacings: list[Pacing] = [EvenPacing(), RateCapPacing(limit=50), BatchPacing(interval=2), Hurried()]
observers: list[Observer] = [Counter(), RecordingObserver()]
triggers: list[Trigger] = [Plug(), ManualTrigger("maintenance")]
Drain(pacing=Hurried(), observers=observers, triggers=triggers)


# Support for tests


def support_for_tests() -> None:
    """Stand in for AWS, fire by hand, look at the events."""
    fake = FakeAWS()
    task = fake.add_task(fake.add_service("web", delay=30))
    with fake.serve() as endpoint:
        assert_type(endpoint.environment(task), dict[str, str])
        fake.deactivate(task)
    ManualTrigger().fire("disk full", window=0)
    assert_type(RecordingObserver().of(SessionShed), list[SessionShed])
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert_type(runner.run(Drain().wait_drained()), bool)
