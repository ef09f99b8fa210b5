"""Event streams as frameworks make them, and a download."""

import asyncio
import logging
import os
import time

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from starlette_drain import DrainMiddleware

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("streams")


async def events(name, event):
    """Tick for ever."""
    try:
        while True:
            yield event
            await asyncio.sleep(0.1)
    finally:
        logger.info("%s cleaned up", name)


def slow_events():
    """Tick for ever, in a thread."""
    try:
        while True:
            yield "data: x\n\n"
            time.sleep(0.1)
    finally:
        logger.info("sync cleaned up")


async def streaming(_request: Request) -> StreamingResponse:
    """Stream as Starlette does."""
    return StreamingResponse(events("streaming", "id: 1\ndata: x\n\n"), media_type="text/event-stream")


async def sync(_request: Request) -> StreamingResponse:
    """Stream from a generator that blocks."""
    return StreamingResponse(slow_events(), media_type="text/event-stream")


async def sse(_request: Request) -> EventSourceResponse:
    """Stream as sse-starlette does."""
    return EventSourceResponse(events("sse", {"data": "x"}))


async def half(_request: Request) -> StreamingResponse:
    """Stop in the middle of an event."""

    async def parts():
        yield "data: one\n\n"
        yield "id: 2\ndata: tw"
        await asyncio.Event().wait()

    return StreamingResponse(parts(), media_type="text/event-stream")


async def answer(request: Request) -> StreamingResponse:
    """Send events that end by themselves, after as many seconds as asked for."""

    async def tokens():
        for number in range(10 * int(request.query_params["seconds"])):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.1)
        yield "data: [DONE]\n\n"

    return StreamingResponse(tokens(), media_type="text/event-stream")


async def download(_request: Request) -> StreamingResponse:
    """Send something that ends by itself, after six seconds."""

    async def lines():
        for _ in range(60):
            yield "{}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def watch(_request: Request) -> StreamingResponse:
    """Send lines for ever; a session only where that is declared."""
    return StreamingResponse(events("watch", "{}\n"), media_type="application/x-ndjson")


async def pid(_request: Request) -> PlainTextResponse:
    """Tell the process id."""
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[
        *(Route(f"/{each.__name__}", each) for each in (streaming, sync, sse, half, download, watch, pid)),
        Route("/answer", answer, methods=["GET", "POST"]),
    ],
    middleware=[Middleware(DrainMiddleware)],
)
