"""Clients as they are out there: ordinary ones, and some that do not play by the rules."""

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

__all__ = ["ClosePolicy", "Listener", "RawPeer", "listeners"]


@dataclass(frozen=True, slots=True)
class ClosePolicy:
    """How a connection ended for the client, and when (monotonic seconds)."""

    code: int | None
    reason: str | None
    at: float

    @property
    def words(self) -> tuple[int | None, str | None]:
        """Code and reason."""
        return self.code, self.reason


class Listener:
    """A client that listens until the server says goodbye."""

    def __init__(self, connection: ClientConnection, *, reads_from: asyncio.Event | None = None) -> None:
        self.connection = connection
        self._task = asyncio.create_task(self._listen(reads_from))

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended yet."""
        return not self._task.done()

    async def close_policy(self) -> ClosePolicy:
        """Wait for the end."""
        return await self._task

    async def _listen(self, reads_from: asyncio.Event | None) -> ClosePolicy:
        if reads_from:
            await reads_from.wait()
        try:
            while True:
                await self.connection.recv()
        except ConnectionClosed:
            return ClosePolicy(self.connection.close_code, self.connection.close_reason, time.monotonic())


@asynccontextmanager
async def listeners(urls: Iterable[str], *, reads_from: asyncio.Event | None = None) -> AsyncIterator[list[Listener]]:
    """Connect to every address; with *reads_from* nobody reads before that moment, and senders come under pressure."""
    async with AsyncExitStack() as stack:
        opened = []
        for url in urls:
            connection = connect(url, max_size=None, max_queue=1, compression=None, ping_interval=None, proxy=None)
            opened.append(Listener(await stack.enter_async_context(connection), reads_from=reads_from))
        yield opened


class RawPeer:
    """A bare TCP connection that speaks as little WebSocket as it must: it never answers a close frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, path: str, *, shake: bool = True) -> Self:
        """Connect, and wait for the end of the handshake unless *shake* is false."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port, limit=1024))
        key = base64.b64encode(os.urandom(16)).decode()
        request = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        ]
        peer._writer.write(("\r\n".join(request) + "\r\n\r\n").encode())
        if shake:
            assert b" 101 " in await peer._reader.readuntil(b"\r\n\r\n")
        return peer

    async def read_close(self) -> tuple[int, str]:
        """Read frames until a close frame, and return what it says. Do not answer it."""
        while True:
            head, size = await self._reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self._reader.readexactly(8))
            payload = await self._reader.readexactly(size)
            if head & 0x0F == 0x8:
                return int.from_bytes(payload[:2]), payload[2:].decode()

    async def read_response(self) -> bytes:
        """Read all there is until the server closes."""
        return await self._reader.read(-1)

    async def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()
        await asyncio.sleep(0)
