"""What the README promises: an application with one line more, configured by its environment alone."""

import logging
import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from starlette_drain import DrainMiddleware

logging.basicConfig(level=logging.INFO)


async def websocket(socket: WebSocket) -> None:
    """Echo."""
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


async def pid(_request: Request) -> PlainTextResponse:
    """Tell the process id."""
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[WebSocketRoute("/ws", websocket), Route("/pid", pid)],
    middleware=[Middleware(DrainMiddleware)],
)
