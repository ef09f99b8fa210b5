# Clients of each kind connect to `/CLIENT/CASE/DIALECT…`. The first connection of a client and case is let in and kept
# until `end` is said on the control line; then it ends as the case says, and so does every attempt that follows:
#
#   WebSocket       1000 1001 1012 1013 4000   closed with this code; the next is let in
#                   cut                        cut without a close frame; the next is let in
#                   refused, retry-after       closed with 1012; from then on 503, with or without `Retry-After`
#                   busy                       closed with 1012; from then on accepted, and closed with 1013 at once
#                   held                       closed with 1012; from then on not answered
#                   first                      503 from the beginning
#   event stream    clean cut                  ended so; the next is let in
#                   retry, retry-cut           the same, after `retry:`
#                   refused, retry-after, held, first
#                   told                       cut; from then on 200, `retry:` and the end
#
# The control line is a connection of its own that says `zoo`. It also answers `ping`: with what has been done before.
"""The other side of the zoo: a server that ends connections in every way, and writes down who came."""

import asyncio
import base64
import hashlib
import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

__all__ = ["EVENT_STREAM_CASES", "MOST", "WEBSOCKET_CASES", "Came", "Server"]

WEBSOCKET_CASES = (
    *("1000", "1001", "1012", "1013", "4000", "cut"),
    *("refused", "retry-after", "busy", "held", "first"),
)
EVENT_STREAM_CASES = (
    *("clean", "cut", "retry", "retry-cut"),
    *("refused", "retry-after", "told", "held", "first"),
)

RETRY_AFTER, RETRY = 77, 7
"""Seconds that are asked for, unlike any that a client waits by itself."""

MOST = 10
"""Attempts for which a case goes on; one that comes after them is let in and stays."""

SETTLED = 25
"""Turns of the loop in which everything that has arrived is answered."""

KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HELLO = b"id: 1\nevent: next\ndata: {}\n\n"


@dataclass(frozen=True, slots=True)
class Came:
    """One attempt: the port it came from, which of its client and case it was, and the moment."""

    port: int
    number: int
    at: float


@dataclass(slots=True)
class Server:
    """
    Ends connections. One for each process of clients.

    Attributes:
        addresses: How many of 127.0.1.0/24 it listens at too, for browsers, which limit the connections to one.
        came: The attempts, by client and case.
        port: Where it listens.
        ended_at: When the first connections were told to end.
    """

    addresses: int = 0
    came: dict[tuple[str, str], list[Came]] = field(default_factory=lambda: defaultdict(list))
    port: int = 0
    ended_at: float = 0.0
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _let_in: int = 0
    _first: int = 0
    _servers: list[asyncio.Server] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        first = await asyncio.start_server(self._meet, "127.0.0.1", 0, backlog=1000)
        self.port = first.sockets[0].getsockname()[1]
        self._servers = [first]
        for number in range(1, self.addresses + 1):
            self._servers.append(await asyncio.start_server(self._meet, f"127.0.1.{number}", self.port))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for each in self._servers:
            each.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.LimitOverrunError):
            first = await reader.readline()
            if first == b"zoo\n":
                await self._obey(reader, writer)
            elif first:
                await self._answer(first, reader, writer)
        writer.transport.abort()

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"end\n":
                self.ended_at = asyncio.get_running_loop().time()
                self._over.set()
                if self._first:
                    await self._ended.wait()
            for _ in range(SETTLED):
                await asyncio.sleep(0)
            writer.write(f"{self._let_in}\n".encode())

    async def _answer(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n"))
        }
        _, path, _ = first.decode().split(" ", 2)
        parts = path.split("?")[0].split("/")
        if len(parts) < 4 or parts[2] not in {*WEBSOCKET_CASES, *EVENT_STREAM_CASES}:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            await writer.drain()
            return
        if (length := int(headers.get("content-length", "0"))) and parts[3] == "mcp":
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        client, case, dialect = parts[1:4]
        came = self.came[client, case]
        number = len(came)
        came.append(Came(writer.get_extra_info("peername")[1], number, asyncio.get_running_loop().time()))
        await Visit(self, case, number, headers, reader, writer).go(dialect, is_websocket="upgrade" in headers)

    async def wait_over(self) -> None:
        """Let a first connection stay until it is told to end."""
        self._first += 1
        await self._over.wait()

    def ended(self) -> None:
        """Take note that a first connection has been told so."""
        self._first -= 1
        if not self._first:
            self._ended.set()


@dataclass(slots=True)
class Visit:
    """One attempt to come in."""

    server: Server
    case: str
    number: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def go(self, dialect: str, *, is_websocket: bool) -> None:
        """Answer as the case says."""
        is_first = self.number == 0
        if self.number > MOST:
            self.case = "1000"
        if self.case == "first" or (not is_first and self.case in {"refused", "retry-after"}):
            await self._refuse()
        elif not is_first and self.case == "held":
            await self.reader.read()
        elif is_websocket:
            await self._websocket(dialect, is_first=is_first)
        else:
            await self._event_stream(is_first=is_first)

    async def _refuse(self) -> None:
        after = f"Retry-After: {RETRY_AFTER}\r\n" if self.case == "retry-after" else ""
        self._write(f"HTTP/1.1 503 Service Unavailable\r\n{after}Content-Length: 0\r\nConnection: close\r\n\r\n")
        await self.writer.drain()
        self.writer.write_eof()
        await self.reader.read()

    async def _websocket(self, dialect: str, *, is_first: bool) -> None:
        key = self.headers["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + KEY).digest()).decode()
        protocol = self.headers.get("sec-websocket-protocol", "").split(",")[0].strip()
        chosen = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        self._write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
        )
        if not is_first and self.case == "busy":
            await self._close(1013)
            return
        self.server._let_in += 1
        talk = asyncio.create_task(self._talk(dialect))
        if is_first:
            await self.server.wait_over()
            talk.cancel()
            if self.case != "cut":
                await self._close(int(self.case) if self.case.isdigit() else 1012)
            else:
                self._cut()
        else:
            await talk

    async def _close(self, code: int) -> None:
        self.writer.write(bytes((0x88, 2)) + code.to_bytes(2, "big"))
        await self.writer.drain()
        self.writer.write_eof()
        self._tell()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.reader.read(), 1)

    async def _talk(self, dialect: str) -> None:
        speak = DIALECTS.get(dialect)
        if dialect == "socket.io":
            self._say('0{"sid":"x","upgrades":[],"pingInterval":100000000,"pingTimeout":20000,"maxPayload":1000000}')
        with suppress(OSError, EOFError):
            while True:
                opcode, text = await self._frame()
                if opcode == 8:
                    return
                if opcode == 9:
                    self.writer.write(bytes((0x8A, len(text))) + text.encode("latin-1"))
                if opcode == 1 and speak and (answer := speak(text)):
                    self._say(answer)

    async def _frame(self) -> tuple[int, str]:
        head = await self.reader.readexactly(2)
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(size)
        return head[0] & 0xF, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data)).decode("latin-1")

    def _say(self, text: str) -> None:
        data = text.encode()
        size = bytes((len(data),)) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        self.writer.write(b"\x81" + size + data)

    async def _event_stream(self, *, is_first: bool) -> None:
        self._write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
            "Access-Control-Allow-Origin: *\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        if not is_first and self.case == "told":
            await self._end_body(f"retry: {RETRY * 1000}\n")
            return
        self.server._let_in += 1
        self._chunk(HELLO)
        if not is_first:
            await self.reader.read()
            return
        await self.server.wait_over()
        if self.case in {"retry", "retry-cut"}:
            self._chunk(f"retry: {RETRY * 1000}\n".encode())
        await self.writer.drain()
        if self.case in {"clean", "retry"}:
            await self._end_body("")
        else:
            await asyncio.sleep(0.05)  # what was written arrives before the reset does
            self._cut()

    async def _end_body(self, text: str) -> None:
        if text:
            self._chunk(text.encode())
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        self.writer.write_eof()
        self._tell()
        await self.reader.read()

    def _cut(self) -> None:
        self.writer.transport.abort()
        self._tell()

    def _tell(self) -> None:
        if self.number == 0:
            self.server.ended()

    def _chunk(self, data: bytes) -> None:
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _write(self, head: str) -> None:
        self.writer.write(head.encode())


def _phoenix(text: str) -> str | None:
    message = json.loads(text)
    reply = {"status": "ok", "response": {}}
    if isinstance(message, list):
        joined, ref, topic, event, _ = message
        return json.dumps([joined, ref, topic, "phx_reply", reply]) if event in {"phx_join", "heartbeat"} else None
    return json.dumps({**message, "event": "phx_reply", "payload": reply})


def _graphql_ws(text: str) -> str | None:
    return '{"type":"connection_ack"}' if json.loads(text)["type"] == "connection_init" else None


def _centrifuge(text: str) -> str | None:
    message = json.loads(text.split("\n", maxsplit=1)[0]) if text.strip() else {}
    if "connect" not in message:
        return None
    return json.dumps({"id": message["id"], "connect": {"client": "x", "version": "1"}})


DIALECTS = {
    "phoenix": _phoenix,
    "graphql-ws": _graphql_ws,
    "centrifuge": _centrifuge,
    "signalr": lambda text: "{}\x1e" if '"protocol"' in text else text,
    "socket.io": lambda text: '40{"sid":"y"}' if text.startswith("40") else None,
    "stomp": lambda text: "CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0" if text.startswith("CONNECT") else None,
}
"""What the server of each protocol answers, so that its clients find themselves connected."""
