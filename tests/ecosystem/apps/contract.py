"""What every server is tried with: endpoints that say in the log what they see."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from starlette_drain import DrainMiddleware

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("contract")


async def websocket(socket: WebSocket) -> None:
    """Echo; say what ended it, and let the end by a drain escape, as most endpoints do with every end."""
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect as disconnect:
        logger.info("endpoint saw %s %r", disconnect.code, disconnect.reason)
        if disconnect.code == 1012:
            raise


async def stream(request: Request) -> StreamingResponse:
    """Send events for ever; say when they end."""

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "data: tick\n\n"
                await asyncio.sleep(0.05)
        finally:
            logger.info("stream of a %s cleaned up", request.url.query or "visitor")

    return StreamingResponse(events(), media_type="text/event-stream")


async def talk(socket: WebSocket) -> None:
    """Send back what comes, close when asked to, say what the client closed with."""
    await socket.accept(subprotocol="a", headers=[(b"x-greeting", b"hello")])
    while (message := await socket.receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await socket.close(4002, "as you wish")
            return
        message = {"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")}
        await socket.send({name: value for name, value in message.items() if value is not None})
    prefix = socket.url.path.removesuffix("/talk")
    logger.info("talk on %r ended with %s %r", prefix, message["code"], message.get("reason"))


async def forbidden(socket: WebSocket) -> None:
    """Let nobody in."""
    await socket.close(4003)


async def greeting(request: Request) -> PlainTextResponse:
    """Answer with what was sent."""
    return PlainTextResponse(f"{request.method} {await request.body()!r}", headers={"X-Greeting": "hello"})


async def pid(_request: Request) -> PlainTextResponse:
    """Tell the process id."""
    return PlainTextResponse(str(os.getpid()))


routes = [
    WebSocketRoute("/ws", websocket),
    WebSocketRoute("/talk", talk),
    WebSocketRoute("/forbidden", forbidden),
    Route("/stream", stream),
    Route("/greeting", greeting, methods=["GET", "POST"]),
    Route("/pid", pid),
]
drained = Starlette(routes=routes, middleware=[Middleware(DrainMiddleware)])
bare = Starlette(routes=[Mount("/bare", routes=routes)])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Be two applications: the same routes with a DrainMiddleware, and below ``/bare`` without one."""
    is_bare = scope.get("path", "").startswith("/bare")
    await (bare if is_bare else drained)(scope, receive, send)
