"""An application with a stream, telemetry that is sent seldom, and, if asked to, a SIGTERM handler of its own."""

import asyncio
import atexit
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sse_starlette.sse import EventSourceResponse
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
    async for text in socket.iter_text():
        await socket.send_text(text)


async def stream(_request: Request) -> EventSourceResponse:
    """Send events for ever."""

    async def events() -> AsyncIterator[dict[str, str]]:
        while True:
            yield {"data": "tick"}
            await asyncio.sleep(0.1)

    return EventSourceResponse(events())


async def pid(_request: Request) -> PlainTextResponse:
    """Tell the process id."""
    return PlainTextResponse(str(os.getpid()))


def handle_sigterm() -> None:
    """Handle SIGTERM, as most blog posts have it."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, print, "the application's own handler")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Install a handler during the startup or after it, as ``APP_HANDLER`` says."""
    if os.environ.get("APP_HANDLER") == "before":
        handle_sigterm()
    if os.environ.get("APP_HANDLER") == "after":
        asyncio.get_running_loop().call_later(0.5, handle_sigterm)
    yield


def send_spans_seldom(path: str) -> None:
    """Export spans to a file: once an hour, and when the interpreter exits, if it does so in good order."""
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class FileExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
                file.writelines(f"{span.name}\n" for span in spans)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(FileExporter(), schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)


if "APP_SPANS" in os.environ:
    send_spans_seldom(os.environ["APP_SPANS"])
atexit.register(print, "atexit was called")

app = Starlette(
    routes=[WebSocketRoute("/ws", websocket), Route("/stream", stream), Route("/pid", pid)],
    middleware=[Middleware(DrainMiddleware)],
    lifespan=lifespan,
)
