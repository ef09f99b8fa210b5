"""The kill switch: the application runs as it would without the middleware."""

from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from starlette_drain._asgi.connection import SCOPE_KEY, App
from starlette_drain._asgi.untracked import UntrackedSession
from starlette_drain._engine.drain import Drain

__all__ = ["Off"]


class Off:
    """
    Passes everything through. What the application calls itself, such as a hold, still works but has no effect.

    Args:
        app: The application.
        drain: The drain, which never begins.
        show: Shows the drain to the application, as in the other modes.
    """

    def __init__(self, app: App, drain: Drain, show: Callable[[Scope], None]) -> None:
        self._app = app
        self._drain = drain
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection, or the lifespan; return what the application returns."""
        self._show(scope)
        if scope["type"] in ("http", "websocket"):
            scope[SCOPE_KEY] = UntrackedSession(scope, self._drain.settings.retry_after)
        return await self._app(scope, receive, send)
