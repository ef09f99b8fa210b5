"""The clients of the demo."""

import asyncio
import json
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

__all__ = ["CUT", "Devices"]

CUT = 1006
"""What a client notes when its connection ends without a close frame."""

CONNECTING = 50
"""Clients that connect at a time."""


class Devices:
    """Real WebSocket clients, and when and with which code each lost its connection."""

    def __init__(self, port: int) -> None:
        self.open: set[int] = set()
        self.closes: list[tuple[float, int]] = []
        self.close_hooks = 0
        self._port = port
        self._gate = asyncio.Semaphore(CONNECTING)
        self._living: list[asyncio.Task[None]] = []

    async def connect(self, count: int) -> None:
        """
        Connect *count* devices, and return when all are there.

        Raises:
            RuntimeError: If one cannot connect.
        """
        try:
            async with asyncio.TaskGroup() as connecting:
                for number in range(count):
                    connecting.create_task(self._connect(number))
        except* (OSError, WebSocketException) as failed:
            msg = f"{len(failed.exceptions)} of {count} devices could not connect: {failed.exceptions[0]!r}"
            raise RuntimeError(msg) from failed

    async def disconnect(self) -> None:
        """Let those go that are still there."""
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)

    async def _connect(self, number: int) -> None:
        async with self._gate:
            uri = f"ws://127.0.0.1:{self._port}/devices/{number}"
            websocket = await connect(uri, compression=None, open_timeout=30)
        self.open.add(number)
        self._living.append(asyncio.create_task(self._live(number, websocket)))

    async def _live(self, number: int, websocket: ClientConnection) -> None:
        try:
            while True:
                await self._obey(websocket, json.loads(await websocket.recv()))
        except ConnectionClosed:
            self.closes.append((time.monotonic(), websocket.close_code or CUT))
        finally:
            self.open.discard(number)
            websocket.transport.abort()

    async def _obey(self, websocket: ClientConnection, message: dict[str, Any]) -> None:
        if message["type"] == "command":
            await websocket.send(json.dumps({"type": "ack", "id": message["id"]}))
        elif message["type"] == "goodbye":
            self.close_hooks += 1
