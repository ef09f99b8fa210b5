"""A reverse proxy for WebSockets: what it serves is another server's, and each side must learn how the other ended."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from common import answering, say, wrapped
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

logger = logging.getLogger("uvicorn.error")


async def upstream(connection: ServerConnection) -> None:
    """Echo, and log how it ended."""
    with suppress(ConnectionClosed):
        async for words in connection:
            await connection.send(words)
    logger.info("upstream saw %s", connection.close_code)


async def proxy(downstream: WebSocket) -> None:
    """Pass everything on, in both directions, and the end too."""
    port = downstream.app.state.port
    async with connect(f"ws://127.0.0.1:{port}", proxy=None) as other:
        await downstream.accept()

        async def forth() -> None:
            while True:
                try:
                    words = await downstream.receive_text()
                except WebSocketDisconnect as end:
                    await other.close(end.code if end.code in {1000, 1001, 1012} else 1000)
                    return
                await other.send(words)

        async def back() -> None:
            try:
                while True:
                    await downstream.send_text(str(await other.recv()))
            except ConnectionClosed as end:
                await downstream.close(end.rcvd.code if end.rcvd else 1011)

        tasks = [asyncio.create_task(forth()), asyncio.create_task(back())]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def behind(site: Starlette) -> AsyncIterator[None]:
    """Run the server that is behind the proxy."""
    async with serve(upstream, "127.0.0.1", 0) as server:
        site.state.port = next(iter(server.sockets)).getsockname()[1]
        yield


def app() -> Any:
    """Serve the proxy."""
    return answering(wrapped(Starlette(routes=[WebSocketRoute("/", proxy)], lifespan=behind)))


async def client(url: str) -> None:
    """Be answered through the proxy, and tell how it ends."""
    async with connect(f"ws{url.removeprefix('http')}/", proxy=None) as socket:
        await socket.send("hello")
        say("greeted", await socket.recv())
        say("ready")
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
        say("closed", socket.close_code)
