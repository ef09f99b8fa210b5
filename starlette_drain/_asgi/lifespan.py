"""Starts and stops the drain within the application's lifespan."""

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
    Run the application's lifespan; the drain watches from the end of its startup until its shutdown.

    If the drain belongs to another lifespan, on this loop or another, only the application runs.
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
            await host.control().refresh()  # a worker that starts during a drain refuses from the start
        await send(message)

    try:
        return await app(scope, receive_shutdown, send_started)
    finally:
        # An application that does not support lifespan, or fails in it, may still be served.
        if host.is_running:
            await host.end(may_begin_again=True)


def _attach(host: DrainHost) -> bool:
    """Begin a new lifetime, so that the application may wait for a drain from its startup on."""
    try:
        return host.attach()
    except DrainInUse as error:
        logger.warning("The drain does not watch here: %s", error)
        return False
