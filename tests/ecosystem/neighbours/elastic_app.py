"""
Elastic APM around us, capturing bodies: it must see what it sees without us.

Its ``receive`` then returns the same request again and again and never a disconnect, which must not keep us busy.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
from common import add_middleware, answering, say
from elasticapm.contrib.starlette import ElasticAPM, make_apm_client
from elasticapm.transport.base import Transport
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

logger = logging.getLogger("uvicorn.error")


class Log(Transport):
    """Writes what would be sent to the server's log."""

    def queue(self, event_type: str, data: dict[str, Any], flush: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Write it."""
        if event_type == "error":
            logger.info("elastic saw error %s", data["exception"]["type"])
        if event_type == "transaction":
            logger.info("elastic saw transaction %s: %s", data["name"], data["result"])


def app() -> Any:
    """Serve an endpoint that fails, an answer, and a session."""
    site = FastAPI()

    @site.get("/wrong")
    async def wrong() -> None:
        raise BufferError

    @site.post("/answer")
    async def answer(request: Request) -> StreamingResponse:
        many = (await request.json())["many"]

        async def ticks() -> AsyncIterator[str]:
            for _ in range(many):
                yield "tick\n"
                await asyncio.sleep(0.1)

        return StreamingResponse(ticks(), media_type="text/plain")

    @site.get("/stream")
    async def stream() -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            while True:
                yield "data: tick\n\n"
                await asyncio.sleep(0.1)

        return StreamingResponse(ticks(), media_type="text/event-stream")

    settings = {"SERVICE_NAME": "neighbours", "CAPTURE_BODY": "all", "TRANSPORT_CLASS": f"{__name__}.Log"}
    apm = make_apm_client({**settings, "CENTRAL_CONFIG": False, "METRICS_INTERVAL": "0s", "CLOUD_PROVIDER": False})
    add_middleware(site)
    site.add_middleware(ElasticAPM, client=apm)
    return answering(site)


async def client(url: str) -> None:
    """Fail once, then wait for the end of an answer and of a session."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        say("wrong", (await browser.get(f"{url}/wrong")).status_code)
    hearing = asyncio.Semaphore(0)
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as browser:

        async def read(method: str, path: str, **request: Any) -> None:
            heard, end = 0, "complete"
            try:
                async with browser.stream(method, path, **request) as response:
                    async for line in response.aiter_lines():
                        heard += line.endswith("tick")
                        if heard == 2:
                            hearing.release()
            except httpx.TransportError as error:
                end = type(error).__name__
            say(path, heard if path == "/answer" else "heard", end)

        reading = [
            asyncio.create_task(read("POST", "/answer", json={"many": 25})),
            asyncio.create_task(read("GET", "/stream", headers={"Accept": "text/event-stream"})),
        ]
        for _ in reading:
            await hearing.acquire()
        say("ready")
        await asyncio.gather(*reading)
