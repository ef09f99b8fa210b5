# How a session is closed, whatever its protocol.
#
# The order matters, and each step was found by watching real servers do otherwise:
#
#   1. Close hooks. The application says what it wants to say; nothing has changed for it yet.
#   2. Disconnect. The application's pending `receive` ends with an ordinary disconnect, or its next one does. Every
#      call after that waits: an application that ignores the disconnect would otherwise spin and freeze the process.
#      This comes before the protocol's close: a server may hold that back while the application sits in `receive`
#      (granian), and an application that learns of the end from a failing `send` sees the wrong code.
#   3. Close. Sent from a task of its own, within a time limit, since a peer that does not read blocks it.
#   4. Grace. An application parked on neither `receive` nor `send` notices nothing; it is cancelled.
#   5. Only when the close has been sent does the application's end reach the server: a server closes the transport
#      when the application returns, and a client whose close is not yet sent would see 1006.
#
# What we caused stops at our boundary; everything else passes through it.
"""What every kind of session has in common: how it is tracked, interrupted, closed and, if need be, cancelled."""

import asyncio
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from starlette_drain._core.printable import printable
from starlette_drain._core.session import ClosePolicy, Session
from starlette_drain._engine.engine import Engine

__all__ = ["SCOPE_KEY", "App", "Connection", "ConnectionEnded", "retry_after_header"]

App = Callable[[Scope, Receive, Send], Awaitable[Any]]
"""An ASGI application. It should return nothing; servers complain about what it returns, so it is passed on."""

SCOPE_KEY = "starlette_drain.session"
"""Where a session stands in its ASGI scope. (Starlette's own ``session`` is a cookie.)"""

logger = logging.getLogger("starlette_drain")


class ConnectionEnded(ConnectionResetError):
    """What a send meets after the disconnect: an `OSError`, as the ASGI specification (2.4) asks for."""


class Connection(Session):
    """
    One session on an ASGI server. A subclass knows the messages of its protocol.

    Args:
        task: The one in which the application runs.
    """

    __slots__ = (
        "_beside",
        "_cancelled_before",
        "_close_task",
        "_context",
        "_disconnect",
        "_engine",
        "_forced",
        "_grace_timer",
        "_interrupted",
        "_is_told",
        "_last_received",
        "_loop",
        "_parked",
        "_raw_receive",
        "_raw_send",
        "_released",
        "_scope",
        "_shed_event",
        "_task",
    )

    def __init__(
        self,
        engine: Engine,
        scope: Scope,
        receive: Receive,
        send: Send,
        task: asyncio.Task[object] | None,
    ) -> None:
        # Kept, since Python 3.11 takes a system call to find the running loop, and `receive` needs it for each message.
        self._loop = loop = task.get_loop() if task is not None else engine.loop
        super().__init__(scope["path"], loop.time())
        self._engine = engine
        # Servers keep it in the object whose methods we hold: with the session in it that is a cycle until the end.
        self._scope = scope
        scope[SCOPE_KEY] = self
        self._raw_receive = receive
        self._raw_send = send
        # The close is sent in the session's own context, so that tracing and logging see it where it belongs.
        self._context = contextvars.copy_context()
        self._task = task
        self._cancelled_before = 0
        self._parked: asyncio.Task[object] | None = None
        self._beside: tuple[asyncio.Task[object], ...] = ()
        self._interrupted: tuple[asyncio.Task[object], ...] = ()
        self._last_received = ""
        self._disconnect: Message | None = None
        self._is_told = False
        self._close_task: asyncio.Task[None] | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._shed_event: asyncio.Event | None = None
        self._forced = False
        self._released: asyncio.Event | None = None

    # What an application calls

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Do not be asked to leave inside the block: an update is half way. The deadline still holds."""
        self._engine.hold(self)
        try:
            yield
        finally:
            self._engine.release(self)
            if self._released is not None and not self.is_held:
                self._released.set()

    @property
    def reconnect_after_ms(self) -> int:
        """Milliseconds after which the client should come back: for a close hook to send."""
        after = self._engine.settings.retry_after if self.reconnect_after is None else self.reconnect_after
        return round(after * 1000)

    async def wait_shed(self) -> None:
        """Return when this session is asked to leave, before its close hooks: for tasks that wait for neither side."""
        if self.shed_at is None:
            self._shed_event = self._shed_event or asyncio.Event()
            await self._shed_event.wait()

    @property
    def is_session(self) -> bool:
        """Whether it is a session already, and not only a connection that may become one."""
        return True

    # What the middleware and the drain call

    def absorbs(self, error: BaseException) -> bool:
        """Tell whether the application ended with *error* only because of what we did."""
        return self.is_our_doing(error, self._app_ended())

    def finish(self) -> Awaitable[None] | None:
        """End: the application has ended. Return what the server has to wait for before it may notice, if any."""
        self._app_ended()
        if self._close_task is not None:
            return self._finish_after(self._close_task)
        self._close()
        return None

    def begin_close(self, policy: ClosePolicy) -> None:
        """Begin to close: the close hooks, the disconnect, the close; return at once."""
        if self._shed_event:
            self._shed_event.set()
        coroutine = self._close_gracefully(policy)
        self._close_task = self._loop.create_task(coroutine, context=self._context)

    async def receive(self) -> Message:
        """Receive the next message; once parted, the disconnect, and after that nothing any more."""
        if self._disconnect is not None:
            return await self._receive_late(self._disconnect)
        # Marking the parked task costs a tenth of a timeout around every receive; only a shed cancels it.
        task = asyncio.current_task(self._loop)
        if self._parked is None:
            self._parked = task
        elif task is not None:  # one listens, say, and another asks whether the client is still there
            self._beside = (*self._beside, task)
        before = task.cancelling() if task is not None else 0
        try:
            message = await self._raw_receive()
        except BaseException:
            if not self._was_only_interrupted(task, before):
                raise
        finally:
            if self._beside:
                self._step_aside(task)
            elif self._parked is task:
                self._parked = None
        if self._disconnect is not None:
            self._was_only_interrupted(task, before)
            return self._receive_parted(self._disconnect)
        self._last_received = message["type"]
        if self._engine.notes_activity:
            self.active_at = self._loop.time()
        return message

    # What a protocol fills in

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application."""
        raise NotImplementedError

    def disconnect_message(self, close_policy: ClosePolicy) -> Message:
        """Return what the application receives once parted."""
        raise NotImplementedError

    def receive_parted(self, disconnect: Message) -> Message:
        """Return what the application receives next, once parted."""
        return disconnect

    def can_send(self) -> bool:
        """Return whether something can still be sent to the client, from a close hook for instance."""
        return self.is_open

    async def send_close(self, close_policy: ClosePolicy) -> None:
        """Send the protocol's close to the client."""
        raise NotImplementedError

    # The works

    async def _receive_late(self, disconnect: Message) -> Message:
        if self._is_told:
            await self._loop.create_future()  # until the grace is over
        return self._receive_parted(disconnect)

    def _receive_parted(self, disconnect: Message) -> Message:
        message = self.receive_parted(disconnect)
        self._is_told = message is disconnect
        return message

    async def _finish_after(self, goodbye_task: asyncio.Task[None]) -> None:
        try:
            await goodbye_task
        finally:
            self._close()

    def _close(self) -> None:
        self._scope.pop(SCOPE_KEY, None)
        self._engine.closed(self, forced=self._forced)

    async def _close_gracefully(self, close_policy: ClosePolicy) -> None:
        if self.can_send():
            await self._engine.close_hooks.run(self)
        if self.is_held:
            await self._wait_released()
        await self._part(close_policy)

    async def _wait_released(self) -> None:
        """Wait for the end of a hold that began during the close hooks; the deadline still holds."""
        self._released = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._engine.time_to_close()):
                await self._released.wait()

    async def _part(self, close_policy: ClosePolicy) -> None:
        self._disconnect = self.disconnect_message(close_policy)
        self._interrupt()
        if self._task is not None:
            self._grace_timer = self._loop.call_later(close_policy.grace, self.abort)
        try:
            async with asyncio.timeout(close_policy.grace):
                await self.send_close(close_policy)
        except Exception as error:  # noqa: BLE001
            # The client has gone, does not read, or the server's own assertions failed (the legacy websockets
            # implementation, when the application is in a blocked send). Nothing more can be done for this one.
            logger.debug("The close of a session on %s could not be sent: %r", printable(self.path), error)

    def _interrupt(self) -> None:
        """End a pending `receive` without a trace: it takes the cancellation back."""
        if self._parked is not None:
            self._interrupted = (self._parked, *self._beside)
            for task in self._interrupted:
                task.cancel()

    def _step_aside(self, task: asyncio.Task[object] | None) -> None:
        """Forget one of several tasks that are parked in `receive`."""
        others = [each for each in (self._parked, *self._beside) if each is not None and each is not task]
        self._parked, self._beside = (others[0], tuple(others[1:])) if others else (None, ())

    def _was_only_interrupted(self, task: asyncio.Task[object] | None, before: int) -> bool:
        """Take back our cancellation of the parked task; False if somebody else cancelled it, or did so too."""
        if task is None or task not in self._interrupted:
            return False
        self._interrupted = tuple(each for each in self._interrupted if each is not task)
        return task.uncancel() <= before

    def abort(self) -> None:
        """Cancel the application, whose time has run out."""
        if self._task is not None:
            logger.debug("The application on %s is cancelled: its grace is over", printable(self.path))
            self._forced = True
            # Only what exceeds this is ours to take back. It may be more than 0: Python 3.11 and 3.12 leave one request
            # behind in a task whose TaskGroup has failed (https://github.com/python/cpython/issues/116720).
            self._cancelled_before = self._task.cancelling()
            self._task.cancel()

    def _app_ended(self) -> bool:
        """Take back our cancellation of the application; return whether it was the only one."""
        task, self._task = self._task, None  # there is nothing left to cancel
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        return self._forced and task is not None and task.uncancel() <= self._cancelled_before

    def is_our_doing(self, error: BaseException, is_cancellation_ours: bool) -> bool:  # noqa: FBT001
        """Tell what the close caused from what passes through."""
        if isinstance(error, asyncio.CancelledError):
            return is_cancellation_ours
        if self._disconnect is None:
            return False
        match error:
            case BaseExceptionGroup():
                return all(self.is_our_doing(each, is_cancellation_ours) for each in error.exceptions)
            case _:
                return isinstance(error, WebSocketDisconnect | ConnectionEnded)


def retry_after_header(seconds: float) -> tuple[bytes, bytes]:
    """Return the header that says when to come back, in whole seconds (RFC 9110 section 10.2.3)."""
    return b"retry-after", str(math.ceil(seconds)).encode()
