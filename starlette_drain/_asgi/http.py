# One HTTP exchange and its phases.
#
#   phase     how it is reached                         in the registry   send                 receive
#   REQUEST   the exchange begins                       no                checks the head      passes the first call
#   ANSWER    a head that makes no session              no                passes               passes
#   STREAM    an event stream that is an answer         no                tracks events, end   can be interrupted
#   SESSION   a head that makes a session; `declare`    yes               tracks events, end   can be interrupted
#   OVER      last part of the body; our close          no                passes; dropped      passes; the disconnect
#
#   - An ordinary request is watched only until its head, and must cost as little as possible: it has only the few slots
#     set by `begin_exchange`. `prepare` sets the rest, when the application asks for its session or sends the head of
#     one. A second receive before the head sets only what is needed to interrupt it, in case it becomes a session.
#   - A stream is a session if its client will request it again: an event stream requested as an EventSource does (GET
#     and `Accept: text/event-stream`), or a response that the application declares to be a session. Every other stream
#     is an answer (tokens of a language model, a tool call, the progress of a job): its client requests it once, and
#     would take a clean end for the complete answer.
#   - A session ends with a clean final chunk. It is declared as "cut" if its client takes a clean end for final: then
#     the body is left incomplete, and the server closes the connection. Over HTTP/2 the end is always clean, because
#     servers treat a stream that is left open differently.
#   - `retry:` tells an EventSource when to reconnect. It is added only after a complete event: in the middle of one,
#     the client would dispatch half an event and resume from the wrong Last-Event-ID. No empty line follows: the field
#     takes effect with its own line, and simple parsers (httpx-sse) make an event of every block.
#   - Over HTTP/1 a session has `Connection: close` from its start: a client that reconnects over the same connection
#     would reach the same task (RFC 9112 section 9.6). During a drain every other response has it too, unless only a
#     last chunk marks its end: with that header Node.js takes such a body for complete, wherever it breaks off. For the
#     same reason a session that will be cut does not have it.
#   - An EventSource does not reconnect after 204 or any other status but 200, nor if a CORS header is missing. So a
#     late arrival gets the application's own head, a `retry:`, and the end. Any other late session gets 503.
#   - Only a response without an announced length or trailers can be ended early.
#
# Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""HTTP exchanges: answers, which end by themselves, and streams that are sessions."""

import asyncio
import json
import re
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any, Literal

from starlette.requests import ClientDisconnect
from starlette.status import HTTP_200_OK, HTTP_204_NO_CONTENT, HTTP_304_NOT_MODIFIED, HTTP_503_SERVICE_UNAVAILABLE
from starlette.types import Message, Receive, Scope, Send

from starlette_drain._asgi.accept import accepts
from starlette_drain._asgi.callables import marked_as_coroutine_function
from starlette_drain._asgi.connection import (
    NO_CLOSING,
    SCOPE_KEY,
    Connection,
    ConnectionEnded,
    retry_after_header,
)
from starlette_drain._asgi.untracked import ENDED
from starlette_drain._core.session import ClosePolicy
from starlette_drain._core.streams import Declaration, declaration_of
from starlette_drain._engine.engine import Engine
from starlette_drain.exceptions import SettingsError

__all__ = ["EventStreamSession", "asks_for_events", "begin_exchange"]

DECLARATION = b"starlette-drain"
"""The response header that declares what the response is. It is removed before the response is sent."""

EVENT_STREAM = b"text/event-stream"

CONTENT_TYPE_SIZE, DECLARATION_SIZE, EVENT_STREAM_SIZE = len(b"content-type"), len(DECLARATION), len(EVENT_STREAM)

REQUEST, ANSWER, STREAM, SESSION, OVER = range(5)
"""The phases; see above. Plain integers, because they are compared for each message."""

UNTOUCHED, PASSED, INTERRUPTIBLE = range(3)
"""How `receive` has been used before `prepare`: not at all, once, or so that it can be interrupted."""

LINE_END = re.compile("\r\n|\r|\n")
"""The line ends of an event stream; `str.splitlines` splits at others too."""

WHOLE = (b"\n\n", b"\n\r\n", b"\r\r", b"\r\r\n")
"""The last bytes of a body after a complete event."""

IN_BETWEEN = b"?"
"""The last bytes of a body while a part is being sent, which may still be cancelled."""

DROPPED_AT_ONCE = 3
"""How many messages sent after the disconnect are dropped without a pause."""

CLOSE = (b"connection", b"close")

NOT_OF_A_REFUSAL = (b"connection", b"content-encoding", b"content-type", b"transfer-encoding")
"""The headers of the application's response that a 503 must not have."""

PARTS = ("http.response.body", "http.response.zerocopysend", "http.response.pathsend")
"""The ASGI messages that carry the body."""


class EventStreamSession(Connection):
    """
    One HTTP exchange: an answer until its response makes it a session.

    Attributes:
        path: The path of the request.
        opened_at: When the response started, in seconds on the event loop's clock.
        is_open: Whether it is a session.
        shed_at: When it was asked to leave, on the same clock; ``None`` if it was not.
    """

    __slots__ = (
        "_can_end",
        "_declared",
        "_dropped",
        "_is_events",
        "_is_open_ended",
        "_is_prepared",
        "_is_text",
        "_phase",
        "_receives",
        "_tail",
        "kind",
    )

    notifies_each_task = True
    """Servers report the client's disconnect to every `receive`: several tasks may wait for it."""

    _declared: Declaration | None
    _is_prepared: bool
    _phase: int
    _receives: int

    # What an application calls

    def declare(self, kind: Literal["session", "answer"], *, end: Literal["clean", "cut"] = "clean") -> None:
        """
        Declare this response a session, which a drain asks to leave, or an answer, which is left to finish.

        Call it before the response starts, or inside an event stream. The last call wins, also over the option
        ``streams``. A response with a ``Content-Length`` is never a session.

        Args:
            kind: ``"session"`` or ``"answer"``.
            end: How a session ends: ``"clean"`` (with a complete body) or ``"cut"`` (the client sees an error).

        Raises:
            SettingsError: If *kind* or *end* has another value.
        """
        if kind not in ("session", "answer") or end not in ("clean", "cut"):
            raise SettingsError("declare", f"{kind}, end={end}", "use 'session' or 'answer', and end='clean' or 'cut'")
        self._declared = Declaration(kind, end)
        if self._phase == STREAM and kind == "session":
            if self._can_end:
                self._begin_session()
                self._track()
        elif self._phase == SESSION and kind == "answer" and self.shed_at is None:
            self._phase = STREAM
            self._engine.closed(self, forced=False)
            self.is_open = False
            self._engine.answers.under_way += 1
        elif kind == "answer":
            self._engine.answers.undeclared.pop(self, None)

    async def send_text(self, text: str) -> None:
        """
        Send *text* as one event, for instance from a close hook.

        Sends nothing while another event is partly sent, or after either side has ended the stream.
        """
        if self.can_send() and self._may_add_text():
            data = "".join(f"data: {line}\n" for line in LINE_END.split(text))
            self._tail = IN_BETWEEN
            with suppress(OSError):  # the client has gone, and the application has not noticed yet
                await self._raw_send({"type": "http.response.body", "body": f"{data}\n".encode(), "more_body": True})
                self._tail = WHOLE[0]
        else:
            await asyncio.sleep(0)

    async def send_json(self, value: Any) -> None:
        """Send *value* as JSON, as the data of one event."""
        await self.send_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False))

    # What the middleware calls

    def prepare(self) -> None:
        """Set the attributes that an ordinary request does not need."""
        if not self._is_prepared:
            self._is_prepared = True
            received = (self._parked, self._last_received, self._is_over) if self._receives == INTERRUPTIBLE else None
            super().__init__(self._engine, self._scope, self._raw_receive, self._raw_send, self._task)
            if received is not None:
                self._parked, self._last_received, self._is_over = received
            self.kind = "stream"
            self._tail = b""
            self._dropped = 0
            self._can_end = self._is_open_ended = self._is_events = self._is_text = False
            self._declared = None

    def absorbs_exception(self) -> bool:
        """Return whether the exception being handled was only caused by our close."""
        return self._is_prepared and super().absorbs_exception()

    def connection_ended(self, *, forced: bool = False, code: int | None = None) -> None:
        """Record that the connection is over; it is no longer a session."""
        if self._is_prepared:
            super().connection_ended(forced=forced, code=code)
        else:
            self._is_over = True

    def finish(self) -> bool:
        """Record that the application has returned; return whether to call `wait_closed` before returning too."""
        if not self._is_prepared:
            self._engine.answers.under_way -= 1
            self._scope[SCOPE_KEY] = ENDED
            return False
        if self._phase <= STREAM:
            self._engine.answers.ended(self)
        return super().finish()

    @marked_as_coroutine_function
    def receive(self) -> Awaitable[Message]:  # type: ignore[override]
        """Receive the next message. From the second call on, a drain can interrupt it."""
        if self._phase == ANSWER:
            return self._raw_receive()
        if not self._is_prepared and self._receives != INTERRUPTIBLE:
            if self._receives == UNTOUCHED:
                self._receives = PASSED
                return self._raw_receive()
            # Frameworks wait for the client's disconnect before they send the head (Starlette's StreamingResponse).
            self._receives = INTERRUPTIBLE
            self._parked = self._disconnect = None
            self._last_received = ""
            self._closing = NO_CLOSING
            self._is_over = False
        return super().receive()

    @marked_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:  # noqa: C901, PLR0911 - inlined for speed
        """Send a message of the application; after our close it gets an ordinary disconnect."""
        phase = self._phase
        if phase == ANSWER:
            return self._raw_send(message)
        if phase == REQUEST:
            if message["type"] != "http.response.start":
                return self._raw_send(message)
            headers = message.get("headers", ())
            engine = self._engine
            if headers.__class__ is not list or self._is_prepared or engine.sends_away:
                return self._start(message)
            if engine.streams is not None and engine.streams.find(self._scope["path"]) is not None:
                return self._start(message)
            for name, value in headers:
                size = len(name)  # faster to compare than the name
                if size == CONTENT_TYPE_SIZE:
                    if len(value) >= EVENT_STREAM_SIZE and value.lower().startswith(EVENT_STREAM):
                        return self._start(message)
                elif size == DECLARATION_SIZE and name.lower() == DECLARATION:
                    return self._start(message)
            self._phase = ANSWER
            return self._raw_send(message)
        if self._disconnect is not None:
            return self._send_late(message)
        return self._raw_send(message) if phase == OVER or message["type"] not in PARTS else self._send_part(message)

    # What every kind of session implements

    def disconnect_message(self, close_policy: ClosePolicy) -> Message:  # noqa: ARG002
        """Return HTTP's disconnect, which has no code or reason."""
        return {"type": "http.disconnect"}

    def can_send(self) -> bool:
        """Return whether the body can still be sent: neither side has ended the exchange."""
        return self._phase in (STREAM, SESSION) and not self._is_over

    async def send_close(self, close_policy: ClosePolicy) -> None:  # noqa: ARG002
        """End the body, with ``retry:`` if it can be added."""
        if self._phase == SESSION:
            self._phase = OVER
            may_retry = self._may_add_text() and self._asks_for_events()
            retry = f"retry: {self.reconnect_after_ms}\n".encode() if may_retry else b""
            is_cut = self._is_cut()
            if retry or not is_cut:
                await self._raw_send({"type": "http.response.body", "body": retry, "more_body": is_cut})

    def is_our_disconnect(self, error: BaseException, disconnect: Message) -> bool:
        """Return whether our *disconnect* caused *error* in the application."""
        return isinstance(error, ClientDisconnect) or super().is_our_disconnect(error, disconnect)

    # Internals

    def _start(self, message: Message) -> Awaitable[None]:
        """Send a response head that may begin a session."""
        self.prepare()
        engine = self._engine
        if engine.admission is not None:
            engine.admission.finish(self)
        headers = list(message.get("headers", ()))  # an iterator can be read only once
        own, kept = _split(headers, DECLARATION)
        by_path = engine.streams.find(self.path) if engine.streams is not None else None
        self._declared = self._declared or self._declared_by(own) or by_path
        self._read_head(message, kept)
        is_session = self._can_end and (
            self._declared.kind == "session" if self._declared else self._is_events and self._asks_for_events()
        )
        if self._is_http_1() and (not self._is_cut() if is_session else engine.sends_away and not self._is_open_ended):
            kept = [*_split(kept, b"connection")[1], CLOSE]
        if kept != message.get("headers", ()):
            message = {**message, "headers": kept}
        if not is_session:
            self._phase = STREAM if self._is_events else ANSWER
            if self._can_end and self._is_events and self._declared is None:
                engine.answers.undeclared[self] = self.path
            return self._raw_send(message)
        self._begin_session()
        return self._open(message) if engine.admits() else self._refuse(message)

    def _begin_session(self) -> None:
        self._phase = SESSION
        self._engine.answers.ended(self)
        self.opened_at = self.active_at = self._loop.time()

    def _track(self) -> None:
        if self._phase == SESSION and not self._is_over:
            self._engine.track(self)
            self._engine.opened(self)

    async def _open(self, head: Message) -> None:
        await self._raw_send(head)
        # Not before: a tracked session may be closed at any moment, which ends the body, so the head must be sent.
        self._track()

    async def _refuse(self, head: Message) -> None:
        engine = self._engine
        self.shed_at, self.reconnect_after = engine.time(), engine.retry_after()
        if not (self._is_events and self._asks_for_events()):
            kept = [each for each in head["headers"] if each[0].lower() not in NOT_OF_A_REFUSAL]
            added = [(b"content-length", b"0"), retry_after_header(self.reconnect_after)]
            added += [CLOSE] if self._is_http_1() else []
            head = {**head, "status": HTTP_503_SERVICE_UNAVAILABLE, "headers": [*kept, *added]}
            self._phase = OVER
        await self._raw_send(head)
        if self._phase == OVER:
            await self._raw_send({"type": "http.response.body", "body": b"", "more_body": False})
        engine.refused(self.kind, self.path)
        await self._close_now(engine.close_policy)

    async def _send_part(self, message: Message) -> None:
        if self._engine.notes_activity:
            self.active_at = self._loop.time()
        if not message.get("more_body", False):
            self._phase = OVER if self._phase == SESSION else ANSWER
            self.connection_ended()
        tail, self._tail = (self._tail + bytes(message.get("body", b"")[-4:]))[-4:], IN_BETWEEN
        try:
            await self._raw_send(message)
        except OSError:  # the client has gone
            self.connection_ended()
            raise
        self._tail = tail

    async def _send_late(self, message: Message) -> None:
        # Since ASGI 2.4 applications expect a send after the disconnect to raise, and may not call `receive`.
        if _spec_version(self._scope) >= (2, 4):
            self._notice()
            await self._suspend_late_send()
            raise ConnectionEnded(self)
        if message["type"] in PARTS and not message.get("more_body", False):
            self._notice()  # the application has ended the response itself
        # Return at once a few times, so that the framework cancels the application where it waits by itself: a
        # generator that is left at its yield is cleaned up only when the garbage collector finds it.
        self._dropped += 1
        if self._dropped > DROPPED_AT_ONCE:
            await self._suspend_late_send()

    def _declared_by(self, headers: list[tuple[bytes, bytes]]) -> Declaration | None:
        """Return the declaration in the response's own header, if it is valid."""
        for _, value in headers:
            declared = declaration_of(value.decode("latin-1"))
            if declared is None:
                self._engine.answers.note_unclear(self.path, value.decode("latin-1"))
            return declared
        return None

    def _read_head(self, head: Message, headers: list[tuple[bytes, bytes]]) -> None:
        named = {name.lower(): value for name, value in headers}
        self._is_events = _is_event_stream(named.get(b"content-type", b""))
        self._is_text = b"content-encoding" not in named
        self.kind = "event-stream" if self._is_events else "stream"
        self._is_open_ended = (
            b"content-length" not in named
            and head.get("status") not in (HTTP_204_NO_CONTENT, HTTP_304_NOT_MODIFIED)
            and self._scope.get("method") != "HEAD"
        )
        self._can_end = self._is_open_ended and head.get("status") == HTTP_200_OK and not head.get("trailers")

    def _asks_for_events(self) -> bool:
        """Return whether the request is like an EventSource's, which reconnects by itself."""
        return asks_for_events(self._scope)

    def _may_add_text(self) -> bool:
        return self._is_events and self._is_text and (not self._tail or self._tail.endswith(WHOLE))

    def _is_cut(self) -> bool:
        return self._declared is not None and self._declared.end == "cut" and self._is_http_1()

    def _is_http_1(self) -> bool:
        return str(self._scope.get("http_version", "1.1")).startswith("1")


def begin_exchange(
    engine: Engine, scope: Scope, receive: Receive, send: Send, task: asyncio.Task[object] | None
) -> EventStreamSession:
    """Return a new exchange. It is not created by calling the class, which takes twice as long."""
    exchange = _new(EventStreamSession)
    exchange._engine = engine
    exchange._scope = scope
    exchange._raw_receive = receive
    exchange._raw_send = send
    exchange._task = task
    exchange._phase = REQUEST
    exchange._is_prepared = False
    exchange._receives = UNTOUCHED
    scope[SCOPE_KEY] = exchange
    engine.answers.under_way += 1
    return exchange


_new = EventStreamSession.__new__


def asks_for_events(scope: Scope) -> bool:
    """Return whether a request is like an EventSource's: GET and ``Accept: text/event-stream``."""
    return scope.get("method", "GET") == "GET" and any(
        name.lower() == b"accept" and accepts(value, EVENT_STREAM) for name, value in scope.get("headers", ())
    )


def _is_event_stream(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == EVENT_STREAM


def _split(
    headers: Iterable[tuple[bytes, bytes]], wanted: bytes
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Return the headers named *wanted*, and the others."""
    own: list[tuple[bytes, bytes]] = []
    others: list[tuple[bytes, bytes]] = []
    for each in headers:
        (own if each[0].lower() == wanted else others).append(each)
    return own, others


def _spec_version(scope: Scope) -> tuple[int, ...]:
    return tuple(int(part) for part in scope.get("asgi", {}).get("spec_version", "2.0").split("."))
