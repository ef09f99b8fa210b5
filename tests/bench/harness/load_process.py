"""
The process with the clients: ``python -m harness.load_process``. One order a line of JSON, one answer a line.

Clients are bare protocols: no task, no library, frames made beforehand. What they cost is not what is measured.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Self, cast

AT_ONCE = 50
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
MASKED = 0x80  # frames of clients are masked; a mask of zeros changes nothing
MESSAGE = b"\x81" + bytes([MASKED | 16]) + bytes(4) + b"sixteen letters."
CLOSE, PING, PONG = 0x88, 0x89, 0x8A


class Client(asyncio.Protocol):
    """One WebSocket."""

    transport: asyncio.Transport

    def __init__(self, request: bytes, path: str, heard: Callable[[Self], None] | None = None) -> None:
        self.request = request
        self.path = path
        self.heard = heard
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: tuple[float, int] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Take the answer, then frames."""
        data = self.data + data
        if not self.opened.done():
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                self.data = data
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.opened.set_exception(ConnectionError(head[:200].decode(errors="replace")))
                return
            self.opened.set_result(None)
            data = rest
        while len(data) >= 2 and len(data) >= 2 + data[1]:
            kind, payload, data = data[0], data[2 : 2 + data[1]], data[2 + data[1] :]
            if kind == PING:
                self.transport.write(bytes([PONG, MASKED | len(payload)]) + bytes(4) + payload)
            elif kind == CLOSE:
                self.closed = time.monotonic(), int.from_bytes(payload[:2])
                self.transport.write(bytes([CLOSE, MASKED | 2]) + bytes(4) + payload[:2])
            elif self.heard:
                self.heard(self)
        self.data = data

    def connection_lost(self, error: Exception | None) -> None:
        """Take note of the end."""
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("closed during the handshake"))
            self.opened.exception()
        self.closed = self.closed or (time.monotonic(), 1006)
        if not self.ended.done():
            self.ended.set_result(None)


class Http(asyncio.Protocol):
    """One connection that asks again as soon as it has been answered, while there is something left to ask."""

    def __init__(self, request: bytes, length: int, take: Callable[[], bool]) -> None:
        self.request = request
        self.length = length
        self.take = take
        self.missing = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self.transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Count bytes: all answers are of one length."""
        self.missing -= len(data)
        if self.missing <= 0:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """End; before the last answer that is a failure."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed a kept-alive connection"))

    def _ask(self) -> None:
        if self.take():
            self.missing = self.length
            self.transport.write(self.request)
        elif not self.done.done():
            self.done.set_result(None)
            self.transport.close()


class Clients:
    """All clients of this process."""

    def __init__(self) -> None:
        self.all: list[Client] = []

    async def connect(self, port: int, path: str, number: int, first: int, *, deflate: bool) -> list[Client]:
        """Open *number* WebSockets; every 10,000 of them have a source address of their own."""
        loop = asyncio.get_running_loop()
        request = HANDSHAKE.format(path=path, port=port, more=DEFLATE if deflate else "").encode()
        clients: list[Client] = []
        while len(clients) < number:
            some = range(len(clients), min(number, len(clients) + AT_ONCE))
            sources = ((f"127.2.{(first + each) // 10000}.1", 0) for each in some)
            connecting = (
                loop.create_connection(lambda: Client(request, path), "127.0.0.1", port, local_addr=source)
                for source in sources
            )
            connected = [client for _, client in await asyncio.gather(*connecting)]
            await asyncio.gather(*(client.opened for client in connected))
            clients += connected
        return clients

    async def open(self, port: int, path: str, number: int, first: int, *, deflate: bool) -> dict[str, Any]:
        """Open WebSockets, and keep them."""
        self.all += await self.connect(port, path, number, first, deflate=deflate)
        return {"open": len(self.all)}

    async def echo(self, number: int, path: str | None = None) -> dict[str, Any]:
        """Exchange *number* messages over all connections, or those to *path*, one at a time on each."""
        clients = [client for client in self.all if path in (None, client.path)]
        unsent = unheard = number
        done = asyncio.get_running_loop().create_future()

        def say_on(client: Client) -> None:
            nonlocal unsent, unheard
            unheard -= 1
            if unsent:
                unsent -= 1
                client.transport.write(MESSAGE)
            elif not unheard:
                done.set_result(None)

        for client in clients:
            client.heard = say_on
        for client in clients[:number]:
            unsent -= 1
            client.transport.write(MESSAGE)
        await done
        return {"messages": number}

    async def chatter(self, rate: float, seconds: float) -> dict[str, Any]:
        """Say something *rate* times a second, on any connection that is open; wait for no echo."""
        rng = Random(0)
        loop = asyncio.get_running_loop()
        started, said = loop.time(), 0
        while (passed := loop.time() - started) < seconds:
            for client in rng.choices(self.all, k=int(passed * rate) - said):
                if client.closed is None:
                    client.transport.write(MESSAGE)
            said = int(passed * rate)
            await asyncio.sleep(0.01)
        return {"messages": said}

    async def handshakes(self, port: int, path: str, number: int) -> dict[str, Any]:
        """Open and close *number* WebSockets, fifty at a time; each ends with a close frame of the client's."""
        for start in range(0, number, AT_ONCE):
            clients = await self.connect(port, path, min(AT_ONCE, number - start), 0, deflate=False)
            for client in clients:
                client.transport.write(bytes([CLOSE, MASKED | 2]) + bytes(4) + (1000).to_bytes(2))
            await asyncio.gather(*(client.ended for client in clients))
        return {"handshakes": number}

    async def http(self, port: int, path: str, number: int, connections: int) -> dict[str, Any]:
        """Ask *number* times over kept-alive connections, one request at a time on each."""
        loop = asyncio.get_running_loop()
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-len"))
        await reader.readexactly(body)
        writer.close()
        left = number

        def take() -> bool:
            nonlocal left
            left -= 1
            return left >= 0

        started = time.monotonic()
        made = [
            await loop.create_connection(lambda: Http(request, len(head) + body, take), "127.0.0.1", port)
            for _ in range(connections)
        ]
        await asyncio.gather(*(each.done for _, each in made))
        return {"requests": number, "seconds": time.monotonic() - started}

    async def closes(self, within: float) -> dict[str, Any]:
        """Wait until every connection has ended; return when (monotonic, seconds) and with which code each did."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for client in self.all:
                    await client.ended
        return {"closes": [client.closed for client in self.all if client.closed], "open": len(self.all)}

    async def close(self) -> dict[str, Any]:
        """Cut every connection."""
        clients, self.all = self.all, []
        for client in clients:
            client.transport.abort()
        await asyncio.gather(*(client.ended for client in clients))
        return {"open": 0}


async def main() -> None:
    """Obey, until the input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clients = Clients()
    while line := await reader.readline():
        order = json.loads(line)
        try:
            answer = await getattr(clients, order.pop("do"))(**order)
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            answer = {"error": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
