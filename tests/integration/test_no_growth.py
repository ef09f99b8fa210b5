"""Nothing is left behind by drains, cancels and sessions: counted, not timed; `make bench` counts a million."""

import asyncio
import gc
import sys

import pytest

from starlette_drain import DrainMiddleware

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.unmeasured]  # coverage.py remembers what ran

AT_ONCE = 100
BLOCKS = 300
"""Blocks of memory that come and go by themselves: free lists, caches. One left by each session would be thousands."""


class Server:
    """Opens idle sessions, and closes them as their clients would."""

    def __init__(self):
        self.middleware = DrainMiddleware(self.application)
        self.drain = self.middleware.drain
        self.clients = set()

    async def application(self, _scope, receive, send):
        """Accept, and wait for the end."""
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"

    async def open(self, number):
        """Open sessions."""
        self.tasks = [asyncio.create_task(self._serve()) for _ in range(number)]
        await self.settle()

    async def close(self):
        """Let the clients of all that are open leave."""
        for client in self.clients:
            client.set_result({"type": "websocket.disconnect", "code": 1000})
        await asyncio.gather(*self.tasks)

    async def settle(self):
        """Let everything run that is ready, and what that makes ready."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def _serve(self):
        client = asyncio.get_running_loop().create_future()
        messages = iter([{"type": "websocket.connect"}])

        async def receive():
            return next(messages, None) or await client

        async def send(message):
            assert message["type"] in ("websocket.accept", "websocket.close")

        self.clients.add(client)
        try:
            await self.middleware({"type": "websocket", "path": "/ws"}, receive, send)
        finally:
            self.clients.discard(client)


async def grown(once, rounds):
    """Return the objects, blocks and tasks that the rounds after the third have added."""
    counts = []
    for place in range(rounds):
        await once(place)
        if place in (2, rounds - 1):
            await asyncio.sleep(60)  # no timer is left
            for _ in range(5):
                gc.collect()  # each takes one more level of nested tuples off the list, those of modules too
            counts.append((len(gc.get_objects()), sys.getallocatedblocks(), len(asyncio.all_tasks())))
    return tuple(last - first for first, last in zip(*counts, strict=True))


async def test_drains_and_cancels_leave_nothing_behind():
    """Twenty, every other cancelled half way and the sessions then closed by their clients."""
    server = Server()

    async def once(place):
        await server.open(AT_ONCE)
        await server.drain.start(window=10)
        await asyncio.sleep(5 if place % 2 else 11)
        assert bool(server.clients) is bool(place % 2)
        await server.drain.cancel()
        await server.settle()
        await server.close()
        assert server.drain.statistics().open == 0

    objects, blocks, tasks = await grown(once, 20)
    assert (objects, tasks) == (0, 0)
    assert blocks < BLOCKS


async def test_sessions_leave_nothing_behind():
    """Twenty thousand come and go, a hundred at a time."""
    server = Server()

    async def once(_place):
        await server.open(AT_ONCE)
        assert server.drain.statistics().open == AT_ONCE
        await server.close()
        assert server.drain.statistics().open == 0

    objects, blocks, tasks = await grown(once, 200)
    assert (objects, tasks) == (0, 0)
    assert blocks < BLOCKS
