"""A server for one connection, written by hand: queues instead of sockets, and a log of every message."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
GONE = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
SHED = {"type": "websocket.disconnect", "code": 1012, "reason": "server draining"}
CLOSE = {"type": "websocket.close", "code": 1012, "reason": "server draining"}


def text(value: str) -> dict[str, Any]:
    """Return a message from the client."""
    return {"type": "websocket.receive", "text": value}


def websocket_scope(path: str = "/ws", *, denial: bool = True, **more: Any) -> dict[str, Any]:
    """Return the scope of a WebSocket."""
    extensions = {"websocket.http.response": {}} if denial else {}
    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "subprotocols": []}
    return {**scope, "extensions": extensions, **more}


running: set[asyncio.Task[None]] = set()
"""Servers hold their tasks, and the event loop does not: a garbage collection could end a connection in mid-test."""


class HandServer:
    """
    Plays the server of one WebSocket.

    Attributes:
        scope: What the application is called with.
        sent: Every message that came out of the middleware, in order, when it was sent.
        clock: When each of them was, in seconds since the server was made.
        blocked: While set, ``send`` does not return: the peer does not read.
    """

    def __init__(self, app: Any, scope: dict[str, Any] | None = None, *, connected: bool = True) -> None:
        self.app = app
        self.scope = scope or websocket_scope()
        self.sent: list[dict[str, Any]] = []
        self.clock: list[float] = []
        self.blocked: Callable[[dict[str, Any]], bool] = lambda _: False
        self.refusing: BaseException | None = None
        self.receives = 0
        self._began = asyncio.get_running_loop().time()
        self._inbox: deque[dict[str, Any]] = deque([CONNECT] if connected else [])
        self._arrived = asyncio.Event()
        self.task = asyncio.create_task(self._run())
        running.add(self.task)
        self.task.add_done_callback(running.discard)

    async def _run(self) -> None:
        await self.app(self.scope, self.receive, self.send)

    def deliver(self, message: dict[str, Any]) -> None:
        """Let a message come from the client."""
        self._inbox.append(message)
        self._arrived.set()

    async def receive(self) -> dict[str, Any]:
        """Give the application its next message."""
        self.receives += 1
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox[0]
        # Like real servers: a disconnect is told again and again.
        if message["type"] != "websocket.disconnect":
            self._inbox.popleft()
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """Take a message of the application."""
        if self.refusing is not None:
            raise self.refusing
        if self.blocked(message):
            await asyncio.get_running_loop().create_future()
        self.sent.append(message)
        self.clock.append(asyncio.get_running_loop().time() - self._began)


async def settle(passes: int = 20) -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(passes):
        await asyncio.sleep(0)
