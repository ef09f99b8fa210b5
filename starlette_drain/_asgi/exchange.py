"""An ordinary request, of which there are thousands a second: watched, and nothing else until it needs more."""

import asyncio
from collections.abc import Awaitable

from starlette.types import Message, Receive, Scope, Send

from starlette_drain._asgi.connection import SCOPE_KEY
from starlette_drain._asgi.event_stream import EventStreamSession, is_event_stream
from starlette_drain._engine.engine import Engine

__all__ = ["Exchange"]

COLLECTIONS = (list, tuple)
"""What headers usually are. They may be an iterator, which can be read only once."""


class Exchange:
    """
    One HTTP exchange.

    An `EventStreamSession` takes over as soon as one is needed: the response is an event stream or starts during a
    drain, or the application listens to its client.
    """

    __slots__ = ("_engine", "_has_started", "_raw_receive", "_raw_send", "_scope", "_task", "session")

    def __init__(
        self, engine: Engine, scope: Scope, receive: Receive, send: Send, task: asyncio.Task[object] | None
    ) -> None:
        self._engine = engine
        self._scope = scope
        scope[SCOPE_KEY] = self
        self._raw_receive = receive
        self._raw_send = send
        self._task = task
        self._has_started = False
        self.session: EventStreamSession | None = None
        """Who has taken over, if anybody."""
        engine.answers.began(self)

    def absorbs(self, error: BaseException) -> bool:
        """Tell whether the application ended with *error* only because of what we did."""
        return self.session is not None and self.session.absorbs(error)

    def finish(self) -> Awaitable[None] | None:
        """End: the application has ended. Return what the server has to wait for before it may notice, if any."""
        if self.session is not None:
            return self.session.finish()
        self._engine.answers.ended(self)
        self._scope.pop(SCOPE_KEY, None)
        return None

    def receive(self) -> Awaitable[Message]:
        """Receive the next message, in a way that a drain can interrupt."""
        return (self.session or self._take_over()).receive()

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application."""
        if self.session is not None:
            return self.session.send(message)
        if message["type"] == "http.response.start":
            if (
                self._engine.sends_away
                or not isinstance(message.get("headers", ()), COLLECTIONS)
                or is_event_stream(message)
            ):
                return self._take_over().send(message)
            self._has_started = True
        return self._raw_send(message)

    def _take_over(self) -> EventStreamSession:
        self._engine.answers.ended(self)
        self.session = EventStreamSession(
            self._engine, self._scope, self._raw_receive, self._raw_send, self._task, has_started=self._has_started
        )
        return self.session
