"""What real clients connect to, and where it is written down what a page in a browser saw, and who was refused."""

import asyncio
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from starlette_drain import Drain, DrainMiddleware
from starlette_drain.telemetry import SessionRefused
from starlette_drain.telemetry.logs import LogObserver

PAGE = """<!doctype html>
<title>clients</title>
<script>
let reports = Promise.resolve()
function report(...words) {
  const send = () => fetch("/report", { method: "POST", body: JSON.stringify(words) })
  reports = reports.then(() => send().catch(send))
}

const who = "Chromium's WebSocket"
function connect() {
  const socket = new WebSocket(`ws://${location.host}/ws/${encodeURIComponent(who)}`)
  socket.onopen = () => socket.send("hello")
  socket.onmessage = () => report(who, "heard")
  socket.onclose = (event) => {
    report(who, "closed", event.code, event.reason)
    setTimeout(connect, 300)
  }
}
connect()

const stream = new EventSource(`/stream/${encodeURIComponent("Chromium's EventSource")}`)
let hears = false
stream.onmessage = () => {
  if (!hears) report("Chromium's EventSource", "heard")
  hears = true
}
stream.onerror = () => {
  report("Chromium's EventSource", stream.readyState === EventSource.CONNECTING ? "comes back" : "gives up")
  hears = false
}
</script>
"""

reports: list[list[object]] = []


class Refusals:
    """Writes down who was turned away: clients bear their names in the path."""

    subscribes = (SessionRefused,)

    def notify(self, event: SessionRefused) -> None:
        """Write down one refusal."""
        reports.append([event.path.rpartition("/")[2], "refused"])

    def flush(self, timeout: float) -> None:
        """Hold nothing."""


async def websocket(socket: WebSocket) -> None:
    """Echo."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


async def stream(_request: Request) -> StreamingResponse:
    """Send events for ever."""

    async def events() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(events(), media_type="text/event-stream")


async def page(_request: Request) -> HTMLResponse:
    """Give a browser its script."""
    return HTMLResponse(PAGE)


async def report(request: Request) -> Response:
    """Write down what a browser saw."""
    reports.append(await request.json())
    return Response(status_code=204)


async def emit(_request: Request) -> JSONResponse:
    """Tell all that was written down."""
    return JSONResponse(reports)


async def pid(_request: Request) -> PlainTextResponse:
    """Tell the process id."""
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[
        WebSocketRoute("/ws/{client}", websocket),
        Route("/stream/{client}", stream),
        Route("/", page),
        Route("/report", report, methods=["POST"]),
        Route("/reports", emit),
        Route("/pid", pid),
    ],
    middleware=[Middleware(DrainMiddleware, drain=Drain(observers=[LogObserver(), Refusals()]))],
)
