"""Applications in which DrainMiddleware is not alone: a factory each, for ``uvicorn --factory``."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from starlette_drain import DrainMiddleware

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("neighbours")
DRAIN = Middleware(DrainMiddleware)


async def echo(websocket: WebSocket) -> None:
    """Echo until the client leaves."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def ticks(websocket: WebSocket) -> None:
    """Never listen, and let the disconnect escape."""
    await websocket.accept()
    while True:
        await websocket.send_text("tick")
        await asyncio.sleep(0.02)


async def a_few_ticks() -> AsyncIterator[str]:
    """Tick, and then be still: a stream that is ended while an event is on its way is not told when to come back."""
    for _ in range(5):
        yield "tick"
        await asyncio.sleep(0.02)
    await asyncio.sleep(3600)


async def stream(_request: Request) -> StreamingResponse:
    """Send events, and stay open."""

    async def events() -> AsyncIterator[str]:
        async for tick in a_few_ticks():
            yield f"data: {tick}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def sse(_request: Request) -> EventSourceResponse:
    """Send events, and stay open, by sse-starlette."""

    async def events() -> AsyncIterator[dict[str, Any]]:
        async for tick in a_few_ticks():
            yield {"data": tick}

    return EventSourceResponse(events(), sep="\n")


async def pid(_request: Request) -> PlainTextResponse:
    """Tell the process id."""
    return PlainTextResponse(str(os.getpid()))


ROUTES = [
    WebSocketRoute("/echo", echo),
    WebSocketRoute("/ticks", ticks),
    Route("/stream", stream),
    Route("/sse", sse),
    Route("/pid", pid),
]


class LogSpans(SpanExporter):
    """Writes each span to the log as soon as it ends."""

    def export(self, spans: Any) -> SpanExportResult:
        """Write."""
        span: ReadableSpan
        for span in spans:
            logger.info("span %s: %s", span.name, span.status.status_code.name.lower())
        return SpanExportResult.SUCCESS


def provider() -> TracerProvider:
    """Make a provider whose spans can be read in the log."""
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(LogSpans()))
    return made


def drained(*before: Middleware, after: tuple[Middleware, ...] = ()) -> Starlette:
    """Make an application with our middleware between others."""
    return Starlette(routes=ROUTES, middleware=[*before, DRAIN, *after])


class Stamp(BaseHTTPMiddleware):
    """An ordinary one."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Add a header."""
        response = await call_next(request)
        response.headers["x-stamp"] = "stamped"
        return response


def base_http_outside() -> ASGIApp:
    """Stand inside a BaseHTTPMiddleware."""
    return drained(Middleware(Stamp))


def base_http_inside() -> ASGIApp:
    """Stand around a BaseHTTPMiddleware."""
    return drained(after=(Middleware(Stamp),))


def proxy_headers_outside() -> ASGIApp:
    """Stand inside uvicorn's middleware for proxies."""
    return drained(Middleware(ProxyHeadersMiddleware, trusted_hosts="*"))


def proxy_headers_inside() -> ASGIApp:
    """Stand around uvicorn's middleware for proxies."""
    return drained(after=(Middleware(ProxyHeadersMiddleware, trusted_hosts="*"),))


def otel_outside() -> ASGIApp:
    """Stand inside OpenTelemetry's middleware."""
    return OpenTelemetryMiddleware(drained(), tracer_provider=provider(), exclude_spans=["receive", "send"])


def otel_inside() -> ASGIApp:
    """Stand around OpenTelemetry's middleware."""
    spans = Middleware(OpenTelemetryMiddleware, tracer_provider=provider(), exclude_spans=["receive", "send"])
    return drained(after=(spans,))


def fastapi_telemetry() -> ASGIApp:
    """Be a FastAPI application that traces itself, as it does where there is a global provider."""
    trace.set_tracer_provider(provider())
    app = FastAPI(routes=ROUTES)
    app.add_api_websocket_route("/native", ticks)
    app.add_middleware(DrainMiddleware)
    return app


def mounted() -> ASGIApp:
    """Have everything in a mounted application that knows nothing of drains."""
    sub = Starlette(routes=ROUTES)
    return Starlette(routes=[Route("/pid", pid), Mount("/sub", sub)], middleware=[DRAIN])


def mounted_twice() -> ASGIApp:
    """Have everything in a mounted application that has the middleware too."""
    sub = Starlette(routes=ROUTES, middleware=[DRAIN])
    return Starlette(routes=[Route("/pid", pid), Mount("/sub", sub)], middleware=[DRAIN])
