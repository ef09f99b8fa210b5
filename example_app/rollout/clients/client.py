"""One lean client: a protocol without a task, except while it connects."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import cast
from urllib.parse import urlsplit

from example_app.rollout.clients.backoff import Behaviour, Traits
from example_app.rollout.clients.records import NO_CLOSE_FRAME, Loss, Records
from example_app.rollout.clients.wire import CLOSE, PING, PONG, FrameReader, frame, handshake, read_answer

__all__ = ["Client", "Habits"]

OPEN_WITHIN = 10.0
"""Seconds for connection and handshake: what phoenix.js and Python's websockets allow."""

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: choose the port when the connection is made, so that a pair of addresses shares no ports with another."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What all clients of a fleet have in common."""

    url: str
    behaviour: Behaviour
    honours_retry_after: bool = False


class Client(asyncio.Protocol):
    """
    A client that keeps one WebSocket open, and comes back when it ends.

    Args:
        number: Names it.
        habits: Where it connects and how it comes back.
        records: Where it remembers.
        luck: Its source of it.
        is_deaf: Whether it never reads once connected.
    """

    __slots__ = (
        "_attempt", "_code", "_habits", "_has_failed", "_head", "_host", "_loss", "_path", "_patience", "_port",
        "_reader", "_records", "_retry", "_task", "_traits", "_transport", "is_deaf", "is_open", "number", "stopped",
    )  # fmt: skip

    def __init__(self, number: int, habits: Habits, records: Records, luck: Random, *, is_deaf: bool = False) -> None:
        self.number = number
        self.is_deaf = is_deaf
        self.is_open = self.stopped = False
        self._habits = habits
        self._records = records
        self._traits = Traits(luck)
        url = urlsplit(habits.url)
        self._host, self._port = url.hostname or "127.0.0.1", url.port or 80
        self._path = f"{url.path.rstrip('/')}/{number}"
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._attempt = 0
        self._retry = 0.0
        self._loss: tuple[float, int] | None = None
        self._clear()

    def connect(self) -> None:
        """Try to connect, from now until it works."""
        if not self.stopped:
            self._clear()
            self._records.attempts.append(time.time())
            self._task = asyncio.get_running_loop().create_task(self._connect())

    def stop(self) -> None:
        """Leave for good."""
        self.stopped = True
        if self._task:
            self._task.cancel()
        if self._transport:
            self._transport.abort()

    def look(self) -> None:
        """Let a deaf client see what has been waiting for it."""
        if self.is_deaf and self.is_open and self._transport:
            self._transport.resume_reading()

    # The protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(handshake(self._path, f"{self._host}:{self._port}"))

    def data_received(self, data: bytes) -> None:
        """Take the answer, then frames."""
        if self.is_open:
            self._take_frames(data)
            return
        self._head += data
        answer = read_answer(self._head)
        if answer is None:
            return
        status, headers, rest = answer
        if status == 101:
            self._opened()
            self._take_frames(rest)
        else:
            self._fail(f"HTTP {status}")
            if self._habits.honours_retry_after and headers.get("retry-after", "").isdigit():
                self._retry = float(headers["retry-after"])
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Remember what was lost, and come back."""
        self._transport = None
        self._stop_waiting()
        if self.stopped:
            return
        if self.is_open and self.is_deaf:
            self._records.deaf[str(self._code)] += 1
            self.is_open = False
            return
        if self.is_open:
            self._loss = time.time(), self._code
            self._attempt = 0
        else:
            self._fail("closed during the handshake")
        self.is_open = False
        self._come_back()

    # The works

    def _clear(self) -> None:
        self._head = b""
        self._has_failed = False
        self._reader = FrameReader()
        self._code = NO_CLOSE_FRAME
        self._retry = 0.0

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        door = _door(self.number)
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                await loop.sock_connect(door, (self._host, self._port))
                protocol: Callable[[], Client] = lambda: self  # noqa: E731
                await loop.create_connection(protocol, sock=door)
        except (OSError, TimeoutError) as error:
            door.close()
            self._fail("timeout" if isinstance(error, TimeoutError) else type(error).__name__)
            self._come_back()
            return
        if not self.is_open:
            self._patience = loop.call_later(OPEN_WITHIN, self._lose_patience)

    def _lose_patience(self) -> None:
        self._fail("timeout")
        self._abort()

    def _stop_waiting(self) -> None:
        # The task that connects ends by itself: to cancel it would close the connection.
        if self._patience:
            self._patience.cancel()
            self._patience = None

    def _opened(self) -> None:
        now = time.time()
        self.is_open = True
        self._records.opened.append(now)
        if self._loss:
            self._records.losses.append(Loss(self.number, *self._loss, now))
            self._loss = None
        self._stop_waiting()
        if self.is_deaf and self._transport:
            self._transport.pause_reading()

    def _take_frames(self, data: bytes) -> None:
        for opcode, payload in self._reader.feed(data):
            if opcode == CLOSE:
                self._code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
                self._write(frame(CLOSE, payload[:2]))
                if self._transport:
                    self._transport.close()
            elif opcode == PING:
                self._write(frame(PONG, payload))

    def _write(self, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def _abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        if not self.stopped and not self._has_failed:
            self._records.failures[reason] += 1
            self._has_failed = True

    def _come_back(self) -> None:
        if not self.stopped:
            wait = max(self._habits.behaviour(self._attempt, self._traits), self._retry)
            self._attempt += 1
            asyncio.get_running_loop().call_later(wait, self.connect)

    def lost_for_good(self) -> Loss | None:
        """Return the loss that was not made good so far."""
        return Loss(self.number, *self._loss, None) if self._loss else None


def _door(number: int) -> socket.socket:
    """Return a socket with a source address of its own for every 1,000 clients: one address has 28,000 ports."""
    door = socket.socket()
    door.setblocking(False)
    with suppress(OSError):  # only Linux has the whole of 127.0.0.0/8 for itself
        door.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        door.bind((f"127.1.{number // 1000 % 250}.1", 0))
    return door
