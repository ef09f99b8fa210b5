"""WebSocket sessions: closed with a close frame once open, with a denial response before."""

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
"""The close code that says so (RFC 6455 section 7.4.1, as registered with IANA)."""

ABNORMAL = 1006
"""The close code of a connection that was lost (RFC 6455 section 7.4.1)."""

PRIVATE_CODES = 4000
"""Where the close codes begin that mean what an application says (RFC 6455 section 7.4.2)."""


class _Parted(WebSocketDisconnect, ConnectionEnded):
    """What a send meets after the disconnect, in an application that is not Starlette's."""

    def __init__(self, connection: Connection, disconnect: Message) -> None:
        super().__init__(disconnect["code"], disconnect["reason"])
        self.connection = connection


def _parted_for_starlette(connection: Connection, disconnect: Message) -> WebSocketDisconnect:
    """
    Return what it meets in one of Starlette's.

    Starlette would make a disconnect with code 1006 of an `OSError`; this passes through it with our code and reason.
    Not a class of our own: error trackers know a disconnect by the name of its class.
    """
    error = WebSocketDisconnect(disconnect["code"], disconnect["reason"])
    error.connection = connection  # type: ignore[attr-defined]  # for when it comes back to us
    return error


class WebSocketSession(Connection):
    """
    One WebSocket, tracked from the moment its request arrives.

    Attributes:
        path: The path of its request.
        opened_at: When its request arrived, in seconds on the event loop's clock.
        is_open: Whether it was accepted.
        shed_at: When it was asked to leave; ``None`` if it was not.
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
        await self._say({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message. Sends nothing if either side has closed."""
        await self._say({"type": "websocket.send", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send *value* as JSON in a text message."""
        await self.send_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False))

    @marked_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application; once parted, it meets an ordinary disconnect."""
        if self._disconnect is not None:
            return self._send_parted(message, self._disconnect)
        if message["type"] != "websocket.send":
            return self._send_noting(message)
        if self._engine.notes_activity:
            self.active_at = self._loop.time()
        # Not a coroutine of our own: the message path holds nothing that is not needed there.
        return self._raw_send(message)

    def disconnect_message(self, close_policy: ClosePolicy) -> Message:
        """Return the disconnect with the code and reason that the client sees."""
        return {"type": "websocket.disconnect", "code": close_policy.code, "reason": close_policy.reason}

    def receive_parted(self, disconnect: Message) -> Message:
        """Return the disconnect; before it the connect, which every application expects first."""
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
                await self._raw_receive()  # websocket.connect: servers answer nothing before it was taken
            await deny(self._raw_send, self._engine.retry_after(), can_deny=can_deny(self._scope))

    async def _send_close(self, close_policy: ClosePolicy) -> None:
        close = {"type": "websocket.close", "code": close_policy.code, "reason": close_policy.reason}
        try:
            await self._raw_send(close)
        except (OSError, RuntimeError, AssertionError):
            raise
        except Exception:
            # daphne stands on autobahn, which lets servers send 1000, which clients take for final, and private codes.
            if close_policy.code >= PRIVATE_CODES:
                raise
            await self._raw_send({**close, "code": PRIVATE_CODES + close_policy.code - 1000})

    async def _say(self, message: Message) -> None:
        if self.can_send() and self._disconnect is None:
            with suppress(OSError):  # the client has gone, and the application has not noticed yet
                await self.send(message)
        else:
            await asyncio.sleep(LATE_SEND_TIME)  # nothing that may be called in a loop returns without suspending

    async def _send_noting(self, message: Message) -> None:
        # Here we are on the event loop's thread; a framework may have called `send` on another (Channels).
        kind = message["type"]
        if kind == "websocket.accept" and not (self.is_open or self._is_over):
            self._engine.opened(self)
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self.connection_ended(code=message.get("code", 1000) if kind == "websocket.close" else None)
        await self._raw_send(message)

    async def _send_parted(self, message: Message, disconnect: Message) -> None:
        self._notice()
        await self._suspend_late_send()
        # Never drop silently: a loop that only sends would go on for ever. A close is what everybody wants.
        if message["type"] != "websocket.close":
            raise (_parted_for_starlette if self._is_starlettes() else _Parted)(self, disconnect)

    def is_our_disconnect(self, error: BaseException, disconnect: Message) -> bool:
        """Tell whether *error* is what became of our *disconnect*, and not of that of another connection."""
        if not isinstance(error, WebSocketDisconnect):
            return super().is_our_disconnect(error, disconnect)
        if error.code == ABNORMAL and isinstance(error.__context__, OSError):
            # What Starlette makes of any OSError of a send; the close that we sent ends one that waits at the server.
            return getattr(error.__context__, "connection", self) is self
        if (connection := getattr(error, "connection", None)) is not None:
            return connection is self
        # Raised by the application, or for it by Starlette, when it received the disconnect.
        return error.code == disconnect["code"] and error.reason in ("", disconnect["reason"])

    def _is_starlettes(self) -> bool:
        return isinstance(self._scope.get("app"), Starlette) or isinstance(self._scope.get("router"), Router)


def can_deny(scope: Scope) -> bool:
    """Tell whether the server can answer a handshake with a response of our choice (ASGI's denial extension)."""
    return "websocket.http.response" in (scope.get("extensions") or {})


async def deny(send: Send, retry_after: float, *, can_deny: bool, why: str = "draining") -> None:
    """
    Answer a handshake with 503 and ``Retry-After``.

    Where the server has no denial extension a close is all there is; servers turn it into 403, which some clients take
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
    # uvicorn's default implementation takes note of a denial only when the transport has gone, one pass of the loop
    # later; an application that returns before is logged as an error, once for each client that is refused.
    await asyncio.sleep(0)


async def refuse(engine: Engine, scope: Scope, receive: Receive, send: Send) -> None:
    """Turn a late arrival away."""
    await receive()  # websocket.connect: servers answer nothing before it was taken
    engine.refused(WebSocketSession.kind, scope["path"])
    with suppress(OSError):  # the client has gone
        await deny(send, engine.retry_after(), can_deny=can_deny(scope))
