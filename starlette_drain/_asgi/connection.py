# How a session is closed, whatever its protocol.
#
# The order matters, and each step was found by watching real servers do otherwise:
#
#   1. Farewell. The application says what it wants to say; nothing has changed for it yet.
#   2. Disconnect. The application's pending `receive` ends with an ordinary disconnect, and so does every later call.
#      This comes before the protocol's goodbye: a server may hold that back while the application sits in `receive`
#      (granian), and an application that learns of the end from a failing `send` sees the wrong code.
#   3. Goodbye. Sent from a task of its own, within a time limit, since a peer that does not read blocks it.
#   4. Grace. An application parked on neither `receive` nor `send` notices nothing; it is cancelled.
#   5. Only when the goodbye has been sent does the application's end reach the server: a server closes the transport
#      when the application returns, and the client of a goodbye not yet sent would see 1006.
#
# What we caused stops at our boundary; everything else passes through it.
"""What every kind of session has in common: how it is tracked, interrupted, closed and, if need be, cancelled."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from starlette_drain._core.session import Goodbye, Session
from starlette_drain.drain import Drain

__all__ = ["SCOPE_KEY", "Connection"]

SCOPE_KEY = "starlette_drain.session"
"""Where a session stands in its ASGI scope. (Starlette's own ``session`` is a cookie.)"""

logger = logging.getLogger("starlette_drain")


class Connection(Session):
    """One session on an ASGI server. A subclass knows the messages of its protocol."""

    __slots__ = (
        "_context",
        "_disconnect",
        "_drain",
        "_forced",
        "_goodbye_task",
        "_grace_timer",
        "_interrupted",
        "_parked",
        "_raw_receive",
        "_raw_send",
        "_shed_event",
        "_task",
    )

    def __init__(self, drain: Drain, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope["path"], drain.time())
        self._drain = drain
        self._raw_receive = receive
        self._raw_send = send
        # The goodbye is sent in the session's own context, so that tracing and logging see it where it belongs.
        self._context = contextvars.copy_context()
        self._task = asyncio.current_task()
        self._parked: asyncio.Task[object] | None = None
        self._interrupted = False
        self._disconnect: Message | None = None
        self._goodbye_task: asyncio.Task[None] | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._shed_event: asyncio.Event | None = None
        self._forced = False

    # What an application calls

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Do not be asked to leave inside the block: an update is half way. The deadline still holds."""
        self._drain.hold(self)
        try:
            yield
        finally:
            self._drain.release(self)

    @property
    def reconnect_after_ms(self) -> int:
        """Milliseconds after which the client should come back: for a farewell in the application's own words."""
        return round(self._drain.settings.retry_after * 1000)

    async def wait_shed(self) -> None:
        """Return when this session is asked to leave, before its farewell: for tasks that neither receive nor send."""
        if self.shed_at is None:
            self._shed_event = self._shed_event or asyncio.Event()
            await self._shed_event.wait()

    # What the middleware and the drain call

    def track(self) -> None:
        """Be a session from now on."""
        self._drain.enter(self)

    async def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Run *app* on this connection until it returns."""
        scope[SCOPE_KEY] = self
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            if not self._is_our_doing(error):
                raise
        finally:
            try:
                await self._finish_goodbye()
            finally:
                self._drain.closed(self, forced=self._forced)

    def leave(self, goodbye: Goodbye) -> None:
        """Begin to say goodbye, and return at once."""
        if self._shed_event:
            self._shed_event.set()
        coroutine = self._say_goodbye(goodbye)
        self._goodbye_task = asyncio.get_running_loop().create_task(coroutine, context=self._context)

    async def receive(self) -> Message:
        """Receive the next message; once parted, a disconnect."""
        if self._disconnect is not None:
            return self._disconnect
        # Marking the parked task costs a tenth of a timeout around every receive; only a shed cancels it.
        self._parked = asyncio.current_task()
        try:
            message = await self._raw_receive()
        except asyncio.CancelledError:
            if not self._was_only_interrupted():
                raise
            message = {}
        else:
            self._was_only_interrupted()
        finally:
            self._parked = None
        return self._disconnect or message

    # What a protocol fills in

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application."""
        raise NotImplementedError

    def disconnect_message(self, goodbye: Goodbye) -> Message:
        """Return what the application receives once parted."""
        raise NotImplementedError

    async def send_goodbye(self, goodbye: Goodbye) -> None:
        """Send the protocol's goodbye to the client."""
        raise NotImplementedError

    # The works

    async def _say_goodbye(self, goodbye: Goodbye) -> None:
        if self.is_open:
            await self._drain.bid_farewell(self)
        await self._part(goodbye)

    async def _part(self, goodbye: Goodbye) -> None:
        self._disconnect = self.disconnect_message(goodbye)
        self._interrupt()
        if self._task is not None:
            self._grace_timer = asyncio.get_running_loop().call_later(goodbye.grace, self._force)
        try:
            async with asyncio.timeout(goodbye.close_timeout):
                await self.send_goodbye(goodbye)
        except Exception as error:  # noqa: BLE001
            # The client has gone, does not read, or the server's own assertions failed (the legacy websockets
            # implementation, when the application is in a blocked send). Nothing more can be done for this one.
            logger.debug("A session on %s could not be told goodbye: %r", self.path, error)

    def _interrupt(self) -> None:
        """End a pending `receive` without a trace: it takes the cancellation back."""
        if self._parked is not None:
            self._interrupted = True
            self._parked.cancel()

    def _was_only_interrupted(self) -> bool:
        """Take back our cancellation of the parked task; False if somebody else cancelled it, or did so too."""
        return self._interrupted and self._parked is not None and self._parked.uncancel() == 0

    def abort(self) -> None:
        """Cancel the application, whose time has run out."""
        if self._task is not None:
            self._task.cancel()

    def _force(self) -> None:
        if self._task is not None:
            logger.debug("The application of a session on %s is cancelled after its grace", self.path)
            self._forced = True
            self._task.cancel()

    async def _finish_goodbye(self) -> None:
        self._task = None  # the application has ended: there is nothing left to cancel
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        if self._goodbye_task is not None:
            await self._goodbye_task

    def _is_our_doing(self, error: BaseException) -> bool:
        """Tell what the goodbye caused from what passes through."""
        if self._disconnect is None:
            return False
        match error:
            case asyncio.CancelledError():
                return self._forced and self._task is not None and self._task.uncancel() == 0
            case BaseExceptionGroup():
                return all(self._is_our_doing(each) for each in error.exceptions)
            case _:
                return isinstance(error, WebSocketDisconnect | OSError)
