"""The session of a connection, for an application that has only the connection at hand."""

from collections.abc import Mapping
from typing import Any, cast, overload

from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from starlette_drain._asgi.connection import SCOPE_KEY, Connection
from starlette_drain._asgi.event_stream import EventStreamSession
from starlette_drain._asgi.exchange import Exchange
from starlette_drain._asgi.off import UntrackedSession
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
    Return the session of a `WebSocket`, of a `Request` whose response is an event stream, or of an ASGI scope.

    A request becomes a session when its response starts, so ask inside the generator that makes the events.

    Raises:
        NotTracked: If the connection did not come through `DrainMiddleware`, or is no session (yet).
    """
    scope = connection if isinstance(connection, Mapping) else connection.scope
    session = scope.get(SCOPE_KEY)
    if isinstance(session, UntrackedSession):
        return cast("WebSocketSession", session)  # it has the same methods
    if isinstance(session, Exchange):  # as in a copy of the scope that was made before the response started
        session = session.session or session
    if not isinstance(session, Connection | Exchange):
        msg = (
            f"this {scope.get('type', 'connection')} is not tracked; add DrainMiddleware to the application, and make "
            "sure that its lifespan runs or the Drain is not used on two event loops"
        )
        raise NotTracked(msg)
    if isinstance(session, Exchange) or not session.is_session:
        msg = "this request is no session: it becomes one when a response of type text/event-stream starts; ask then"
        raise NotTracked(msg)
    return session
