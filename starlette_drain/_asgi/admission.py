# Only handshakes that will become sessions may be held: WebSockets, and streams that are sessions by their path or by
# their client's request. Everything else passes: health checks, the admin route, ordinary requests, answers. So does
# everything that a drain refuses: late arrivals have their own rules.
#
# How a handshake is refused depends on its kind:
#
#   WebSocket                               503 with `Retry-After`; with ":close" an accept and 1013. Many clients reset
#                                           their backoff when a connection opens, so that is not the default
#   stream declared to end cleanly          200, `retry:` and the end: an EventSource gives up after any other status
#   other streams                           503 with `Retry-After`: a clean end would look like a complete answer
#
# The 200 must pass CORS, which the application handles for its own answers. It has no content, so any origin may read
# it.
"""Applies the limit on handshakes in progress: which are held, and how one is refused."""

from contextlib import suppress

from starlette.types import Receive, Scope, Send

from starlette_drain._asgi.connection import retry_after_header
from starlette_drain._asgi.http import EventStreamSession, asks_for_events
from starlette_drain._asgi.websocket import TRY_AGAIN_LATER, WebSocketSession, can_deny, deny
from starlette_drain._engine.engine import Engine

__all__ = ["begin", "let_in"]

BUSY = "busy"


async def let_in(engine: Engine, scope: Scope, receive: Receive, send: Send) -> bool:
    """Wait for a place for a connection; return whether it may go on to the application. If not, it is refused."""
    admission = engine.admission
    if admission is None or not _may_hold(engine, scope) or not engine.admits() or admission.enter():
        return True
    has_place = await admission.wait()
    if not engine.admits():  # a drain has begun while it waited
        admission.leave()
        return True
    if not has_place:
        with suppress(OSError):  # the client has gone
            await _refuse(engine, scope, receive, send, closes=admission.policy.closes)
    return has_place


def begin(engine: Engine, connection: WebSocketSession | EventStreamSession) -> None:
    """Begin the set-up of *connection*, if `let_in` has taken a place for it."""
    is_counted = engine.admission is not None and engine.admission.begin(connection)
    if is_counted and isinstance(connection, EventStreamSession):
        connection.prepare()  # so that its head or its end is tracked


def _may_hold(engine: Engine, scope: Scope) -> bool:
    if scope["type"] == "websocket":
        return True
    declared = engine.streams.find(scope["path"]) if engine.streams is not None else None
    return declared.kind == "session" if declared is not None else asks_for_events(scope)


async def _refuse(engine: Engine, scope: Scope, receive: Receive, send: Send, *, closes: bool) -> None:
    kind = WebSocketSession.kind if scope["type"] == "websocket" else "event-stream"
    retry_after = engine.turned_away(kind, scope["path"])
    if kind == "event-stream":
        await _end_stream(engine, scope, send, retry_after)
        return
    await receive()  # websocket.connect: servers send nothing before it is received
    if closes:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": f"server {BUSY}"})
    else:
        await deny(send, retry_after, can_deny=can_deny(scope), why=BUSY)


async def _end_stream(engine: Engine, scope: Scope, send: Send, retry_after: float) -> None:
    declared = engine.streams.find(scope["path"]) if engine.streams is not None else None
    headers = [(b"cache-control", b"no-store")]
    if str(scope.get("http_version", "1.1")).startswith("1"):
        headers.append((b"connection", b"close"))
    if declared is not None and declared.end == "clean":
        status, body = 200, f"retry: {round(retry_after * 1000)}\n".encode()
        headers.append((b"content-type", b"text/event-stream"))
        headers += [
            each
            for name, value in scope.get("headers", ())
            if name.lower() == b"origin"
            for each in (
                (b"access-control-allow-origin", value),
                (b"access-control-allow-credentials", b"true"),
                (b"vary", b"origin"),
            )
        ]
    else:
        status, body = 503, f"This server is {BUSY}; try again.\n".encode()
        headers += [(b"content-type", b"text/plain; charset=utf-8"), retry_after_header(retry_after)]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
