"""Endpoints that are at work after the end of their connection, each for longer than the grace of the tests."""

import asyncio
import os
import sys

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from starlette_drain import DrainMiddleware


async def save(path: str) -> None:
    """Save something, which takes time."""
    try:
        await asyncio.sleep(8)
        sys.stdout.write(f"SAVED {path}\n")
    except BaseException as error:
        sys.stdout.write(f"LOST {path} {error!r}\n")
        raise


async def closes(websocket: WebSocket) -> None:
    """Close first, and then save."""
    await websocket.accept()
    await websocket.receive_text()
    await websocket.close(1000)
    await save("closes")


async def left(websocket: WebSocket) -> None:
    """Save when the other side has ended the connection, whichever that is."""
    await websocket.accept()
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        await save(websocket.path_params["name"])


async def denies(scope: Scope, receive: Receive, send: Send) -> None:
    """Turn the client away, and then save."""
    await receive()
    await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})
    await save("denies")


async def routes(scope: Scope, receive: Receive, send: Send) -> None:
    """Leave one path to a bare ASGI application."""
    await (denies if scope["path"] == "/denies" else app)(scope, receive, send)


async def pid(_request: Request) -> PlainTextResponse:
    """Say who answers."""
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[Route("/pid", pid), WebSocketRoute("/closes", closes), WebSocketRoute("/left/{name}", left)],
)
wrapped = DrainMiddleware(routes)
