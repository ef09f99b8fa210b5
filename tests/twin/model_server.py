"""
uvicorn without sockets: its own server and its own protocols, on connections in memory.

What is modelled is the connection (model_socket.py) and the signal. All that an application can tell of uvicorn, its
three WebSocket and its two HTTP implementations, its lifespan and its end, is uvicorn's own code, as installed.
"""

import asyncio
import warnings
from typing import Any

import model_socket
from uvicorn import Config, Server

__all__ = ["HTTP", "WEBSOCKETS", "ModelServer", "make_config"]

HTTP = ("h11", "httptools")
WEBSOCKETS = ("websockets", "websockets-sansio", "wsproto")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oldest of the three is deprecated, and says so when it is imported
    import uvicorn.protocols.websockets.websockets_impl  # noqa: F401


def make_config(app: Any, http: str, websockets: str, patience: int | None = None) -> Config:
    """Return uvicorn's configuration. *patience* is its ``--timeout-graceful-shutdown``."""
    return Config(
        app,
        http=http,
        ws=websockets,
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=patience,
    )


class ModelServer(Server):
    """A server that is connected with by hand."""

    async def begin(self) -> None:
        """Start, as far as the application can tell."""
        self.servers = []
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.lifespan.startup()
        self.tasks = asyncio.all_tasks()  # of the lifespan's nothing but the loop's weak set knows while it waits

    def connect(self, client: asyncio.Protocol) -> None:
        """Let *client* connect."""
        model_socket.connect(
            asyncio.get_running_loop(),
            lambda: self.config.http_protocol_class(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            ),
            client,
        )
