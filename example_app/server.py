"""
A small stream server: devices keep a WebSocket open for a day, and receive commands posted to an HTTP endpoint.

    uvicorn example_app.server:app

The one line ``Middleware(DrainMiddleware, ...)`` makes it drain. The farewell message and the hold are optional.
Environment variables configure it (``DRAIN_WINDOW=240``, for example).
"""

import asyncio
import json
import logging
import os
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from starlette_drain import Drain, DrainMiddleware, WebSocketSession, session_of

__all__ = ["app", "create_app"]

ACKNOWLEDGED_WITHIN = 5.0
"""Seconds that a device has to acknowledge a command."""


class Device:
    """A connected device."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._awaited: dict[str, asyncio.Future[None]] = {}

    async def order(self, command: Any) -> tuple[str, bool]:
        """Send *command*; return its id, and whether the device acknowledged it in time."""
        command_id = uuid4().hex
        acknowledged = self._awaited[command_id] = asyncio.get_running_loop().create_future()
        try:
            # Optional: inside this block a drain does not ask the device to leave.
            async with session_of(self._websocket).hold(), asyncio.timeout(ACKNOWLEDGED_WITHIN):
                await self._websocket.send_json({"type": "command", "id": command_id, "command": command})
                await acknowledged
        except (TimeoutError, WebSocketDisconnect):
            return command_id, False
        else:
            return command_id, True
        finally:
            del self._awaited[command_id]

    def acknowledged(self, command_id: Any) -> None:
        """Record an acknowledgement; late and duplicate ones are ignored."""
        awaited = self._awaited.get(command_id) if isinstance(command_id, str) else None
        if awaited and not awaited.done():
            awaited.set_result(None)

    def gone(self) -> None:
        """Fail all calls of `order` that wait for this device, which has disconnected."""
        for awaited in self._awaited.values():
            if not awaited.done():
                awaited.set_exception(WebSocketDisconnect())


async def connect(websocket: WebSocket) -> None:
    """Serve one device until it disconnects; here a drain looks like any other disconnect."""
    devices: dict[str, Device] = websocket.app.state.devices
    device_id: str = websocket.path_params["device_id"]
    await websocket.accept()
    device = devices[device_id] = Device(websocket)
    try:
        async for text in websocket.iter_text():
            try:
                message = json.loads(text)
            except ValueError:
                continue
            if isinstance(message, dict) and message.get("type") == "ack":
                device.acknowledged(message.get("id"))
    finally:
        device.gone()
        # The device may have reconnected before this connection ended.
        if devices.get(device_id) is device:
            del devices[device_id]


async def publish(request: Request) -> Response:
    """Send a command to a device: 202 with whether it was acknowledged, 404 if the device is not connected here."""
    devices: dict[str, Device] = request.app.state.devices
    device = devices.get(request.path_params["device_id"])
    if device is None:
        return JSONResponse({"error": "no such device is connected here"}, 404)
    try:
        command = await request.json()
    except ValueError:
        return JSONResponse({"error": "send the command as JSON"}, 400)
    command_id, acknowledged = await device.order(command)
    return JSONResponse({"id": command_id, "acknowledged": acknowledged}, 202)


async def health(_request: Request) -> Response:
    """
    Answer the balancer's health check.

    It stays healthy while draining: ECS stops a task whose check fails, which would cut its sessions.
    """
    return JSONResponse({"status": "ok"})


async def farewell(session: WebSocketSession) -> None:
    """Send a message right before the close frame (1012). Optional."""
    await session.send_json({"type": "goodbye", "reconnect_after_ms": session.reconnect_after_ms})


def create_app(drain: Drain | None = None) -> Starlette:
    """
    Create the application.

    Args:
        drain: The drain to use; by default one configured by environment variables.
    """
    drain = drain or Drain()
    drain.before_close(farewell)
    application = Starlette(
        routes=[
            Route("/healthz", health),
            Route("/devices/{device_id}/commands", publish, methods=["POST"]),
            WebSocketRoute("/devices/{device_id}", connect),
        ],
        middleware=[Middleware(DrainMiddleware, drain=drain)],
    )
    application.state.devices = {}
    return application


logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(levelname)s %(name)s: %(message)s")
app = create_app()
