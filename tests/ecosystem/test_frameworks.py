"""Whatever an application is written in: its sessions are tracked and shed, its clients see why and come back."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import socketio
from server_process import REASON, ServerProcess, eventually
from websocket_clients import Listener
from websockets.asyncio.client import ClientConnection, connect

pytestmark = pytest.mark.anyio

Greeting = Callable[[ClientConnection], Awaitable[None]]


async def greet_echo(connection: ClientConnection) -> None:
    """Be heard and answered."""
    await connection.send("hello")
    assert await connection.recv() == "hello"


async def greet_ticks(connection: ClientConnection) -> None:
    """Hear two ticks."""
    assert [await connection.recv() for _ in range(2)] == ["tick", "tick"]


async def greet_socketio(connection: ClientConnection) -> None:
    """Shake hands as engine.io and Socket.IO do, and be answered."""
    assert str(await connection.recv()).startswith("0{")
    await connection.send("40")
    assert str(await connection.recv()).startswith("40{")
    await connection.send('421["echo","hello"]')
    while (answer := await connection.recv()) != '431["hello"]':
        assert answer == '42["tick"]'


async def greet_graphql(connection: ClientConnection) -> None:
    """Subscribe, and hear two events."""
    await connection.send(json.dumps({"type": "connection_init"}))
    assert json.loads(await connection.recv()) == {"type": "connection_ack"}
    await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": "subscription {ticks}"}}))
    for _ in range(2):
        assert json.loads(await connection.recv())["payload"]["data"] == {"ticks": "tick"}


ENDPOINTS: dict[str, dict[str, Greeting]] = {
    **{
        framework: {"/echo": greet_echo, "/ticks": greet_ticks}
        for framework in ("starlette", "fastapi", "bare", "channels", "quart")
    },
    "litestar": {"/echo": greet_echo, "/ticks": greet_ticks, "/loop": greet_ticks},
    "socketio": dict.fromkeys(
        (f"/socket.io/?EIO=4&transport=websocket{more}" for more in ("", "&ticks=1")), greet_socketio
    ),
    "strawberry": {"/graphql": greet_graphql},
}


SAYS = {
    "fastapi": "resource given back",
    "bare": f"the application saw {{'type': 'websocket.disconnect', 'code': 1012, 'reason': {REASON!r}}}",
}
"""What the endpoints of one path log at the end of each session."""


@pytest.mark.parametrize("framework", ENDPOINTS)
async def test_sessions_of_every_framework_are_shed_and_come_back(serve, framework):
    """Sessions are tracked, clients see 1012 and the reason, nothing is logged, and after a cancel they come back."""
    server = serve(f"frameworks:{framework}", "--factory", env={"DRAIN_SIGTERM_WINDOW": "0.5"})
    async with greeted(server, framework, 3) as clients:
        _, before = await asyncio.to_thread(server.drain)
        await asyncio.to_thread(server.drain, "POST", window=0.5)
        goodbyes = [(await each.close_policy()).words for each in clients]
    assert before["sessions"]["open"] == len(clients)
    assert goodbyes == [(1012, REASON)] * len(clients)

    await asyncio.to_thread(server.drain, "DELETE")
    async with greeted(server, framework, 2) as clients:
        server.signal()
        goodbyes = [(await each.close_policy()).words for each in clients]
        await asyncio.to_thread(server.wait)
    assert goodbyes == [(1012, REASON)] * len(clients)
    assert server.trouble == []
    if framework in SAYS:
        assert server.log.count(SAYS[framework]) == 3 + 2


async def test_a_socketio_client_comes_back_by_itself(serve):
    """The session is lost and made anew: python-socketio's own client reconnects, and its server hears of both."""
    server = serve("frameworks:socketio", "--factory")
    client = socketio.AsyncClient(reconnection_delay=0.2, randomization_factor=0)
    connected: asyncio.Queue[str] = asyncio.Queue()
    lost: asyncio.Queue[str] = asyncio.Queue()
    client.on("connect", lambda: connected.put_nowait(client.sid))
    client.on("disconnect", lost.put_nowait)

    await client.connect(server.url, transports=["websocket"])
    first = await connected.get()
    await asyncio.to_thread(server.drain, "POST", window=0)
    assert await asyncio.wait_for(lost.get(), 10) == client.reason.TRANSPORT_ERROR
    await asyncio.to_thread(server.drain, "DELETE")
    assert await asyncio.wait_for(connected.get(), 10) != first
    assert await client.call("echo", "again") == "again"
    await client.disconnect()

    await asyncio.to_thread(eventually, lambda: server.log.count("the application saw") == 2, "a disconnect was lost")
    assert server.trouble == []


@asynccontextmanager
async def greeted(server: ServerProcess, framework: str, each: int) -> AsyncIterator[list[Listener]]:
    """Connect so many clients to each endpoint, and greet each as its protocol wants it."""
    protocol = ["graphql-transport-ws"] if framework == "strawberry" else None
    async with AsyncExitStack() as stack:
        clients = []
        for path, greet in list(ENDPOINTS[framework].items()) * each:
            connection = await stack.enter_async_context(
                connect(server.websocket(path), subprotocols=protocol, compression=None, proxy=None)
            )
            await asyncio.wait_for(greet(connection), 10)
            clients.append(Listener(connection))
        yield clients
