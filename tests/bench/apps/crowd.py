"""Sessions without sockets: an ordinary idle application, and a server that is as little as a server can be."""

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close", "code": 1012, "reason": "server draining"}
CONNECT = {"type": "websocket.connect"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1012, "reason": "server draining"}

AT_ONCE = 500
TICK = 0.005

Message = dict[str, Any]


async def idle(_scope, receive, send) -> None:
    """Accept, and wait for the end."""
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] != "websocket.disconnect":
        pass


class Line:
    """The server's end of one session: where its messages come from, and where its close goes."""

    __slots__ = ("_crowd", "_is_connected", "gone")

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._is_connected = False
        self.gone: asyncio.Future[Message] = crowd.loop.create_future()

    async def receive(self) -> Message:
        """Return the connect, then nothing until the end."""
        if self._is_connected:
            return await self.gone
        self._is_connected = True
        return CONNECT

    async def send(self, message: Message) -> None:
        """Take note of the moment of a close."""
        if message["type"] == "websocket.close":
            self._crowd.closed_at.append(time.monotonic())
            self._crowd.codes.append(message["code"])
            if self._crowd.thaw:
                await self._crowd.thaw.wait()


class Crowd:
    """
    All sessions of one application.

    Args:
        app: The application.

    Attributes:
        closed_at: When each close was sent (monotonic, seconds). An array: objects would lie between the sessions, and
            keep memory from going back to the system when those have gone.
        codes: With which code.
        lines: Those that are open.
        thaw: While this is an event that is not set, clients do not read: a close does not get through.
    """

    def __init__(self, app: Callable[..., Awaitable[Any]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.app = app
        self.closed_at = array("d")
        self.codes = array("H")
        self.lines: set[Line] = set()
        self.thaw: asyncio.Event | None = None

    async def open(self, number: int) -> None:
        """Open *number* sessions, and return when all wait for a message."""
        for start in range(0, number, AT_ONCE):
            for _ in range(min(AT_ONCE, number - start)):
                self.loop.create_task(self._serve(Line(self)))
            await settle()

    async def close_evenly(self, seconds: float) -> None:
        """Close all as a simple loop would: the next when it is due, those due within one tick together."""
        lines = list(self.lines)
        start = self.loop.time()
        for number, line in enumerate(lines, 1):
            if (early := start + seconds * number / len(lines) - self.loop.time()) > 0:
                await asyncio.sleep(max(early, TICK))
            await line.send(CLOSE)
            line.gone.set_result(DISCONNECT)
        await settle()

    async def close(self, lines: Iterable[Line]) -> None:
        """Let the clients of *lines* leave, and return when they have gone."""
        for line in list(lines):
            line.gone.set_result(DISCONNECT)
        await settle()

    def check(self, number: int, left: int = 0) -> None:
        """Make sure that *number* sessions were closed, all with 1012, and how many are left; forget the closes."""
        assert len(self.lines) == left, f"{len(self.lines)} are left"
        assert len(self.codes) == number, f"{len(self.codes)} of {number} were closed"
        assert set(self.codes) == {1012}
        self.closed_at, self.codes = array("d"), array("H")

    async def _serve(self, line: Line) -> None:
        self.lines.add(line)
        try:
            await self.app(scope(), line.receive, line.send)
        finally:
            self.lines.discard(line)


async def settle() -> None:
    """Let everything run that is ready, and what that makes ready."""
    for _ in range(5):
        await asyncio.sleep(0)


def scope() -> dict[str, Any]:
    """Return what uvicorn gives an application, new for each connection."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "path": "/ws",
        "raw_path": b"/ws",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade")],
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
