"""
Clients as data, and the protocols that play them: one for WebSockets, one for HTTP.

They stand at the other end of a modelled connection or of a real one, and note what a user would see.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

__all__ = ["Action", "HttpClient", "WebSocketClient", "make_client"]

Note = Callable[..., None]
"""Takes down what happened."""

CHANGING_HEADERS = ("date", "server", "sec-websocket-accept", "sec-websocket-extensions")


@dataclass(frozen=True)
class Action:
    """
    Something that a client does.

    Attributes:
        at: Seconds after it has connected.
        does: ``"text"``, ``"bytes"``, ``"close"``, ``"body"`` (send a part of its request's), ``"drop"`` (the
            connection), ``"reset"`` (likewise, rudely), ``"deaf"`` (read nothing from now on), ``"hear"`` (read again).
        what: Its text, its bytes, or its close code.
    """

    at: float
    does: str
    what: Any = None


@dataclass(frozen=True)
class WebSocketClient:
    """A WebSocket client; one that *is_silent* answers no close and no ping."""

    actions: tuple[Action, ...] = ()
    is_silent: bool = False


@dataclass(frozen=True)
class HttpClient:
    """An HTTP client with one request. Its body is *body*, and what its ``body`` actions add."""

    method: str = "GET"
    accept: str = "*/*"
    body: bytes = b""
    actions: tuple[Action, ...] = ()


class _Playing(asyncio.Protocol):
    """What both have in common: the timeline, and the end of the connection."""

    def __init__(self, actions: tuple[Action, ...], note: Note) -> None:
        self.actions = actions
        self.note = note
        self.is_over = asyncio.Event()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        loop = asyncio.get_running_loop()
        for action in self.actions:
            loop.call_later(action.at, self.act, action)
        self.begin()

    def act(self, action: Action) -> None:
        if self.transport.is_closing():
            return
        match action.does:
            case "drop":
                self.note("drops the connection")
                self.transport.close()
            case "reset":
                self.note("resets the connection")
                self.reset()
            case "deaf":
                self.transport.pause_reading()
            case "hear":
                self.transport.resume_reading()
            case does:
                getattr(self, does)(action.what)

    def reset(self) -> None:
        if (sock := self.transport.get_extra_info("socket")) is None:
            self.transport.reset()
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def begin(self) -> None:
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.is_over.set()


class PlayingWebSocketClient(_Playing):
    """Plays a `WebSocketClient`."""

    def __init__(self, client: WebSocketClient, note: Note) -> None:
        super().__init__(client.actions, note)
        self.is_silent = client.is_silent
        self.protocol = ClientProtocol(parse_uri("ws://testserver/twin"), max_size=None)

    def begin(self) -> None:
        self.protocol.send_request(self.protocol.connect())
        self.write()

    def write(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)

    def text(self, what: str) -> None:
        if self.protocol.state is State.OPEN:
            self.protocol.send_text(what.encode())
            self.write()

    def bytes(self, what: Any) -> None:
        if self.protocol.state is State.OPEN:
            self.protocol.send_binary(what)
            self.write()

    def close(self, what: int) -> None:
        if self.protocol.state is State.OPEN:
            self.note("closes", what)
            self.protocol.send_close(what, "bye")
            self.write()

    def data_received(self, data: Any) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            match event:
                case Response():
                    self.note("is answered", event.status_code, _headers(event.headers.raw_items()), event.body)
                case _ if event.opcode is Opcode.TEXT:
                    self.note("gets text", bytes(event.data)[:40])
                case _ if event.opcode is Opcode.BINARY:
                    self.note("gets bytes", len(event.data))
                case _ if event.opcode is Opcode.CLOSE:
                    close = self.protocol.close_rcvd
                    self.note("gets close", close and (close.code, close.reason))
        if not self.is_silent:
            self.write()

    def eof_received(self) -> None:
        self.protocol.receive_eof()
        self.note("gets the end")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.note("loses the connection")
        super().connection_lost(exc)


class PlayingHttpClient(_Playing):
    """Plays an `HttpClient`."""

    def __init__(self, client: HttpClient, note: Note) -> None:
        super().__init__(client.actions, note)
        self.client = client
        self.protocol = h11.Connection(h11.CLIENT)
        self.is_complete = False
        self.got = bytearray()

    def begin(self) -> None:
        client = self.client
        length = len(client.body) + sum(len(each.what) for each in client.actions if each.does == "body")
        headers = [("host", "testserver"), ("accept", client.accept), ("content-length", str(length))]
        self.transport.write(self.protocol.send(h11.Request(method=client.method, target="/twin", headers=headers)))
        self.unsent = length
        self.body(client.body)

    def body(self, what: bytes) -> None:
        self.unsent -= len(what)
        if self.protocol.our_state is h11.SEND_BODY:
            if what:
                self.transport.write(self.protocol.send(h11.Data(data=what)))
            if self.unsent == 0:
                self.transport.write(self.protocol.send(h11.EndOfMessage()))

    def data_received(self, data: Any) -> None:
        self.protocol.receive_data(data)
        self.read()

    def read(self) -> None:
        try:
            while (event := self.protocol.next_event()) is not h11.NEED_DATA:
                match event:
                    case h11.InformationalResponse() | h11.Response():
                        self.note("is answered", event.status_code, _headers(event.headers))
                    case h11.Data():
                        self.got += event.data
                        self.note("gets data", len(event.data), bytes(event.data[:40]))
                    case h11.EndOfMessage():
                        self.is_complete = True
                        self.note("has the whole answer")
                    case _:
                        break
        except h11.RemoteProtocolError:
            self.note("has half an answer")

    def eof_received(self) -> None:
        self.note("gets the end")
        if self.protocol.their_state is not h11.ERROR:
            self.protocol.receive_data(b"")
            if not self.is_complete:
                self.read()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.note("loses the connection")
        super().connection_lost(exc)


def make_client(client: WebSocketClient | HttpClient, note: Note) -> _Playing:
    """Return the protocol that plays *client*."""
    if isinstance(client, WebSocketClient):
        return PlayingWebSocketClient(client, note)
    return PlayingHttpClient(client, note)


def _headers(pairs: Any) -> tuple[tuple[str, str], ...]:
    decoded = [tuple(each.decode("latin-1") if isinstance(each, bytes) else each for each in pair) for pair in pairs]
    return tuple(sorted((name.lower(), value) for name, value in decoded if name.lower() not in CHANGING_HEADERS))
