"""WebSocket sessions: closed with a close frame if open, with a denial response before that."""

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from starlette_drain._asgi.callables import marked_as_coroutine_function
from starlette_drain._asgi.connection import LATE_SEND_TIME, Connection, ConnectionEnded, retry_after_header
from starlette_drain._core.session import ClosePolicy
from starlette_drain._engine.engine import Engine

__all__ = ["TRY_AGAIN_LATER", "WebSocketSession", "can_deny", "deny", "refuse"]

TRY_AGAIN_LATER = 1013
"""The close code Try Again Later (RFC 6455 section 7.4.1, registered with IANA)."""

ABNORMAL = 1006
"""The close code of a connection that was lost (RFC 6455 section 7.4.1)."""

PRIVATE_CODES = 4000
"""The first close code for private use (RFC 6455 section 7.4.2)."""


class _Disconnected(WebSocketDisconnect, ConnectionEnded):
    """Raised by a send after the disconnect, in an application that is not Starlette's."""

    def __init__(self, connection: Connection, disconnect: Message) -> None:
        super().__init__(disconnect["code"], disconnect["reason"])
        self.connection = connection


def _starlette_disconnect(connection: Connection, disconnect: Message) -> WebSocketDisconnect:
    """
    Return the exception for a Starlette application.

    Starlette converts an `OSError` to a disconnect with code 1006; this one passes through it with our code and reason.
    It is not a subclass, because error trackers recognize a disconnect by the name of its class.
    """
    error = WebSocketDisconnect(disconnect["code"], disconnect["reason"])
    error.connection = connection  # type: ignore[attr-defined]  # read by `is_our_disconnect`
    return error


class WebSocketSession(Connection):
    """
    One WebSocket, tracked from the moment its request arrives.

    Attributes:
        path: The path of the request.
        opened_at: When the request arrived, in seconds on the event loop's clock.
        is_open: Whether it was accepted.
        shed_at: When it was asked to leave, on the same clock; ``None`` if it was not.
    """

    __slots__ = ()

    kind = "websocket"

    def __init__(
        self, engine: Engine, scope: Scope, receive: Receive, send: Send, task: asyncio.Task[object] | None
    ) -> None:
        super().__init__(engine, scope, receive, send, task)
        engine.track(self)

    async def send_text(self, text: str) -> None:
        """Send a text message, for instance from a close hook. Sends nothing if either side has closed."""
        await self._send_message({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message. Sends nothing if either side has closed."""
        await self._send_message({"type": "websocket.send", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send *value* as JSON in a text message."""
        await self.send_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False))

    @marked_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application; after our close it gets an ordinary disconnect."""
        if self._disconnect is not None:
            return self._send_late(message, self._disconnect)
        if message["type"] != "websocket.send":
            return self._send_noting(message)
        if self._engine.notes_activity:
            self.active_at = self._loop.time()
        # Not a coroutine of our own, to add as little as possible to every message.
        return self._raw_send(message)

    def disconnect_message(self, close_policy: ClosePolicy) -> Message:
        """Return the disconnect with the code and reason that the client sees."""
        return {"type": "websocket.disconnect", "code": close_policy.code, "reason": close_policy.reason}

    def next_after_disconnect(self, disconnect: Message) -> Message:
        """Return the disconnect, or first the connect, which every application expects."""
        if not self._last_received:
            self._last_received = "websocket.connect"
            return {"type": self._last_received}
        return disconnect

    async def send_close(self, close_policy: ClosePolicy) -> None:
        """Send the close frame, or answer the handshake with 503."""
        if self.can_send():
            await self._send_close(close_policy)
        elif not self._is_over:
            if not self._last_received:
                await self._raw_receive()  # websocket.connect: servers send nothing before it is received
            await deny(self._raw_send, self._engine.retry_after(), can_deny=can_deny(self._scope))

    async def _send_close(self, close_policy: ClosePolicy) -> None:
        close = {"type": "websocket.close", "code": close_policy.code, "reason": close_policy.reason}
        try:
            await self._raw_send(close)
        except (OSError, RuntimeError, AssertionError):
            raise
        except Exception:
            # daphne uses autobahn, which lets servers send only 1000, which clients take for final, and private codes.
            if close_policy.code >= PRIVATE_CODES:
                raise
            await self._raw_send({**close, "code": PRIVATE_CODES + close_policy.code - 1000})

    async def _send_message(self, message: Message) -> None:
        if self.can_send() and self._disconnect is None:
            with suppress(OSError):  # the client has gone, and the application has not noticed yet
                await self.send(message)
        else:
            await asyncio.sleep(LATE_SEND_TIME)  # an application may call this in a loop

    async def _send_noting(self, message: Message) -> None:
        # In a coroutine, so on the event loop's thread: a framework may call `send` on another one (Channels).
        kind = message["type"]
        if kind == "websocket.accept" and not (self.is_open or self._is_over):
            self._engine.opened(self)
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self.connection_ended(code=message.get("code", 1000) if kind == "websocket.close" else None)
        await self._raw_send(message)

    async def _send_late(self, message: Message, disconnect: Message) -> None:
        self._notice()
        await self._suspend_late_send()
        # Dropping silently would let a loop that only sends run for ever. A close is fine: the session is closing.
        if message["type"] != "websocket.close":
            raise (_starlette_disconnect if self._is_starlette_app() else _Disconnected)(self, disconnect)

    def is_our_disconnect(self, error: BaseException, disconnect: Message) -> bool:
        """Return whether our *disconnect* caused *error*, and not the end of another connection."""
        if not isinstance(error, WebSocketDisconnect):
            return super().is_our_disconnect(error, disconnect)
        if error.code == ABNORMAL and isinstance(error.__context__, OSError):
            # Starlette converts any OSError of a send to this. Our close makes a send that waits in the server fail.
            return getattr(error.__context__, "connection", self) is self
        if (connection := getattr(error, "connection", None)) is not None:
            return connection is self
        # Raised by the application, or by Starlette on its behalf, when it received the disconnect.
        return error.code == disconnect["code"] and error.reason in ("", disconnect["reason"])

    def _is_starlette_app(self) -> bool:
        return isinstance(self._scope.get("app"), Starlette) or isinstance(self._scope.get("router"), Router)


def can_deny(scope: Scope) -> bool:
    """Return whether the server can answer a handshake with an HTTP response (ASGI's denial response extension)."""
    return "websocket.http.response" in (scope.get("extensions") or {})


async def deny(send: Send, retry_after: float, *, can_deny: bool, why: str = "draining") -> None:
    """
    Answer a handshake with 503 and ``Retry-After``.

    Without the denial response extension only a close is possible. Servers turn it into 403, which some clients take
    for final.
    """
    if not can_deny:
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": f"server {why}"})
        return
    body = f"This server is {why}; try again.\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        retry_after_header(retry_after),
        (b"connection", b"close"),
    ]
    await send({"type": "websocket.http.response.start", "status": 503, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
    # uvicorn's default implementation records a denial only when the transport has gone, one pass of the loop later. If
    # the application returns before that, it logs an error for each refused client.
    await asyncio.sleep(0)


async def refuse(engine: Engine, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a late arrival."""
    await receive()  # websocket.connect: servers send nothing before it is received
    engine.refused(WebSocketSession.kind, scope["path"])
    with suppress(OSError):  # the client has gone
        await deny(send, engine.retry_after(), can_deny=can_deny(scope))
