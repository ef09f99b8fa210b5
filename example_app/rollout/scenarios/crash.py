"""One task is killed, without a drain: its clients come to the others at once, and each asks the database."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from example_app.rollout.scenarios.base import Scenario, Strike
from example_app.server import connect, health
from starlette_drain import DrainMiddleware

__all__ = ["CRASHES", "app", "struck"]

QUERY = 0.02
"""Seconds that the database takes for one handshake."""

POOL = 20
"""Connections to it, for each task."""

LOOK_EVERY = 0.01
"""Seconds between two looks at how late the event loop is."""

TITLES = {
    "crash": "One task is killed: its clients come to the others at once",
    "crash-admission": "The same with admission=“auto”: handshakes in progress are limited",
    "crash-slow": "The same with a database that gets slower the more it is asked",
    "crash-slow-admission": "That database, with admission=“auto”",
}


def struck(name: str, title: str, strike: Strike) -> Scenario:
    """Make a scenario of tasks that ask the database; with the limit where its *name* says so."""
    environment = {"DRAIN_ADMISSION": "auto"} if name.endswith("admission") else {}
    if "slow" in name:
        environment["ROLLOUT_DATABASE"] = "slow"
    return Scenario(
        name=name,
        title=title,
        app=f"{__name__}:app",
        drains="DRAIN_ADMISSION" in environment,
        strike=strike,
        environment=environment,
    )


CRASHES = tuple(struck(name, title, Strike(lambda _: 1)) for name, title in TITLES.items())
"""Without and with a limit on the handshakes in progress."""


class Database:
    """Twenty milliseconds for each question: twenty at a time, or slower the more there are."""

    def __init__(self, *, is_slow: bool) -> None:
        self._pool = None if is_slow else asyncio.Semaphore(POOL)
        self._asked = 0

    async def ask(self) -> None:
        """Ask one question."""
        if self._pool is not None:
            async with self._pool:
                await asyncio.sleep(QUERY)
            return
        self._asked += 1
        try:
            await asyncio.sleep(QUERY * max(1.0, self._asked / POOL) ** 2)
        finally:
            self._asked -= 1


class Watch:
    """What the task notes of itself: how late its event loop is, and how long each handshake takes."""

    def __init__(self) -> None:
        self.stall = self.busy = self.collection = 0.0
        self.set_ups: list[float] = []
        self._collects = 0.0
        gc.callbacks.append(self._note_collection)

    async def look(self) -> None:
        """Look how late the event loop is, for ever."""
        while True:
            before, cpu = time.monotonic(), time.thread_time()
            await asyncio.sleep(LOOK_EVERY)
            self.stall = max(self.stall, time.monotonic() - before - LOOK_EVERY)
            self.busy = max(self.busy, time.thread_time() - cpu)

    def _note_collection(self, phase: str, _about: object) -> None:
        if phase == "start":
            self._collects = time.thread_time()
        else:
            self.collection = max(self.collection, time.thread_time() - self._collects)

    async def show(self, _request: Request) -> Response:
        """Show it, and begin anew."""
        shown = {"stall": self.stall, "busy": self.busy, "collection": self.collection, "set_ups": self.set_ups}
        self.stall = self.busy = self.collection = 0.0
        self.set_ups = []
        return JSONResponse(shown)


def app() -> Starlette:
    """Make the application."""
    watch, database = Watch(), Database(is_slow=os.environ.get("ROLLOUT_DATABASE") == "slow")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(watch.look())
        yield
        looking.cancel()

    async def serve(websocket: WebSocket) -> None:
        began = time.monotonic()
        await database.ask()
        watch.set_ups.append(time.monotonic() - began)
        await connect(websocket)

    application = Starlette(
        routes=[Route("/healthz", health), Route("/watch", watch.show), WebSocketRoute("/devices/{device_id}", serve)],
        middleware=[Middleware(DrainMiddleware)],
        lifespan=lifespan,
    )
    application.state.devices = {}
    return application
