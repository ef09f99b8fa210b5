"""python-socketio with its own client, over WebSocket and over long polling."""

import asyncio
from typing import Any

import socketio
from common import answering, say, wrapped


def app() -> Any:
    """Serve an echo and a room that ticks."""
    server = socketio.AsyncServer(async_mode="asgi")

    @server.event
    async def echo(sid: str, words: str) -> str:
        await server.emit("tick", to=sid)
        return words

    return answering(wrapped(socketio.ASGIApp(server)))


async def client(url: str) -> None:
    """Be answered over both transports; come back when the connection is lost."""

    async def follow(transport: str) -> tuple[socketio.AsyncClient, asyncio.Queue[str], asyncio.Queue[str]]:
        each = socketio.AsyncClient(reconnection_delay=0.2, randomization_factor=0)
        connected: asyncio.Queue[str] = asyncio.Queue()
        lost: asyncio.Queue[str] = asyncio.Queue()
        each.on("connect", lambda: connected.put_nowait(each.sid))
        each.on("disconnect", lost.put_nowait)
        await each.connect(url, transports=[transport])
        await connected.get()
        say(transport, "greeted", await each.call("echo", "hello"))
        return each, connected, lost

    by_polling, _, _ = await follow("polling")
    by_websocket, connected, lost = await follow("websocket")
    say("ready")
    say("lost", await lost.get())
    await connected.get()
    say("back", await by_websocket.call("echo", "again"))
    say("polling", await by_polling.call("echo", "still here"))
    await by_polling.disconnect()
    await by_websocket.disconnect()
