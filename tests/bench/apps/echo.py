"""What is measured: a small application, bare and watched, and a heart that stumbles when the loop is held up."""

import asyncio
import gc
import os
from contextlib import suppress

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from starlette_drain import DrainMiddleware

BEAT = 0.001


class Heart:
    """Beats every millisecond while it is asked to, and remembers by how much it was late."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._late: list[float] = []

    def start(self) -> None:
        """Begin to beat."""
        self._late = []
        self._task = asyncio.get_running_loop().create_task(self._beat())

    async def stop(self) -> list[float]:
        """Stop; return how late it was each time, in seconds."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        return self._late

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT
            await asyncio.sleep(BEAT)
            self._late.append(max(0.0, loop.time() - due))


heart = Heart()


async def echo(websocket: WebSocket) -> None:
    """Send back every message."""
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())


async def short(_request: Request) -> PlainTextResponse:
    """Answer in a few bytes."""
    return PlainTextResponse("ok")


async def pid(_request: Request) -> PlainTextResponse:
    """Say who answers."""
    return PlainTextResponse(str(os.getpid()))


async def heartbeat(request: Request) -> JSONResponse:
    """``?start``: begin to beat; otherwise stop, and say how late the beats were, the latest ten first (seconds)."""
    if "start" in request.query_params:
        heart.start()
        return JSONResponse([])
    return JSONResponse(sorted(await heart.stop(), reverse=True)[:10])


async def collect(_request: Request) -> JSONResponse:
    """Collect garbage, so that what is resident is in use."""
    return JSONResponse(gc.collect())


def application() -> Starlette:
    """Return the application as it is without us."""
    return Starlette(
        routes=[
            WebSocketRoute("/ws", echo),
            Route("/", short),
            Route("/pid", pid),
            Route("/heartbeat", heartbeat),
            Route("/collect", collect),
        ]
    )


bare = application()
watched = application()
watched.add_middleware(DrainMiddleware)
