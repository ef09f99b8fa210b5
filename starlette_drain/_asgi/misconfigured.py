"""Replaces a middleware whose options are invalid."""

import hmac
import inspect
import logging
import os
import traceback
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from starlette_drain._asgi.admin import bearer_token, is_for
from starlette_drain._asgi.connection import SCOPE_KEY, App
from starlette_drain._asgi.untracked import UntrackedSession
from starlette_drain._core.declared import environment_name
from starlette_drain._core.settings import Settings
from starlette_drain._engine.drain import Drain
from starlette_drain.exceptions import SettingsError

__all__ = ["Misconfigured", "is_made_by_starlette"]

TOKEN_OPTIONS = ("admin_token", environment_name("admin_token"))

logger = logging.getLogger("starlette_drain")


def is_made_by_starlette() -> bool:
    """
    Return whether Starlette is creating the middleware for ``add_middleware``.

    Starlette does that when the first scope arrives, usually the lifespan's. Servers take an exception there for "this
    application does not support lifespan" and start anyway; then it is raised again for each request.
    """
    frames = traceback.walk_stack(inspect.currentframe())
    return any(frame.f_code.co_name == "build_middleware_stack" for frame, _ in frames)


class Misconfigured:
    """
    Fails the startup; without a lifespan, logs the error once and passes every connection through.

    Args:
        app: The application.
        error: The invalid option.
        options: The options given. The token of the admin route is used if it is valid itself.
        path: The path of the admin route.
    """

    def __init__(self, app: App, error: SettingsError, options: Mapping[str, Any], path: str) -> None:
        self._app = app
        self._error = error
        self._path = path
        self._token = _token_alone(options)
        self._has_logged = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection, or the lifespan; return what the application returns."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"starlette_drain: {self._error}"})
            raise self._error  # as Starlette does: its TestClient fails only if the lifespan raises
        if not self._has_logged:
            self._has_logged = True
            with Drain.console():
                logger.error("DrainMiddleware does nothing here, no connection will be drained: %s", self._error)
        # None: no token was given, so there is no route. "": the token is invalid, and no request can match it.
        if scope["type"] == "http" and self._token is not None and is_for(self._path, scope):
            return await self._explain(scope, receive, send)
        if scope["type"] in ("http", "websocket"):
            scope.setdefault(SCOPE_KEY, UntrackedSession(scope))
        return await self._app(scope, receive, send)

    async def _explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = "an option is invalid; the server's log says which"
        # Values may be confidential, so only requests with the token get them. No message contains the token.
        if self._error.option in TOKEN_OPTIONS or self._is_authorized(Request(scope)):
            message = str(self._error)
        await JSONResponse({"error": message}, 503, {"cache-control": "no-store"})(scope, receive, send)

    def _is_authorized(self, request: Request) -> bool:
        token = bearer_token(request)
        return bool(token and self._token and hmac.compare_digest(token, self._token.encode()))


def _token_alone(options: Mapping[str, Any]) -> str | None:
    """Return the token of the admin route, ignoring the other options; an empty string if the token is invalid."""
    option, variable = TOKEN_OPTIONS
    given = {option: options[option]} if option in options else {}
    try:
        return Settings.load(given, {variable: os.environ.get(variable, "")}).admin_token
    except SettingsError:
        return ""
