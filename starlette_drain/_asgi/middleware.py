"""The middleware that users add to their application."""

import logging
from asyncio import current_task
from threading import get_ident
from typing import Any, Unpack

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from starlette_drain._asgi.admin import AdminRoute
from starlette_drain._asgi.admission import begin, let_in
from starlette_drain._asgi.closer import close_due
from starlette_drain._asgi.connection import SCOPE_KEY, App
from starlette_drain._asgi.defaults import equip
from starlette_drain._asgi.http import EventStreamSession, begin_exchange
from starlette_drain._asgi.lifespan import serve_lifespan
from starlette_drain._asgi.misconfigured import Misconfigured, is_made_by_starlette
from starlette_drain._asgi.off import Off
from starlette_drain._asgi.untracked import ENDED, UntrackedSession
from starlette_drain._asgi.websocket import WebSocketSession, refuse
from starlette_drain._engine.drain import Drain
from starlette_drain._engine.engine import Engine
from starlette_drain._engine.lifetime import LifetimeState
from starlette_drain._engine.options import DrainOptions
from starlette_drain.exceptions import DrainInUse, SettingsError

__all__ = ["DrainMiddleware"]

ADMIN_PATH = "/drain"

CONNECTIONS = ("http", "websocket")
"""The types of the ASGI scopes of connections."""

DETACHED = LifetimeState.DETACHED
"""Looked up once, because every connection compares with it."""

logger = logging.getLogger("starlette_drain")


class DrainMiddleware:
    """
    Tracks long-lived connections, which a `Drain` closes one by one.

    It wraps any ASGI application. Put it outermost, around the whole application: a mounted application never gets the
    lifespan. Before a drain it changes only one thing that the application or a client can see: event streams that are
    sessions carry ``Connection: close``.

    Args:
        app: The application.
        drain: The Drain to use. By default one is created from *options*.
        admin_path: The path of the admin route, which needs an ``admin_token``.
        **options: See docs/settings.md or ``starlette-drain --help``.

    Raises:
        SettingsError: If an option is invalid, or both *drain* and *options* are given. With ``add_middleware`` the
            startup fails with it instead; without a lifespan it is logged, and nothing is tracked.
    """

    def __init__(
        self,
        app: App,
        drain: Drain | None = None,
        *,
        admin_path: str = ADMIN_PATH,
        **options: Unpack[DrainOptions],
    ) -> None:
        self.app = app
        self._instead: App | None = None
        """What serves all scopes instead, if the mode is off or an option is invalid."""
        self._tracked: tuple[str, ...] = ()
        self._is_limited = False
        """Whether handshakes may have to wait for their turn."""
        try:
            self.drain = _choose(drain, options, admin_path)
            if self.drain.settings.mode == "off":
                self._instead = Off(app, self.drain, self._show)
                return
            equip(self.drain)
        except SettingsError as error:
            if not is_made_by_starlette():
                raise
            given = {"admin_token": drain.settings.admin_token} if isinstance(drain, Drain) else options
            self._instead = Misconfigured(app, error, given, admin_path if _is_path(admin_path) else ADMIN_PATH)
            return
        self._host = self.drain.host
        self._host.close_with(close_due)
        settings = self.drain.settings
        self._admin = AdminRoute(self.drain, settings.admin_token, admin_path) if settings.admin_token else None
        self._has_warned = False
        self._tracked = CONNECTIONS
        self._is_limited = settings.admission is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection, or the lifespan; return what the application returns."""
        # This frame lives as long as the connection: each local variable costs every idle session 8 bytes.
        if self._is_limited and not await self._let_in(scope, receive, send):
            return None
        connection = self._track(scope, receive, send)
        if connection is None:
            return await self._serve_other(scope, receive, send)
        try:
            return await self.app(scope, connection.receive, connection.send)
        except BaseException:
            if not connection.absorbs_exception():
                raise
        finally:
            if connection.finish():
                await connection.wait_closed()

    def _track(self, scope: Scope, receive: Receive, send: Send) -> WebSocketSession | EventStreamSession | None:
        """Track a connection; return ``None`` for scopes that `_serve_other` serves."""
        # As few calls as possible: on a busy server this code is not in the CPU caches, and a call costs four times as
        # much as in a benchmark.
        if scope["type"] not in self._tracked:
            return None
        life = self._host.lifetime
        # A loop of this thread that runs a task is the running loop. Python 3.11 needs a system call to get that.
        task = current_task(life.loop) if life is not None and life.thread == get_ident() else None
        engine = life.engine if life is not None and task is not None and life.state is not DETACHED else None
        if engine is None or SCOPE_KEY in scope:
            if (engine := self._begin(scope)) is None:
                return None
            task = current_task(engine.loop)
        connection: WebSocketSession | EventStreamSession
        if scope["type"] == "http":
            if self._admin and self._admin.matches(scope):
                return None
            connection = begin_exchange(engine, scope, receive, send, task)
        elif engine.admits():
            connection = WebSocketSession(engine, scope, receive, send, task)
        else:
            return None
        if self._is_limited:
            begin(engine, connection)
        return connection

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve scopes that are not connections, and connections that are not tracked."""
        if self._instead is not None:
            return await self._instead(scope, receive, send)
        if scope["type"] == "lifespan":
            self._show(scope)
            return await serve_lifespan(self._host, self.app, scope, receive, send)
        engine = self._host.engine
        if scope["type"] not in CONNECTIONS or engine is None or scope.get(SCOPE_KEY, ENDED) is not ENDED:
            return await self.app(scope, receive, send)
        if scope["type"] == "http" and self._admin:
            return await self._admin(scope, receive, send)
        return await refuse(engine, scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Wait for a place under the limit on handshakes; return whether the connection may go on."""
        if scope["type"] not in self._tracked or SCOPE_KEY in scope:
            return True
        if self._admin and scope["type"] == "http" and self._admin.matches(scope):
            return True
        engine = self._host.engine_here() or self._begin(scope)
        return engine is None or await let_in(engine, scope, receive, send)

    def _show(self, scope: Scope) -> None:
        """
        Set ``app.state.drain`` of a Starlette application, unless that is set already.

        This is done once. Setting it in the state of each request would cost every request.
        """
        app = scope.get("app", self.app)
        if isinstance(app, Starlette) and not hasattr(app.state, "drain"):
            app.state.drain = self.drain

    def _begin(self, scope: Scope) -> Engine | None:
        """
        Begin without a lifespan (``--lifespan off``), and return the engine.

        A lifetime that has ended does not begin again: some servers stop the lifespan before they close their sockets,
        and connections that still arrive find the drain as it ended. Return ``None`` if the drain belongs to another
        event loop, or if an outer DrainMiddleware tracks the connection: an application and one that it mounts may both
        have one.
        """
        if scope.get(SCOPE_KEY, ENDED) is not ENDED:
            self._warn("another DrainMiddleware around this one tracks its connections; remove one of the two")
            return None
        if (engine := self._host.engine_here()) is not None:
            return engine
        self._show(scope)
        try:
            self._host.begin()
        except DrainInUse as error:
            self._warn(f"connections are not tracked: {error}")
            scope[SCOPE_KEY] = UntrackedSession(scope, self.drain.settings.retry_after)
            return None
        return self._host.engine

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("DrainMiddleware does nothing here: %s", why)


def _choose(drain: Drain | None, options: DrainOptions, path: str) -> Drain:
    if not _is_path(path):
        raise SettingsError("admin_path", path, "start it with '/' and do not end it with one, such as '/drain'")
    if drain is None:
        return Drain(**options)
    if not isinstance(drain, Drain):
        raise SettingsError("drain", drain, "give a Drain, such as Drain(window=60), or options such as window=60")
    if options:
        name = next(iter(options))
        raise SettingsError(name, "…", "give it to the Drain: a middleware with drain=... takes no options")
    return drain


def _is_path(path: Any) -> bool:
    return isinstance(path, str) and len(path) > 1 and path[0] == "/" and path[-1] != "/"
