"""Endpoints to rehearse: one that leaves well, and some that do not."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from starlette_drain import DrainMiddleware

if path := os.environ.get("SEEN_ENVIRONMENT"):
    Path(path).write_text(json.dumps(dict(os.environ)))

if helper := os.environ.get("HELPER"):
    sys.stdout.write("x" * 200_000 + "\n")
    subprocess.Popen(helper.split(), start_new_session=True)


async def good(socket: WebSocket) -> None:
    """Return when the client has gone, or is to go."""
    await socket.accept()
    async for _ in socket.iter_text():
        pass


async def raises(socket: WebSocket) -> None:
    """Take a disconnect for an error."""
    await good(socket)
    msg = "it has gone"
    raise RuntimeError(msg)


async def works(socket: WebSocket) -> None:
    """Never come to an end."""
    await good(socket)
    await asyncio.sleep(1000)


async def deaf(socket: WebSocket) -> None:
    """Do not receive, and so hear of nothing."""
    await socket.accept()
    await asyncio.sleep(1000)


async def events(_request: Request) -> StreamingResponse:
    """Send for ever."""

    async def endless():
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.5)

    return StreamingResponse(endless(), media_type="text/event-stream")


async def live(url: str, number: int) -> int | None:
    """Be a client that signs in."""
    websocket = await connect(url)
    await websocket.send(f"user {number}")
    try:
        while True:
            await websocket.recv()
    except ConnectionClosed:
        return websocket.close_code


app = Starlette(
    routes=[
        WebSocketRoute("/good/{n}", good),
        WebSocketRoute("/raises/{n}", raises),
        WebSocketRoute("/works/{n}", works),
        WebSocketRoute("/deaf/{n}", deaf),
        Route("/events", events),
        Route("/answer", PlainTextResponse("no stream")),
    ]
)
app.add_middleware(DrainMiddleware)

bare = Starlette(routes=[WebSocketRoute("/good/{n}", good)])
