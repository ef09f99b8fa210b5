"""The shapes that WebSocket endpoints have in the wild, and the two frameworks to put them in."""

import asyncio
from contextlib import suppress

from fastapi import FastAPI
from fastapi import WebSocket as FastAPIWebSocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def uncaught(websocket: WebSocket) -> None:
    """Let the disconnect escape."""
    await websocket.accept()
    while True:
        await websocket.receive_text()


async def send_only(websocket: WebSocket) -> None:
    """Never listen."""
    await websocket.accept()
    while True:
        await websocket.send_text("tick")
        await asyncio.sleep(1)


async def receive_only(websocket: WebSocket) -> None:
    """Never speak."""
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass


async def finally_close(websocket: WebSocket) -> None:
    """Close at the end, whatever the end was."""
    await websocket.accept()
    try:
        await websocket.receive_text()
    finally:
        await websocket.close()


async def except_and_close(websocket: WebSocket) -> None:
    """Catch the disconnect and close all the same."""
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        await websocket.receive_text()
    await websocket.close(1000)


async def parked(websocket: WebSocket) -> None:
    """Wait for something that is neither a message nor a send."""
    await websocket.accept()
    await asyncio.get_running_loop().create_future()


async def child_receives(websocket: WebSocket) -> None:
    """Leave receiving to a task."""
    await websocket.accept()
    child = asyncio.create_task(websocket.receive_text())
    await child


async def task_group(websocket: WebSocket) -> None:
    """Listen and speak in two tasks of a group."""
    await websocket.accept()

    async def listen() -> None:
        while True:
            await websocket.receive_text()

    async def speak() -> None:
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        group.create_task(speak())


async def parked_group(websocket: WebSocket) -> None:
    """Receive beside a task that notices nothing."""
    await websocket.accept()
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(10_000))
        group.create_task(websocket.receive_text())


async def wait_for(websocket: WebSocket) -> None:
    """Receive with a limit, by wait_for."""
    await websocket.accept()
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(websocket.receive_text(), 3)
        await websocket.send_text("tick")


async def timeout(websocket: WebSocket) -> None:
    """Receive with a limit, by timeout."""
    await websocket.accept()
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(3):
                await websocket.receive_text()
        await websocket.send_text("tick")


SHAPES = {
    endpoint.__name__: endpoint
    for endpoint in (
        uncaught,
        send_only,
        receive_only,
        finally_close,
        except_and_close,
        parked,
        child_receives,
        task_group,
        parked_group,
        wait_for,
        timeout,
    )
}


def fastapi_app(endpoint):
    """Return a FastAPI application with one endpoint."""
    app = FastAPI()

    @app.websocket("/ws")
    async def ws(websocket: FastAPIWebSocket) -> None:
        await endpoint(websocket)

    return app


def starlette_app(endpoint):
    """Return a Starlette application with one endpoint."""
    return Starlette(routes=[WebSocketRoute("/ws", endpoint)])
