# How a server-sent event stream is ended (https://html.spec.whatwg.org/multipage/server-sent-events.html).
#
#   - A stream is known by its content type, so every HTTP exchange is watched until its response starts: exchange.py.
#   - It is a session if it was asked for as an EventSource asks: GET and `Accept: text/event-stream`. Such a client
#     comes back by itself. Every other stream is an answer (tokens of a language model, a tool call, the progress of a
#     job): its client asks once, and takes a clean end for the whole. It is an answer, as a download is.
#   - It ends with a clean final chunk. A dropped socket would be a broken body to the client and a 5xx at an ALB
#     (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html).
#   - `retry:` tells an EventSource when to come back. It is added only after a whole event: in the middle of one it
#     would make the client dispatch half an event and resume from the wrong Last-Event-ID. No empty line follows: the
#     field takes effect with its own line, and simpler parsers (httpx-sse) make an event of every block.
#   - An EventSource takes 204 and every status but 200 for final, and so it does a missing CORS header. A late arrival
#     is therefore answered with the application's own head, told when to come back, and ended.
#   - Only a stream without an announced length can be ended early.
"""Server-sent event streams as sessions, and ordinary responses, which only learn that their connection ends."""

import asyncio
import json
import re
from collections.abc import Awaitable
from contextlib import suppress
from enum import Enum
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.status import HTTP_200_OK
from starlette.types import Message, Receive, Scope, Send

from starlette_drain._asgi.connection import Connection, ConnectionEnded
from starlette_drain._core.session import ClosePolicy
from starlette_drain._engine.engine import Engine

__all__ = ["EventStreamSession", "is_event_stream"]


DROP_TIME = 0.1
"""Seconds that a send takes whose message is dropped: a loop that only sends must keep no CPU busy until its end."""

LINE_END = re.compile("\r\n|\r|\n")
"""What ends a line of an event stream; `str.splitlines` knows more."""

NOT_ACCEPTABLE = re.compile(rb"q\s*=\s*0(\.0*)?")
"""The weight that refuses a media type (RFC 9110 section 12.4.2)."""


DROPPED_AT_ONCE = 3
"""Messages sent after the disconnect that are dropped without a pause."""


IN_BETWEEN = b"?"
"""The end of a body of which a part is being sent: it may arrive, or its sending be cancelled."""


class _Phase(Enum):
    REQUEST = 0
    TRANSFER = 1
    """The response is not an event stream and ends by itself."""
    STREAM = 2
    ENDED = 3


class EventStreamSession(Connection):
    """
    One HTTP exchange: an answer, until its response turns out to be a session.

    That is an event stream whose client will ask for it again. Any other one stays an answer, never asked to leave.

    Args:
        has_started: Whether the response has started, as something else than an event stream.

    Attributes:
        path: The path of its request.
        opened_at: When its response started, in seconds on the event loop's clock.
        is_open: Whether it is a session.
        shed_at: When it was asked to leave; ``None`` if it was not.
    """

    __slots__ = ("_dropped", "_is_plain_text", "_phase", "_tail")

    kind = "event-stream"

    def __init__(
        self,
        engine: Engine,
        scope: Scope,
        receive: Receive,
        send: Send,
        task: asyncio.Task[object] | None,
        *,
        has_started: bool,
    ) -> None:
        super().__init__(engine, scope, receive, send, task)
        self._phase = _Phase.TRANSFER if has_started else _Phase.REQUEST
        self._tail = b""
        self._dropped = 0
        self._is_plain_text = True
        engine.answers.began(self)

    @property
    def is_session(self) -> bool:
        """Whether its response is an event stream."""
        return self._phase in (_Phase.STREAM, _Phase.ENDED)

    async def send_text(self, text: str) -> None:
        """Send *text* as one event, from a close hook for instance; nothing while another event is half sent."""
        if self.can_send() and self._may_add_text():
            data = "".join(f"data: {line}\n" for line in LINE_END.split(text))
            with suppress(OSError):  # the client has gone, and the application has not noticed yet
                await self.send({"type": "http.response.body", "body": f"{data}\n".encode(), "more_body": True})

    async def send_json(self, value: Any) -> None:
        """Send *value* as JSON, as the data of one event."""
        await self.send_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False))

    def finish(self) -> Awaitable[None] | None:
        """End."""
        self._engine.answers.ended(self)
        return super().finish()

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application; once parted, it meets an ordinary disconnect."""
        if self._disconnect is not None:
            return self._send_parted()
        if message["type"] == "http.response.start":
            return self._start(message)
        if self._phase is _Phase.STREAM and message["type"] == "http.response.body":
            return self._send_part(message)
        return self._raw_send(message)

    def disconnect_message(self, close_policy: ClosePolicy) -> Message:  # noqa: ARG002
        """Return the disconnect of HTTP, which says no more."""
        return {"type": "http.disconnect"}

    def can_send(self) -> bool:
        """Return whether an event can still be sent: neither side has ended the exchange."""
        return self._phase is _Phase.STREAM and self._last_received != "http.disconnect"

    async def send_close(self, close_policy: ClosePolicy) -> None:  # noqa: ARG002
        """End the body, with ``retry:`` where it can be added."""
        if self._phase is _Phase.STREAM:
            self._phase = _Phase.ENDED
            retry = _retry(self.reconnect_after_ms / 1000) if self._may_add_text() else b""
            await self._raw_send({"type": "http.response.body", "body": retry, "more_body": False})

    def _start(self, message: Message) -> Awaitable[None]:
        engine = self._engine
        if not isinstance(message.get("headers", ()), list | tuple):
            message = {**message, "headers": list(message["headers"])}  # an iterator can be read only once
        if engine.sends_away and self._scope.get("http_version", "1.1").startswith("1"):
            # The client's next request is to reach another task (RFC 9112 section 9.6).
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
            message = {**message, "headers": [*kept, (b"connection", b"close")]}
        if is_event_stream(message):
            self._start_stream(message)
            if self._asks_for_events():
                engine.answers.ended(self)
                return self._open(message) if engine.admits() else self._turn_away(message)
        elif self._phase is _Phase.REQUEST:
            self._phase = _Phase.TRANSFER
        return self._raw_send(message)

    async def _send_part(self, message: Message) -> None:
        if self._engine.notes_activity:
            self.active_at = self._loop.time()
        if not message.get("more_body", False):
            self._phase = _Phase.ENDED
        tail, self._tail = (self._tail + bytes(message.get("body", b"")[-4:]))[-4:], IN_BETWEEN
        await self._raw_send(message)
        self._tail = tail

    async def _open(self, message: Message) -> None:
        await self._raw_send(message)
        # Not before: a session that is asked to leave gets an end of the body, so the head must have gone.
        self._engine.track(self)
        self._engine.opened(self)

    def _start_stream(self, message: Message) -> None:
        self._phase = _Phase.STREAM
        self.opened_at = self.active_at = self._loop.time()
        self._is_plain_text = not any(name.lower() == b"content-encoding" for name, _ in message["headers"])

    async def _turn_away(self, message: Message) -> None:
        self.shed_at, self.reconnect_after = self._engine.time(), self._engine.retry_after()
        await self._raw_send(message)
        self._engine.refused(self.kind, self.path)
        await self._part(self._engine.close_policy)

    def _asks_for_events(self) -> bool:
        """Tell whether the client asks as an EventSource does, which comes back by itself."""
        headers = self._scope.get("headers", ())
        return self._scope.get("method", "GET") == "GET" and any(
            name.lower() == b"accept" and _accepts_events(value) for name, value in headers
        )

    async def _send_parted(self) -> None:
        # From ASGI 2.4 on applications expect a send after the disconnect to raise, and do not listen for one.
        if _spec_version(self._scope) >= (2, 4):
            self._notice()
            raise ConnectionEnded(self)
        # The cancellation by the application's framework must meet it where it waits by itself: a generator that is
        # left at its yield is cleaned up only when the garbage collector finds it.
        self._dropped += 1
        if self._dropped > DROPPED_AT_ONCE:
            await asyncio.sleep(DROP_TIME)

    def _may_add_text(self) -> bool:
        return self._is_plain_text and (not self._tail or self._tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")))

    def is_our_doing(self, error: BaseException, is_cancellation_ours: bool) -> bool:  # noqa: FBT001
        is_disconnect = self._disconnect is not None and isinstance(error, ClientDisconnect)
        return is_disconnect or super().is_our_doing(error, is_cancellation_ours)


def is_event_stream(message: Message) -> bool:
    """Tell whether a response that starts so is an event stream that can be ended early."""
    if message.get("status") != HTTP_200_OK or message.get("trailers"):
        return False
    kind = b""
    for name, value in message.get("headers", ()):
        match name.lower():
            case b"content-length":
                return False
            case b"content-type":
                kind = value
    return kind.partition(b";")[0].strip().lower() == b"text/event-stream"


def _accepts_events(accept: bytes) -> bool:
    for media_range in accept.lower().split(b","):
        media_type, *parameters = (part.strip() for part in media_range.split(b";"))
        if media_type == b"text/event-stream":
            return not any(NOT_ACCEPTABLE.fullmatch(parameter) for parameter in parameters)
    return False  # ``*/*`` is what plain HTTP clients send


def _retry(seconds: float) -> bytes:
    return f"retry: {round(seconds * 1000)}\n".encode()


def _spec_version(scope: Scope) -> tuple[int, ...]:
    return tuple(int(part) for part in scope.get("asgi", {}).get("spec_version", "2.0").split("."))
