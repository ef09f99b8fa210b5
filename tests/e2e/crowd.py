"""
Thousands of WebSocket clients in one process, made to cost little: ``python crowd.py <port> <path> <number>``.

Writes ``open`` when all are connected, and when all have been told to go one line of JSON: for each client the code,
the reason and the moment (monotonic, which all processes of a machine share).
"""

import asyncio
import json
import sys
import time

__all__: list[str] = []

AT_ONCE = 50
CLOSE, PING = 0x8, 0x9


class Client(asyncio.Protocol):
    """Shakes hands, answers pings, waits for a close frame and answers that."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._data = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[tuple[int, str, float]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take the answer, then the close frame."""
        self._data += data
        if not self.opened.done():
            head, end, self._data = self._data.partition(b"\r\n\r\n")
            if not end:
                self._data = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._end(0, head.decode(errors="replace"))
                return
            self.opened.set_result(None)
        while len(self._data) >= 2 and len(self._data) >= 2 + self._data[1]:
            kind, size = self._data[0] & 0x0F, self._data[1]
            payload, self._data = self._data[2 : 2 + size], self._data[2 + size :]
            # Frames of clients are masked; a mask of zeros changes nothing.
            if kind == PING:
                self._transport.write(bytes([0x8A, 0x80 | size]) + bytes(4) + payload)
            elif kind == CLOSE:
                self._transport.write(b"\x88\x82" + bytes(4) + payload[:2])
                self._end(int.from_bytes(payload[:2]), payload[2:].decode())

    def connection_lost(self, error: Exception | None) -> None:
        """Take note of an end without a close frame."""
        self._end(1006, repr(error))

    def _end(self, code: int, reason: str) -> None:
        if not self.opened.done():
            self.opened.set_result(None)
        if not self.ended.done():
            self.ended.set_result((code, reason, time.monotonic()))


async def main(port: int, path: str, number: int) -> None:
    """Connect them, a few at a time, and wait for all of them to end."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    while len(clients) < number:
        some = min(AT_ONCE, number - len(clients))
        connecting = (loop.create_connection(lambda: Client(request), "127.0.0.1", port) for _ in range(some))
        connected = [client for _, client in await asyncio.gather(*connecting)]
        await asyncio.gather(*(client.opened for client in connected))
        clients += connected
    say("open")
    say(json.dumps(await asyncio.gather(*(client.ended for client in clients))))


def say(line: str) -> None:
    """Write a line for whoever started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
