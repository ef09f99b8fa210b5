"""One lean client: no task, except while it connects."""

import asyncio
import math
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import cast
from urllib.parse import urlsplit

from example_app.rollout.clients.backoff import Behaviour, Traits
from example_app.rollout.clients.records import NO_CLOSE_FRAME, Loss, Records
from example_app.rollout.clients.wire import CLOSE, PING, PONG, FrameReader, frame, handshake, read_answer

__all__ = ["Client", "Habits"]

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: choose the port when the connection is made, so that a pair of addresses shares no ports with another."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What all clients of a fleet have in common."""

    url: str
    behaviour: Behaviour
    honours_retry_after: bool = False


class Attempt(asyncio.Protocol):
    """One attempt to connect, and the WebSocket that comes of it; a client listens to its latest attempt only."""

    __slots__ = ("_client", "_head", "_patience", "_reader", "_transport", "code", "is_open")

    def __init__(self, client: "Client") -> None:
        self.code = NO_CLOSE_FRAME
        self.is_open = False
        self._client = client
        self._head = b""
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._patience = asyncio.get_running_loop().call_later(client.patience, self.give_up, "timeout")

    async def connect(self, host: str, port: int) -> None:
        """Connect; whatever goes wrong, the client hears of it once."""
        loop = asyncio.get_running_loop()
        door = _door(self._client.number)
        try:
            await loop.sock_connect(door, (host, port))
            self._client.reached()
            await loop.create_connection(lambda: self, sock=door)
        except OSError as error:
            door.close()
            self.give_up(type(error).__name__)
        if self._client.attempt is not self:
            self.abort()  # it has taken too long

    def give_up(self, reason: str, retry_after: float = 0.0) -> None:
        """Tell the client that nothing came of it."""
        self._patience.cancel()
        self.abort()
        self._client.failed(self, reason, retry_after)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport:
            self._transport.abort()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    # The protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._client.request)

    def data_received(self, data: bytes) -> None:
        """Take the answer, then frames."""
        if self.is_open:
            self._take_frames(data)
            return
        self._head += data
        answer = read_answer(self._head)
        if answer is None or self._client.attempt is not self:
            return
        status, headers, rest = answer
        if status == 101:
            self.is_open = True
            self._patience.cancel()
            self._client.opened()
            if self._client.is_deaf and self._transport:
                self._transport.pause_reading()
            self._take_frames(rest)
        else:
            after = headers.get("retry-after", "")
            self.give_up(f"HTTP {status}", float(after) if after.isdigit() else 0.0)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio gives it
        """Let the client come back."""
        if self.is_open:
            self._client.lost(self)
        else:
            self.give_up("closed during the handshake")

    def _take_frames(self, data: bytes) -> None:
        for opcode, payload in self._reader.feed(data):
            if opcode == CLOSE:
                self.code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
                self._write(frame(CLOSE, payload[:2]))
                if self._transport:
                    self._transport.close()
            elif opcode == PING:
                self._write(frame(PONG, payload))

    def _write(self, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)


class Client:
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
        "_failures", "_habits", "_loss", "_place", "_records", "_task", "_traits", "attempt", "is_deaf", "is_open",
        "number", "request", "stopped",
    )  # fmt: skip

    def __init__(self, number: int, habits: Habits, records: Records, luck: Random, *, is_deaf: bool = False) -> None:
        self.number = number
        self.is_deaf = is_deaf
        self.is_open = self.stopped = False
        self.attempt: Attempt | None = None
        url = urlsplit(habits.url)
        self._place = url.hostname or "127.0.0.1", url.port or 80
        self.request = handshake(f"{url.path.rstrip('/')}/{number}", url.netloc)
        self._habits = habits
        self._records = records
        self._traits = Traits(luck)
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._loss: tuple[float, int] | None = None

    def connect(self) -> None:
        """Try to connect."""
        if not self.stopped:
            self.attempt = Attempt(self)
            self._task = asyncio.get_running_loop().create_task(self.attempt.connect(*self._place))

    def stop(self) -> None:
        """Leave for good."""
        self.stopped = True
        if self._task:
            self._task.cancel()
        if self.attempt:
            self.attempt.abort()

    def look(self) -> None:
        """Let a deaf client see what has been waiting for it."""
        if self.is_deaf and self.is_open and self.attempt:
            self.attempt.resume_reading()

    @property
    def loss(self) -> Loss | None:
        """The loss that was not made good so far."""
        return Loss(self.number, *self._loss, None) if self._loss else None

    # What an attempt calls

    @property
    def patience(self) -> float:
        """Seconds that an attempt may take."""
        return self._habits.behaviour.patience

    def reached(self) -> None:
        """Remember that the balancer has a new connection."""
        self._records.connected.append(time.time())

    def opened(self) -> None:
        """Remember that there is a connection."""
        now = time.time()
        self.is_open = True
        self._failures = 0
        self._records.opened.append(now)
        if self._loss:
            self._records.losses.append(Loss(self.number, *self._loss, now))
            self._loss = None

    def lost(self, attempt: Attempt) -> None:
        """Remember what was lost, and come back."""
        if self.stopped or attempt is not self.attempt:
            return
        self.is_open = False
        if self.is_deaf:
            self._records.deaf[str(attempt.code)] += 1
        else:
            self._loss = time.time(), attempt.code
            self._come_back(0.0)

    def failed(self, attempt: Attempt, reason: str, retry_after: float) -> None:
        """Remember that nothing came of an attempt, and try again; only the first reason counts."""
        if self.stopped or attempt is not self.attempt:
            return
        self.attempt = None
        self._records.failures[reason] += 1
        self._failures += 1
        self._come_back(retry_after if self._habits.honours_retry_after else 0.0)

    def _come_back(self, at_least: float) -> None:
        wait = max(self._habits.behaviour.wait(self._failures, self._traits), at_least)
        if math.isfinite(wait):  # it has not given up
            asyncio.get_running_loop().call_later(wait, self.connect)


def _door(number: int) -> socket.socket:
    """Return a socket with a source address of its own for every 1,000 clients: one address has 28,000 ports."""
    door = socket.socket()
    door.setblocking(False)
    with suppress(OSError):  # only Linux has the whole of 127.0.0.0/8 for itself
        door.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        door.bind((f"127.1.{number // 1000 % 250}.1", 0))
    return door
