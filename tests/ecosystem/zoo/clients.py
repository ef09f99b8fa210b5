"""The clients of the zoo that are Python packages, each as its documentation begins."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

__all__ = ["CLIENTS", "Client", "is_threaded"]

PAGE = Path(__file__).parents[3] / "docs" / "clients.md"


@dataclass(frozen=True, slots=True)
class Client:
    """
    One of them.

    Attributes:
        package: Which is installed.
        kind: ``"websocket"`` or ``"event-stream"``.
        code: How it is called, as the table says.
        keep: Connects, and keeps the connection for as long as the client itself does: a coroutine function, or a
            function that gets a thread.
        dialect: What it speaks with its server.
    """

    package: str
    kind: str
    code: str
    keep: Callable[[str], Any]
    dialect: str = "plain"


def documented(heading: str) -> ModuleType:
    """Return the code that docs/clients.md has under a heading, as a module."""
    section = PAGE.read_text().partition(f"### {heading}\n")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code, heading
    module = ModuleType("documented")
    exec(compile(code[1], heading, "exec"), module.__dict__)
    module.__dict__["print"] = lambda *_words: None
    return module


async def aiohttp_alone(url: str) -> None:
    """Read until the end."""
    import aiohttp  # noqa: PLC0415 - each client is loaded when it is tried

    async with aiohttp.ClientSession() as client, client.ws_connect(url) as websocket:
        async for _ in websocket:
            pass


async def python_socketio(url: str) -> None:
    """Connect, and leave the rest to the package."""
    import socketio  # noqa: PLC0415

    client = socketio.AsyncClient()
    parts = urlsplit(url)
    await client.connect(f"http://{parts.netloc}", socketio_path=parts.path, transports=["websocket"])
    await client.wait()


async def gql(url: str) -> None:
    """Subscribe again and again in a session that reconnects."""
    from gql import Client as GraphQL  # noqa: PLC0415
    from gql import gql as query  # noqa: PLC0415
    from gql.transport.websockets import WebsocketsTransport  # noqa: PLC0415

    session = await GraphQL(transport=WebsocketsTransport(url=url)).connect_async(reconnecting=True)
    async for _ in session.subscribe(query("subscription { ticks }")):
        pass


def websocket_client(url: str) -> None:
    """Run for ever."""
    import websocket  # noqa: PLC0415

    websocket.WebSocketApp(url).run_forever(reconnect=5)


async def httpx_sse(url: str) -> None:
    """Read until the end."""
    import httpx  # noqa: PLC0415
    from httpx_sse import aconnect_sse  # noqa: PLC0415

    async with (
        httpx.AsyncClient(timeout=None, trust_env=False) as client,
        aconnect_sse(client, "GET", url) as source,
    ):
        async for _ in source.aiter_sse():
            pass


def documented_websockets(url: str) -> Any:
    """Do as the page has it."""
    return documented("Python: websockets").listen(url)


def documented_aiohttp(url: str) -> Any:
    """Do as the page has it."""
    return documented("Python: aiohttp").listen(url)


CLIENTS = {
    "websockets": Client("websockets", "websocket", "async for … in connect(url)", documented_websockets),
    "aiohttp": Client("aiohttp", "websocket", "ws_connect(url)", aiohttp_alone),
    "aiohttp-advised": Client("aiohttp", "websocket", "the code of docs/clients.md", documented_aiohttp),
    "websocket-client": Client("websocket-client", "websocket", "run_forever(reconnect=5)", websocket_client),
    "python-socketio": Client("python-socketio", "websocket", "AsyncClient()", python_socketio, "socket.io"),
    "gql": Client("gql", "websocket", "connect_async(reconnecting=True)", gql, "graphql-ws"),
    "httpx-sse": Client("httpx-sse", "event-stream", "aconnect_sse(client, …)", httpx_sse),
}


def is_threaded(client: Client) -> bool:
    """Tell whether a client blocks its thread."""
    return client.keep is websocket_client
