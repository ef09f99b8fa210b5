"""
A process with clients that come back: ``python -m harness.crew_process``. Orders and answers as of `load_process`.

A client that lost its connection waits between 0 and 1 s, and then connects to one of the servers that it may choose.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any

from harness.load_process import HANDSHAKE, Client

PATH = "/ws"
WAIT = 1.0
"""Seconds that a client waits at the most: the shorter, the less it hides how uneven the closes are."""

PATIENCE = 10.0
"""Seconds that an attempt to connect may take."""

AT_ONCE = 50
PER_ADDRESS = 4000
"""Clients that share a source address: one has 28,000 ports, and those just closed are not free at once."""


class Returning(Client):
    """One WebSocket of a client that comes back."""

    transport: asyncio.Transport | None = None  # type: ignore[assignment]
    crew: "Crew"
    number: int

    def connection_lost(self, error: Exception | None) -> None:
        """Come back, unless it has never been open: then whoever connects tries again."""
        was_open = self.opened.done() and not self.opened.cancelled() and not self.opened.exception()
        super().connection_lost(error)
        if was_open:
            self.crew.lost(self)


class Crew:
    """All clients of this process."""

    def __init__(self) -> None:
        self.homes: list[int] = []
        self.clients: dict[int, Returning] = {}
        self.returning: set[asyncio.Task[None]] = set()
        self._forget()

    def _forget(self) -> None:
        self.asked: list[float] = []
        self.opened: list[float] = []
        self.closed: list[tuple[float, int]] = []
        self.failures: Counter[str] = Counter()

    async def board(self, port: int, number: int, first: int) -> dict[str, Any]:
        """Open *number* WebSockets to *port*; *first* numbers them among all processes, for their source addresses."""
        for start in range(first, first + number, AT_ONCE):
            some = range(start, min(first + number, start + AT_ONCE))
            await asyncio.gather(*(self._connect(each, port) for each in some))
        self._forget()
        return {"open": len(self.clients)}

    async def head(self, ports: list[int]) -> dict[str, Any]:
        """Let clients come back to *ports* from now on, to each with the same chance."""
        self.homes = ports
        return {}

    async def flow(self, number: int, within: float) -> dict[str, Any]:
        """Wait until *number* have been closed and all of them are back; return all moments (monotonic, seconds)."""
        async with asyncio.timeout(within):
            while len(self.closed) < number or len(self.opened) < len(self.closed):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        answer = {"asked": self.asked, "opened": self.opened, "closed": self.closed, "failures": self.failures}
        self._forget()
        return answer

    async def leave(self) -> dict[str, Any]:
        """Cut all for good."""
        leaving, self.clients = list(self.clients.values()), {}
        for client in leaving:
            client.transport.abort()
        await asyncio.gather(*(client.ended for client in leaving))
        self._forget()
        return {}

    def lost(self, client: Returning) -> None:
        """Take note of a close, and let the client come back."""
        if self.clients.pop(client.number, None) is None:
            return  # it has left for good
        assert client.closed
        self.closed.append(client.closed)
        asyncio.get_running_loop().call_later(random.uniform(0, WAIT), self._come_back, client.number)

    def _come_back(self, number: int) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(number, random.choice(self.homes)))
        self.returning.add(task)
        task.add_done_callback(self.returning.discard)

    async def _connect(self, number: int, port: int) -> None:
        """Try until it is open."""
        while True:
            client = Returning(HANDSHAKE.format(path=PATH, port=port, more="").encode(), PATH)
            client.crew, client.number = self, number
            self.asked.append(time.monotonic())
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.get_running_loop().create_connection(
                        lambda client=client: client,  # type: ignore[misc]
                        "127.0.0.1",
                        port,
                        local_addr=(f"127.3.{number // PER_ADDRESS}.1", 0),
                    )
                    await client.opened
            except OSError as error:  # which a TimeoutError is too
                self.failures[repr(error)[:100]] += 1
                if client.transport:
                    client.transport.abort()
                await asyncio.sleep(random.uniform(0, WAIT))
            else:
                self.clients[number] = client
                self.opened.append(time.monotonic())
                return


async def main() -> None:
    """Obey, until the input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    crew = Crew()
    while line := await reader.readline():
        order = json.loads(line)
        try:
            answer = await getattr(crew, order.pop("do"))(**order)
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            answer = {"error": f"{error!r}: {len(crew.clients)} open, {len(crew.closed)} closed, {crew.failures}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
