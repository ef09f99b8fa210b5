"""Time that jumps, for clients in Python: when nothing is under way, the clock moves on to what comes next."""

import asyncio
import random
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

__all__ = ["JumpingLoop", "Seen", "chances", "watch"]


class Line:
    """The control line to the server."""

    def __init__(self, port: int) -> None:
        self._socket = CONNECTIONS.plain(("127.0.0.1", port))
        self._socket.sendall(b"zoo\n")

    def say(self, word: str) -> int:
        """Say something; return how many connections have been let in so far."""
        self._socket.sendall(f"{word}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._socket.recv(100)
        return int(answer)


class JumpingSelector(selectors.BaseSelector):
    """Instead of waiting, ask the server whether all is quiet, and move the clock."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 0.0
        self.line: Line | None = None
        self._quiet = -1
        """How many connections had been begun when all was quiet; -1 where something has come since."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; where nothing is, not even after the server has answered all, let *timeout* pass."""
        ready = self._real.select(0)
        for _ in range(2 if self.line and self._is_busy(ready) and timeout != 0 else 0):
            if not ready:
                self.line.say("ping")
                ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return self._real.select(0.01)
        self._quiet = len(CONNECTIONS.all)
        self.now += timeout
        return []

    def _is_busy(self, ready: list[Any]) -> bool:
        """Whether anything has come or gone since all was quiet."""
        if ready:
            self._quiet = -1
        return self._quiet != len(CONNECTIONS.all)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a file."""
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return what is watched."""
        return self._real.get_map()

    def close(self) -> None:
        """Close the real selector."""
        self._real.close()


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps."""

    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)
        self.slow_callback_duration = 1e9

    def time(self) -> float:
        """Return the seconds that have passed for the clients."""
        return self.selector.now


class Sleeps(threading.local):
    """The clock of a client that has a thread: it moves when the client sleeps."""

    now = 0.0


class Seen:
    """Every connection that was begun: the port it came from, when, and when it was given up."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.loop: JumpingLoop | None = None
        self.sleeps = Sleeps()
        self._open: dict[int, dict[str, Any]] = {}
        self._connect = socket.socket.connect
        self._close = socket.socket.close

    def now(self) -> float:
        """Return the time of the client that asks."""
        return self.loop.time() if self.loop else self.sleeps.now

    def plain(self, address: tuple[str, int]) -> socket.socket:
        """Connect without taking note."""
        plain = socket.socket()
        self._connect(plain, address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain

    def connect(self, each: socket.socket, address: Any) -> None:
        """Take the place of `socket.connect`."""
        seen = {"opened": self.now() * 1000, "closed": None, "port": None}
        self.all.append(seen)
        self._open[id(each)] = seen
        try:
            self._connect(each, address)
        finally:
            with suppress(OSError):
                seen["port"] = each.getsockname()[1]

    def close(self, each: socket.socket) -> None:
        """Take the place of `socket.close`."""
        if seen := self._open.pop(id(each), None):
            seen["closed"] = self.now() * 1000
        self._close(each)


CONNECTIONS = Seen()


def watch() -> None:
    """Take note of connections from now on, and let threads sleep without waiting."""

    def connect(each: socket.socket, address: Any) -> None:  # a function, so that it is bound to the socket
        CONNECTIONS.connect(each, address)

    def close(each: socket.socket) -> None:
        CONNECTIONS.close(each)

    def sleep(seconds: float) -> None:
        CONNECTIONS.sleeps.now += seconds

    socket.socket.connect, socket.socket.close, time.sleep = connect, close, sleep


class Chances(random.Random):
    """Luck that is told what it is."""

    value = 0.0

    def random(self) -> float:
        """Return what was told."""
        return self.value


def chances() -> Chances:
    """Let the module `random` do as it is told."""
    told = Chances()
    for name in ("random", "uniform"):
        setattr(random, name, getattr(told, name))
    return told
