"""The shapes that WebSocket endpoints have in the wild, in a Starlette and in a FastAPI application."""

import asyncio
import logging
import os

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from starlette_drain import DrainMiddleware

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("endpoints")


async def uncaught(websocket: WebSocket) -> None:
    """Echo, and let the disconnect escape."""
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


async def send_only(websocket: WebSocket) -> None:
    """Never listen."""
    await websocket.accept()
    while True:
        await websocket.send_text("tick")
        await asyncio.sleep(0.05)


async def receive_only(websocket: WebSocket) -> None:
    """Never speak."""
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass


async def finally_close(websocket: WebSocket) -> None:
    """Close at the end, whatever the end was."""
    await websocket.accept()
    try:
        while True:
            await websocket.receive_text()
    finally:
        await websocket.close()


async def mid_send(websocket: WebSocket) -> None:
    """Send more than the client reads, and tell when that has become too much for it."""
    await websocket.accept()
    while True:
        alarm = asyncio.get_running_loop().call_later(0.2, logger.info, "under pressure")
        try:
            await websocket.send_text("x" * 300_000)
        finally:
            alarm.cancel()
        await asyncio.sleep(0)


async def parked(websocket: WebSocket) -> None:
    """Wait for something that never comes, and clean up."""
    await websocket.accept()
    try:
        await asyncio.Event().wait()
    finally:
        logger.info("parked endpoint cleaned up")


async def caught(websocket: WebSocket) -> None:
    """Catch the disconnect and write down what it says."""
    await websocket.accept()
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect as disconnect:
        logger.info("endpoint saw %s %s", disconnect.code, disconnect.reason)


async def in_children(websocket: WebSocket) -> None:
    """Receive and send in two tasks of a group, as the documentation of many libraries has it."""
    await websocket.accept()

    async def listen() -> None:
        while True:
            await websocket.receive_text()

    async def speak() -> None:
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as both:
        both.create_task(listen())
        both.create_task(speak())


async def undecided(websocket: WebSocket) -> None:
    """Take its time before it accepts."""
    logger.info("handshake begun")
    await asyncio.sleep(1000)


async def pid(_request: object) -> PlainTextResponse:
    """Tell the process id."""
    return PlainTextResponse(str(os.getpid()))


SHAPES = (uncaught, send_only, receive_only, finally_close, mid_send, parked, caught, in_children, undecided)

starlette_app = Starlette(
    routes=[Route("/pid", pid), *(WebSocketRoute(f"/{shape.__name__}", shape) for shape in SHAPES)],
    middleware=[Middleware(DrainMiddleware)],
)

fastapi_app = FastAPI()
fastapi_app.add_middleware(DrainMiddleware)
fastapi_app.add_route("/pid", pid)
for shape in SHAPES:
    fastapi_app.add_api_websocket_route(f"/{shape.__name__}", shape)
