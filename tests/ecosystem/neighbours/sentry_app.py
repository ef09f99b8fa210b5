"""sentry-sdk: it must see what it would see without the middleware, whoever ends the connection."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import sentry_sdk
from common import answering, say, wrapped
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

logger = logging.getLogger("uvicorn.error")


class Log(Transport):
    """Writes what would be sent to the server's log."""

    def capture_envelope(self, envelope: Envelope) -> None:
        """Write the errors and the transactions."""
        for item in envelope.items:
            event = item.payload.json or {}
            for error in event.get("exception", {}).get("values", []):
                logger.info("sentry saw error %s in %s", error["type"], event.get("transaction"))
            if event.get("type") == "transaction":
                status = event["contexts"]["trace"].get("status")
                logger.info("sentry saw transaction %s: %s", event["transaction"], status)


def app() -> Any:  # noqa: C901 - a list of endpoints
    """Serve sessions that end well, that let the disconnect escape, and endpoints that fail."""
    sentry_sdk.init("http://key@127.0.0.1:9/1", transport=Log, traces_sample_rate=1.0)
    site = FastAPI()

    @site.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        async for words in socket.iter_text():
            await socket.send_text(words)

    @site.websocket("/listens")
    async def listens(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    @site.websocket("/sends")
    async def sends(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text("hello")
            await asyncio.sleep(0.02)

    @site.websocket("/cleans")
    async def cleans(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        finally:
            raise LookupError

    @site.websocket("/fails")
    async def fails(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        raise ArithmeticError

    @site.get("/wrong")
    async def wrong() -> None:
        raise BufferError

    @site.get("/stream")
    async def stream() -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            while True:
                yield "data: tick\n\n"
                await asyncio.sleep(0.1)

        return StreamingResponse(ticks(), media_type="text/event-stream")

    return answering(wrapped(site))


async def client(url: str) -> None:
    """Fail twice, then open one session of each kind, and tell how it ends."""
    hearing = asyncio.Semaphore(0)

    async def follow_socket(name: str) -> None:
        async with connect(f"ws{url.removeprefix('http')}/{name}", proxy=None) as socket:
            await socket.send("hello")
            await socket.recv()
            hearing.release()
            with suppress(ConnectionClosed):
                async for _ in socket:
                    pass
            say(name, "closed", socket.close_code)

    async def follow_stream() -> None:
        end = "complete"
        try:
            async with (
                httpx.AsyncClient(timeout=20) as browser,
                browser.stream("GET", f"{url}/stream", headers={"Accept": "text/event-stream"}) as events,
            ):
                lines = events.aiter_lines()
                await anext(lines)
                hearing.release()
                async for _ in lines:
                    pass
        except httpx.TransportError as error:
            end = type(error).__name__
        say("stream", "ended", end)

    async with httpx.AsyncClient(trust_env=False) as browser:
        say("wrong", (await browser.get(f"{url}/wrong")).status_code)
    await follow_socket("fails")
    following = [asyncio.create_task(follow_socket(name)) for name in ("echo", "listens", "sends", "cleans")]
    following.append(asyncio.create_task(follow_stream()))
    for _ in range(len(following) + 1):
        await hearing.acquire()
    say("ready")
    await asyncio.gather(*following)
