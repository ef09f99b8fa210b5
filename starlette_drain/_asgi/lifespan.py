"""The drain's own start and stop, inside the application's lifespan."""

import logging
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from starlette_drain._asgi.connection import App
from starlette_drain._engine.host import DrainHost
from starlette_drain.exceptions import DrainInUse

__all__ = ["serve_lifespan"]

logger = logging.getLogger("starlette_drain")


async def serve_lifespan(host: DrainHost, app: App, scope: Scope, receive: Receive, send: Send) -> Any:
    """
    Run the application's lifespan, with the drain watching from after its startup until before its shutdown.

    Where the drain belongs to another lifespan, on this loop or another, it is left to that one.
    """
    if not _attach(host):
        return await app(scope, receive, send)

    async def receive_shutdown() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await host.end()
        return message

    async def send_started(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            host.begin()
            await host.control().refresh()  # a worker that joins a drain half-way admits none from the start
        await send(message)

    try:
        return await app(scope, receive_shutdown, send_started)
    finally:
        # An application that knows no lifespan, or fails in it, may be served all the same.
        if host.is_running:
            await host.end(may_begin_again=True)


def _attach(host: DrainHost) -> bool:
    """Begin a new life of *drain*, so that the application may wait for it from its own startup on."""
    try:
        return host.attach()
    except DrainInUse as error:
        logger.warning("The drain does not watch here: %s", error)
        return False
