"""The kill switch: an application as it would be without the middleware."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Receive, Scope, Send

from starlette_drain._asgi.connection import SCOPE_KEY, App
from starlette_drain._core.session import Session
from starlette_drain._engine.drain import Drain

__all__ = ["Off", "UntrackedSession"]


class Off:
    """
    Lets everything pass. What an application calls by itself, such as a hold, goes on to work, and does nothing.

    Args:
        app: The application.
        drain: The drain, which never begins.
        show: Lets a request show the drain, as it does where the mode is another.
    """

    def __init__(self, app: App, drain: Drain, show: Callable[[Scope], None]) -> None:
        self._app = app
        self._drain = drain
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection, or the lifespan; return what the application returns."""
        if scope["type"] in ("http", "websocket"):
            self._show(scope)
            scope[SCOPE_KEY] = UntrackedSession(self._drain, scope)
        return await self._app(scope, receive, send)


class UntrackedSession(Session):
    """What `session_of` returns while the mode is off: never asked to leave."""

    __slots__ = ("_drain", "kind")

    def __init__(self, drain: Drain, scope: Scope) -> None:
        super().__init__(scope["path"], 0.0)
        self._drain = drain
        self.kind = "websocket" if scope["type"] == "websocket" else "event-stream"

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold nothing."""
        yield

    @property
    def reconnect_after_ms(self) -> int:
        """Milliseconds after which the client should come back."""
        return round(self._drain.settings.retry_after * 1000)

    async def wait_shed(self) -> None:
        """Wait until cancelled."""
        await asyncio.get_running_loop().create_future()

    async def send_text(self, text: str) -> None:
        """Send nothing: this is for close hooks."""

    async def send_bytes(self, data: bytes) -> None:
        """Send nothing: this is for close hooks."""

    async def send_json(self, value: Any) -> None:
        """Send nothing: this is for close hooks."""
