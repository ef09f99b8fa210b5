"""As much of RFC 6455 as a client needs that only listens: pure, fed with bytes."""

import os
from collections.abc import Iterator

__all__ = ["CLOSE", "PING", "PONG", "FrameReader", "frame", "handshake", "read_answer"]

CLOSE, PING, PONG = 0x8, 0x9, 0xA
END_OF_HEAD = b"\r\n\r\n"


def handshake(path: str, host: str) -> bytes:
    """Return the request that opens a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def read_answer(data: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """Return status, headers and the bytes after the head of the answer; ``None`` while it is incomplete."""
    head, separator, rest = data.partition(END_OF_HEAD)
    if not separator:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    fields = (line.partition(":") for line in lines)
    return status, {name.strip().lower(): value.strip() for name, _, value in fields}, rest


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """Return a masked control frame; its payload has at most 125 bytes."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked


class FrameReader:
    """Takes bytes and yields the frames in them."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield opcode and payload of every frame that is complete."""
        buffer = self._buffer + data if self._buffer else data
        while (size := _size(buffer)) is not None and len(buffer) >= size[1]:
            start, end = size
            yield buffer[0] & 0x0F, buffer[start:end]
            buffer = buffer[end:]
        self._buffer = buffer


def _size(buffer: bytes) -> tuple[int, int] | None:
    """Return where the payload of the first frame begins and ends; servers do not mask."""
    if len(buffer) < 2:
        return None
    length, start = buffer[1] & 0x7F, 2
    if length > 125:
        start = 4 if length == 126 else 10
        if len(buffer) < start:
            return None
        length = int.from_bytes(buffer[2:start], "big")
    return start, start + length
