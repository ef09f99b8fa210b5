"""What was tried first: after SIGTERM every session sleeps for a random time, then closes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from types import FrameType

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from example_app.rollout.scenarios.base import Scenario, plain_app

__all__ = ["SEED", "app"]

SEED = Scenario(
    name="seed",
    title="A random sleep after SIGTERM: the balancer cuts before most of them end",
    app=f"{__name__}:app",
)

SHARE = 0.8
"""How much of stopTimeout the sleeps may take."""

RESTART = 1012


class Sleepers:
    """All sessions; ASGI middleware."""

    def __init__(self, app: ASGIApp, *, window: float, rng: Random) -> None:
        self._app = app
        self._window = window
        self._rng = rng
        self._sends: set[Send] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Remember how to send to each session."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        self._sends.add(send)
        try:
            await self._app(scope, receive, send)
        finally:
            self._sends.discard(send)

    def begin(self, then: Callable[[], object]) -> None:
        """Let every session close after its own sleep, and call *then* when the last must have."""
        loop = asyncio.get_running_loop()
        for send in self._sends:
            loop.call_later(self._window * self._rng.random(), self._close, send)
        loop.call_later(self._window, then)

    def _close(self, send: Send) -> None:
        if send in self._sends:
            message: Message = {"type": "websocket.close", "code": RESTART}
            task = asyncio.ensure_future(send(message))
            self._closing.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        task.exception()  # the client had gone


def app() -> ASGIApp:
    """Make the application: it stands between SIGTERM and uvicorn by hand."""
    window = SHARE * float(os.environ["ROLLOUT_STOP_TIMEOUT"])

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        former = signal.getsignal(signal.SIGTERM)

        def stop() -> None:
            if callable(former):
                former(signal.SIGTERM, None)

        def on_sigterm(_number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(sleepers.begin, stop)

        signal.signal(signal.SIGTERM, on_sigterm)
        yield

    sleepers = Sleepers(plain_app(lifespan), window=window, rng=Random())
    return sleepers
