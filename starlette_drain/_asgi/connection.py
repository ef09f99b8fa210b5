# How a session is closed, whatever its protocol.
#
# The order matters. Each step is needed because of how real servers behave:
#
#   1. Close hooks. The application sends its last messages; nothing has changed for it yet.
#   2. Disconnect. The application's pending `receive`, or its next one, returns an ordinary disconnect. Every further
#      call waits: an application that ignores the disconnect would otherwise spin and block the process. This comes
#      before the protocol's close, because a server may delay the close while the application waits in `receive`
#      (granian), and an application that learns of the end from a failing `send` sees the wrong code.
#   3. Close. It is sent from a separate task, within a time limit, because a peer that does not read blocks it.
#   4. The connection is over when the close has been sent and the application has noticed the disconnect, or when the
#      client or the application itself ends it. What the application does after that is work, and never cancelled.
#   5. Grace. An application that calls neither `receive` nor `send` does not notice the disconnect; it is cancelled
#      after the grace. So is one that has noticed but only calls `receive`, or only `send`, for another grace. An
#      application with several tasks is not: while one of them waits in `receive`, another may be working.
#   6. The application's return reaches the server only after the close has been sent: a server closes the transport
#      when the application returns, and the client would see 1006.
#
# Exceptions that we caused are absorbed here; all others pass through.
"""What all kinds of sessions have in common: how they are tracked, interrupted, closed and, if necessary, cancelled."""

import asyncio
import logging
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from starlette_drain._asgi.untracked import ENDED
from starlette_drain._core.printable import printable
from starlette_drain._core.session import ClosePolicy, Session
from starlette_drain._engine.engine import Engine

__all__ = ["SCOPE_KEY", "App", "Connection", "ConnectionEnded", "retry_after_header"]

App = Callable[[Scope, Receive, Send], Awaitable[Any]]
"""An ASGI application. It should return ``None``; any other value is passed on, so that the server can report it."""

SCOPE_KEY = "starlette_drain.session"
"""The key of the session in its ASGI scope. (Starlette's own ``session`` is a cookie.)"""

DISCONNECTS = frozenset({"websocket.disconnect", "http.disconnect"})
"""The messages that an application receives when its client has gone."""

RECHECK = 1.0
"""Seconds between two checks of the deadline, which may move, while a session that is due is held."""

LATE_SEND_TIME = 0.1
"""Seconds that a send after the disconnect takes, if the application does nothing but send."""

IGNORED_AT_ONCE = 3
"""How many sends after the disconnect return at once before that."""

NOTIFIED_AT_ONCE = 3
"""How many tasks receive the disconnect without a pause."""

AT_ONCE = 0.01
"""The most seconds between two sends of an application that does nothing but send."""

logger = logging.getLogger("starlette_drain")


class ConnectionEnded(ConnectionResetError):
    """
    Raised by a send after the disconnect: an `OSError`, as the ASGI specification (2.4) requires.

    Args:
        connection: The connection that has ended: an application may send on several.
    """

    def __init__(self, connection: "Connection", *args: object) -> None:
        super().__init__(*args)
        self.connection = connection


class Closing:
    """State that is needed only for a session that is asked to leave, so that others need no memory for it."""

    __slots__ = (
        "cancelled_before",
        "grace",
        "has_noticed",
        "ignored_sends",
        "interrupted",
        "is_forced",
        "is_sent",
        "last_ignored_send",
        "late_receives",
        "notified",
        "others",
        "released",
        "shed_event",
        "task",
        "timer",
    )

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        """The task that closes the session."""
        self.shed_event: asyncio.Event | None = None
        self.released: asyncio.Event | None = None
        self.grace = 0.0
        self.timer: asyncio.TimerHandle | None = None
        """Cancels the application when it fires."""
        self.interrupted: tuple[asyncio.Task[object], ...] = ()
        self.notified: set[asyncio.Task[object] | None] = set()
        """The tasks that have received the disconnect."""
        self.has_noticed = False
        """Whether the application knows that the connection has ended."""
        self.is_sent = False
        """Whether the close has been sent, or cannot be."""
        self.is_forced = False
        self.cancelled_before = 0
        self.late_receives = 0
        """How many `receive` calls by or for the task that serves the connection wait after the disconnect."""
        self.ignored_sends = 0
        """How many sends after the disconnect followed one another at once."""
        self.others: set[asyncio.Task[object] | None] = set()
        """The tasks that received or sent after the disconnect, except the one that serves the connection."""
        self.last_ignored_send = -math.inf

    def stop_timer(self) -> None:
        """Do not cancel the application for now."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


NO_CLOSING = Closing()
"""The state of all sessions that were not asked to leave. It never changes."""


class Connection(Session):
    """
    One session on an ASGI server. Subclasses implement the messages of a protocol.

    Args:
        engine: The engine that tracks it.
        scope: The ASGI scope.
        receive: The server's ``receive``.
        send: The server's ``send``.
        task: The task in which the application runs.
    """

    __slots__ = (
        "_closing",
        "_context",
        "_disconnect",
        "_engine",
        "_is_over",
        "_last_received",
        "_parked",
        "_raw_receive",
        "_raw_send",
        "_scope",
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
        super().__init__(scope["path"], engine.loop.time())
        self._engine = engine
        # A reference cycle until the end: servers keep the scope in the object whose methods we hold.
        self._scope = scope
        scope[SCOPE_KEY] = self
        self._raw_receive = receive
        self._raw_send = send
        # The close is sent in the session's own context, for tracing and logging. Most servers start with an empty one,
        # which need not be kept for each of 100,000 sessions.
        self._context = copy_context() or None
        self._task = task
        self._parked: asyncio.Task[object] | tuple[asyncio.Task[object] | None, ...] | None = None
        """The task that waits in `receive`, or several: one may read while another waits for the disconnect."""
        self._last_received = ""
        self._disconnect: Message | None = None
        self._closing = NO_CLOSING
        self._is_over = False

    notifies_each_task = False
    """Whether every task that calls `receive` gets the disconnect, once, or only the first, as on most servers."""

    # What an application calls

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Do not ask the session to leave inside the ``async with`` block. The deadline still holds."""
        self._engine.hold(self)
        try:
            yield
        finally:
            self._engine.release(self)
            if self._closing.released is not None and not self.is_held:
                self._closing.released.set()

    @property
    def reconnect_after_ms(self) -> int:
        """Milliseconds after which the client should reconnect, for a close hook to send."""
        after = self._engine.settings.retry_after if self.reconnect_after is None else self.reconnect_after
        return round(after * 1000)

    async def wait_shed(self) -> None:
        """
        Return when this session is asked to leave, before its close hooks.

        It is for tasks that call neither `receive` nor `send`.
        """
        if self.shed_at is None:
            closing = self._prepare_closing()
            closing.shed_event = closing.shed_event or asyncio.Event()
            await closing.shed_event.wait()
        else:
            await asyncio.sleep(0)  # yield, because an application may call this in a loop

    @property
    def is_session(self) -> bool:
        """Whether it is a session, and not only a connection that may become one."""
        return True

    # What the middleware and the drain call

    def absorbs_exception(self) -> bool:
        """Return whether the exception being handled was only caused by our close."""
        error = sys.exception()
        return error is not None and self.is_our_doing(error, self._app_ended())

    def finish(self) -> bool:
        """Record that the application has returned; return whether to call `wait_closed` before returning too."""
        if self._closing is not NO_CLOSING:
            self._app_ended()
            if self._closing.task is not None:
                return True
        self._task = None
        self._finish()
        return False

    async def wait_closed(self) -> None:
        """Wait until the close has been sent or has failed."""
        try:
            if self._closing.task is not None:
                await self._closing.task
        finally:
            self._finish()

    def begin_close(self, policy: ClosePolicy) -> None:
        """Begin to close (close hooks, disconnect, close) without blocking."""
        closing = self._prepare_closing()
        if closing.shed_event is not None:
            closing.shed_event.set()
        coroutine = self._close_gracefully(policy)
        closing.task = self._loop.create_task(coroutine, context=self._context or Context())

    async def receive(self) -> Message:
        """Receive the next message; after our close the disconnect, and then wait until cancelled."""
        if self._disconnect is not None:
            return await self._receive_late(self._disconnect)
        # Noting the waiting task costs a tenth of a timeout around every receive. Only a shed cancels it.
        task = asyncio.current_task(self._engine.loop)
        if self._parked is None:
            self._parked = task
        else:
            self._park_beside(task)
        before = task.cancelling() if task is not None else 0
        try:
            message = await self._raw_receive()
        except BaseException:
            if not self._was_only_interrupted(task, before):
                raise
        finally:
            if self._parked is task:
                self._parked = None
            else:
                self._unpark(task)
        if self._disconnect is not None:
            self._was_only_interrupted(task, before)
            return self._receive_disconnect(self._disconnect)
        self._last_received = message["type"]
        if self._last_received in DISCONNECTS or self._engine.notes_activity:
            self._note_received(message)
        return message

    def connection_ended(self, *, forced: bool = False, code: int | None = None) -> None:
        """
        Record that the connection is over, whichever side has ended it; it is no longer a session.

        What the application does from now on is work. Further calls have no effect.

        Args:
            forced: Whether the application was cancelled.
            code: The close code; by default that of our own close, if there was one.
        """
        if not self._is_over:
            self._is_over = True
            if code is None and self._disconnect is not None:
                code = self._disconnect.get("code")
            if self._engine.closed(self, forced=forced, code=code) and self._task is not None:
                self._engine.working.add(self)

    # What a protocol implements

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the application."""
        raise NotImplementedError

    def disconnect_message(self, close_policy: ClosePolicy) -> Message:
        """Return the disconnect that the application receives."""
        raise NotImplementedError

    def next_after_disconnect(self, disconnect: Message) -> Message:
        """Return the message that the application receives next after our close, by default the *disconnect*."""
        return disconnect

    def can_send(self) -> bool:
        """Return whether messages can still be sent to the client, for instance from a close hook."""
        return self.is_open and not self._is_over

    async def send_close(self, close_policy: ClosePolicy) -> None:
        """Send the protocol's close to the client."""
        raise NotImplementedError

    # Internals

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._engine.loop

    def _prepare_closing(self) -> Closing:
        if self._closing is NO_CLOSING:
            self._closing = Closing()
        return self._closing

    def _note_received(self, message: Message) -> None:
        if self._last_received in DISCONNECTS:
            self.connection_ended(code=message.get("code"))
        else:
            self.active_at = self._loop.time()

    async def _receive_late(self, disconnect: Message) -> Message:
        closing, task = self._closing, self._note_task()
        if closing.notified and (task in closing.notified or not self.notifies_each_task):
            is_served = task is self._task or (_only_receives(task) and self._task not in closing.notified)
            closing.late_receives += is_served
            if is_served and closing.timer is None:
                closing.timer = self._loop.call_later(closing.grace, self._end_late_receives, closing)
            try:
                await self._loop.create_future()  # until the grace is over
            finally:
                closing.late_receives -= is_served
        if len(closing.notified) >= NOTIFIED_AT_ONCE:
            await asyncio.sleep(LATE_SEND_TIME * len(closing.notified))  # it creates a task for each call
        return self._receive_disconnect(disconnect)

    def _end_late_receives(self, closing: Closing) -> None:
        closing.timer = None
        if closing.late_receives and self._is_alone():
            self.abort()

    def _note_task(self) -> asyncio.Task[object] | None:
        """Return the current task, which receives or sends after the disconnect, and record it."""
        task = asyncio.current_task()
        if task is not self._task and not _only_receives(task):
            self._closing.others.add(task)
        return task

    def _is_alone(self) -> bool:
        """Return whether no other known task may be working: then it is safe to cancel the one that serves."""
        return all(task is None or task.done() for task in self._closing.others)

    def _receive_disconnect(self, disconnect: Message) -> Message:
        message = self.next_after_disconnect(disconnect)
        if message is disconnect:
            self._closing.notified.add(self._note_task())
            self._notice()
        return message

    def _notice(self) -> None:
        """Record that the application knows of the disconnect: what it does now may be important work."""
        closing = self._closing
        if not closing.has_noticed:
            closing.has_noticed = True
            closing.stop_timer()
            if closing.is_sent:
                self.connection_ended()

    async def _suspend_late_send(self) -> None:
        """
        Let other tasks run in a send after the disconnect, and delay an application that does nothing but send.

        Without a delay it would keep the CPU busy. Tasks of other connections may occasionally send here too.
        """
        closing, task = self._closing, self._note_task()
        if self._loop.time() - closing.last_ignored_send > AT_ONCE:
            closing.ignored_sends = 0
        closing.ignored_sends += 1
        if closing.ignored_sends > IGNORED_AT_ONCE:
            is_late = closing.ignored_sends * LATE_SEND_TIME > closing.grace
            if is_late and task is self._task and self._is_alone():
                self.abort()
            await asyncio.sleep(LATE_SEND_TIME)
        else:
            # Many frameworks wait for the disconnect in another task, and then cancel this one: let them.
            for _ in range(10):
                await asyncio.sleep(0)
        closing.last_ignored_send = self._loop.time()

    def _finish(self) -> None:
        self._scope[SCOPE_KEY] = ENDED
        if self._is_over:
            self._engine.working.discard(self)
        else:
            self.connection_ended()

    async def _close_gracefully(self, close_policy: ClosePolicy) -> None:
        if self.can_send():
            await self._engine.close_hooks.run(self)
        while self.is_held and not self._is_over and (seconds := self._engine.time_to_close()):
            await self._wait_released(min(seconds, RECHECK))
        if not self._is_over:  # otherwise the client or the application has ended it: do not disturb its work
            await self._close_now(close_policy)

    async def _wait_released(self, seconds: float) -> None:
        """Wait for the end of a hold that began during the close hooks."""
        self._closing.released = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.released.wait()

    async def _close_now(self, close_policy: ClosePolicy) -> None:
        closing = self._end_receive(close_policy)
        try:
            async with asyncio.timeout(close_policy.grace):
                await self.send_close(close_policy)
        except Exception as error:  # noqa: BLE001
            # The client has gone or does not read, or an assertion of the server failed (the legacy websockets
            # implementation, if the application is in a blocked send). Nothing more can be done.
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                self._let_app_finish(closing)
            logger.debug("The close of a session on %s could not be sent: %r", printable(self.path), error)
        closing.is_sent = True
        if closing.has_noticed or self._task is None:
            self.connection_ended()

    def _let_app_finish(self, closing: Closing) -> None:
        """Do not disturb the application: its client had already gone, and it will receive that disconnect."""
        if self._last_received and not (closing.has_noticed or closing.interrupted):
            self._disconnect = None
        self._notice()

    def _end_receive(self, close_policy: ClosePolicy) -> Closing:
        """Disconnect the application. If it does not notice within the grace it is cancelled."""
        closing = self._prepare_closing()
        self._disconnect = self.disconnect_message(close_policy)
        closing.grace = close_policy.grace
        if self._task is not None:
            closing.timer = self._loop.call_later(close_policy.grace, self.abort)
        self._interrupt(closing)
        return closing

    def _interrupt(self, closing: Closing) -> None:
        """Interrupt pending `receive` calls by a cancellation that they take back."""
        parked = self._parked if isinstance(self._parked, tuple) else (self._parked,)
        closing.interrupted = tuple(task for task in parked if task is not None)
        for task in closing.interrupted:
            task.cancel()

    def _park_beside(self, task: asyncio.Task[object] | None) -> None:
        """Add a further task that waits in `receive`."""
        self._parked = (*self._parked, task) if isinstance(self._parked, tuple) else (self._parked, task)

    def _unpark(self, task: asyncio.Task[object] | None) -> None:
        """Remove one of several tasks that wait in `receive`."""
        if isinstance(self._parked, tuple):
            others = tuple(each for each in self._parked if each is not task)
            self._parked = others if len(others) > 1 else others[0] if others else None

    def _was_only_interrupted(self, task: asyncio.Task[object] | None, before: int) -> bool:
        """Take back our cancellation of *task*; return False if it was cancelled by something else, too."""
        closing = self._closing
        if task is None or task not in closing.interrupted:
            return False
        closing.interrupted = tuple(each for each in closing.interrupted if each is not task)
        return task.uncancel() <= before

    def abort(self) -> None:
        """Cancel the application: its grace is over."""
        closing = self._closing
        if self._task is None or closing.is_forced:
            return
        logger.debug("The application on %s is cancelled: its grace is over", printable(self.path))
        closing.is_forced = True
        # Only requests above this number are ours to take back. It may be above 0: Python 3.11 and 3.12 leave a request
        # in a task whose TaskGroup has failed (https://github.com/python/cpython/issues/116720).
        closing.cancelled_before = self._task.cancelling()
        self._task.cancel()
        if self._is_over:
            self._engine.forced(self)
        else:
            self.connection_ended(forced=True)

    def _app_ended(self) -> bool:
        """Take back our cancellation of the application; return whether it was the only one."""
        task, self._task = self._task, None  # nothing is left to cancel
        closing = self._closing
        closing.stop_timer()
        return closing.is_forced and task is not None and task.uncancel() <= closing.cancelled_before

    def is_our_doing(self, error: BaseException, is_cancellation_ours: bool) -> bool:  # noqa: FBT001
        """Return whether our close caused *error*; for a group, whether it caused all of its errors."""
        if isinstance(error, asyncio.CancelledError):
            return is_cancellation_ours
        if self._disconnect is None:
            return False
        if isinstance(error, BaseExceptionGroup):
            return all(self.is_our_doing(each, is_cancellation_ours) for each in error.exceptions)
        return self.is_our_disconnect(error, self._disconnect)

    def is_our_disconnect(self, error: BaseException, disconnect: Message) -> bool:  # noqa: ARG002
        """Return whether our *disconnect* caused *error* in the application."""
        return isinstance(error, ConnectionEnded) and error.connection is self


def _only_receives(task: asyncio.Task[object] | None) -> bool:
    """Return whether *task* only runs one `receive`, like those that Channels and ``asyncio.wait_for`` create."""
    return task is not None and getattr(task.get_coro(), "cr_code", None) is Connection.receive.__code__


def retry_after_header(seconds: float) -> tuple[bytes, bytes]:
    """Return a ``Retry-After`` header, in whole seconds (RFC 9110 section 10.2.3)."""
    return b"retry-after", str(math.ceil(seconds)).encode()
