"""Finds the session of a connection."""

from collections.abc import Mapping
from typing import Any, cast, overload

from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from starlette_drain._asgi.connection import SCOPE_KEY, Connection
from starlette_drain._asgi.http import EventStreamSession
from starlette_drain._asgi.untracked import UntrackedSession
from starlette_drain._asgi.websocket import WebSocketSession
from starlette_drain.exceptions import NotTracked

__all__ = ["session_of"]


@overload
def session_of(connection: WebSocket) -> WebSocketSession: ...
@overload
def session_of(connection: Request) -> EventStreamSession: ...
@overload
def session_of(connection: HTTPConnection | Mapping[str, Any]) -> WebSocketSession | EventStreamSession: ...
def session_of(connection: HTTPConnection | Mapping[str, Any]) -> Connection:
    """
    Return the session of a `WebSocket`, of a `Request`, or of an ASGI scope.

    It works for every connection that came through `DrainMiddleware`. If the connection is not a session, or not yet, a
    hold has no effect and `wait_shed` does not return.

    Raises:
        NotTracked: If the connection did not come through `DrainMiddleware`.
    """
    scope = connection if isinstance(connection, Mapping) else connection.scope
    session = scope.get(SCOPE_KEY)
    if isinstance(session, EventStreamSession):
        session.prepare()
    elif not isinstance(session, Connection | UntrackedSession):
        msg = f"this {scope.get('type', 'connection')} is not tracked; add DrainMiddleware to the application"
        raise NotTracked(msg)
    return cast("Connection", session)  # an UntrackedSession has the same methods
