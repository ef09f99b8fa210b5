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
#   4. The connection is over when the close has been sent and the application has noticed the disconnect. What it does
#      from then on is work, and never cancelled. So it is when the client or the application itself ends it.
#   5. Grace. An application parked on neither `receive` nor `send` notices nothing; it is cancelled. So is one that has
#      noticed and only asks for more messages, or only sends, for as long again. One with several tasks is not: while
#      one of them asks for more, another may be at work.
#   6. Only when the close has been sent does the application's end reach the server: a server closes the transport
#      when the application returns, and a client whose close is not yet sent would see 1006.
#
# What we caused stops at our boundary; everything else passes through it.
"""What every kind of session has in common: how it is tracked, interrupted, closed and, if need be, cancelled."""

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
"""An ASGI application. It should return nothing; servers complain about what it returns, so it is passed on."""

SCOPE_KEY = "starlette_drain.session"
"""Where a session stands in its ASGI scope. (Starlette's own ``session`` is a cookie.)"""

DISCONNECTS = frozenset({"websocket.disconnect", "http.disconnect"})
"""What an application receives when its client has gone."""

RECHECK = 1.0
"""Seconds between two looks at the deadline, which may move, while a session that is to be closed is held."""

LATE_SEND_TIME = 0.1
"""Seconds that a send after the disconnect takes, where an application does nothing else."""

IGNORED_AT_ONCE = 3
"""How many such sends pass before."""

TOLD_AT_ONCE = 3
"""How many tasks receive the disconnect without a pause."""

AT_ONCE = 0.01
"""Seconds between two sends of an application that does nothing else."""

logger = logging.getLogger("starlette_drain")


class ConnectionEnded(ConnectionResetError):
    """
    What a send meets after the disconnect: an `OSError`, as the ASGI specification (2.4) asks for.

    Args:
        connection: The one that has ended: an application may send on several.
    """

    def __init__(self, connection: "Connection", *args: object) -> None:
        super().__init__(*args)
        self.connection = connection


class Closing:
    """What matters only once a session is asked to leave: 100,000 others have no memory for it."""

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
        "others",
        "released",
        "shed_event",
        "task",
        "timer",
        "told",
    )

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        """What closes it."""
        self.shed_event: asyncio.Event | None = None
        self.released: asyncio.Event | None = None
        self.grace = 0.0
        self.timer: asyncio.TimerHandle | None = None
        """Rings when the application is cancelled."""
        self.interrupted: tuple[asyncio.Task[object], ...] = ()
        self.told: set[asyncio.Task[object] | None] = set()
        """The tasks that have received the disconnect."""
        self.has_noticed = False
        """Whether the application knows that the connection has ended."""
        self.is_sent = False
        """Whether the close has been sent, or cannot be."""
        self.is_forced = False
        self.cancelled_before = 0
        self.late_receives = 0
        """How many calls of the task that serves the connection, or for it, wait for a message after the disconnect."""
        self.ignored_sends = 0
        """How many sends after the disconnect came one straight after the other."""
        self.others: set[asyncio.Task[object] | None] = set()
        """The tasks that have received or sent after the disconnect, but for the one that serves the connection."""
        self.last_ignored_send = -math.inf

    def stop_timer(self) -> None:
        """Cancel nothing, for now."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


NO_CLOSING = Closing()
"""Stands for that of a session that was not asked to leave. It never changes."""


class Connection(Session):
    """
    One session on an ASGI server. A subclass knows the messages of its protocol.

    Args:
        task: The one in which the application runs.
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
        # Servers keep it in the object whose methods we hold: with the session in it that is a cycle until the end.
        self._scope = scope
        scope[SCOPE_KEY] = self
        self._raw_receive = receive
        self._raw_send = send
        # The close is sent in the session's own context, so that tracing and logging see it where it belongs. Most
        # servers begin with an empty one, which need not be kept 100,000 times.
        self._context = copy_context() or None
        self._task = task
        self._parked: asyncio.Task[object] | tuple[asyncio.Task[object] | None, ...] | None = None
        """The task that is in `receive`; several where one listens and another looks for the client's end."""
        self._last_received = ""
        self._disconnect: Message | None = None
        self._closing = NO_CLOSING
        self._is_over = False

    tells_each_task = False
    """Whether each task that asks receives the disconnect, once, or only the first, as on most servers."""

    # What an application calls

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Do not be asked to leave inside the block: an update is half way. The deadline still holds."""
        self._engine.hold(self)
        try:
            yield
        finally:
            self._engine.release(self)
            if self._closing.released is not None and not self.is_held:
                self._closing.released.set()

    @property
    def reconnect_after_ms(self) -> int:
        """Milliseconds after which the client should come back: for a close hook to send."""
        after = self._engine.settings.retry_after if self.reconnect_after is None else self.reconnect_after
        return round(after * 1000)

    async def wait_shed(self) -> None:
        """Return when this session is asked to leave, before its close hooks: for tasks that wait for neither side."""
        if self.shed_at is None:
            closing = self._prepare_closing()
            closing.shed_event = closing.shed_event or asyncio.Event()
            await closing.shed_event.wait()
        else:
            await asyncio.sleep(0)  # nothing that an application may call in a loop returns without suspending

    @property
    def is_session(self) -> bool:
        """Whether it is a session already, and not only a connection that may become one."""
        return True

    # What the middleware and the drain call

    def absorbs_exception(self) -> bool:
        """Tell whether the application raised what is being handled only because of what we did."""
        error = sys.exception()
        return error is not None and self.is_our_doing(error, self._app_ended())

    def finish(self) -> bool:
        """End: the application has ended. Return whether the server has to wait (`wait_closed`) until it may notice."""
        if self._closing is not NO_CLOSING:
            self._app_ended()
            if self._closing.task is not None:
                return True
        self._task = None
        self._finish()
        return False

    async def wait_closed(self) -> None:
        """Wait until the close has been sent, or cannot be."""
        try:
            if self._closing.task is not None:
                await self._closing.task
        finally:
            self._finish()

    def begin_close(self, policy: ClosePolicy) -> None:
        """Begin to close: the close hooks, the disconnect, the close; return at once."""
        closing = self._prepare_closing()
        if closing.shed_event is not None:
            closing.shed_event.set()
        coroutine = self._close_gracefully(policy)
        closing.task = self._loop.create_task(coroutine, context=self._context or Context())

    async def receive(self) -> Message:
        """Receive the next message; once parted, the disconnect, and after that nothing any more."""
        if self._disconnect is not None:
            return await self._receive_late(self._disconnect)
        # Marking the parked task costs a tenth of a timeout around every receive; only a shed cancels it.
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
                self._step_aside(task)
        if self._disconnect is not None:
            self._was_only_interrupted(task, before)
            return self._receive_parted(self._disconnect)
        self._last_received = message["type"]
        if self._last_received in DISCONNECTS or self._engine.notes_activity:
            self._note_received(message)
        return message

    def connection_ended(self, *, forced: bool = False, code: int | None = None) -> None:
        """
        Take note that the connection is over, whichever side has ended it: it is a session no longer.

        What its application does from now on is work. Calling it again does no harm.
        """
        if not self._is_over:
            self._is_over = True
            if code is None and self._disconnect is not None:
                code = self._disconnect.get("code")
            if self._engine.closed(self, forced=forced, code=code) and self._task is not None:
                self._engine.working.add(self)

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
        return self.is_open and not self._is_over

    async def send_close(self, close_policy: ClosePolicy) -> None:
        """Send the protocol's close to the client."""
        raise NotImplementedError

    # The works

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
        closing, task = self._closing, self._take_note_of_task()
        if closing.told and (task in closing.told or not self.tells_each_task):
            is_served = task is self._task or (_only_receives(task) and self._task not in closing.told)
            closing.late_receives += is_served
            if is_served and closing.timer is None:
                closing.timer = self._loop.call_later(closing.grace, self._end_of_patience, closing)
            try:
                await self._loop.create_future()  # until the grace is over
            finally:
                closing.late_receives -= is_served
        if len(closing.told) >= TOLD_AT_ONCE:
            await asyncio.sleep(LATE_SEND_TIME * len(closing.told))  # it makes a task for each of its calls
        return self._receive_parted(disconnect)

    def _end_of_patience(self, closing: Closing) -> None:
        closing.timer = None
        if closing.late_receives and self._is_alone():
            self.abort()

    def _take_note_of_task(self) -> asyncio.Task[object] | None:
        """Return the present task, which calls something after the disconnect."""
        task = asyncio.current_task()
        if task is not self._task and not _only_receives(task):
            self._closing.others.add(task)
        return task

    def _is_alone(self) -> bool:
        """Tell whether no other task is known that may be at work: cancelling the one that serves may end all."""
        return all(task is None or task.done() for task in self._closing.others)

    def _receive_parted(self, disconnect: Message) -> Message:
        message = self.receive_parted(disconnect)
        if message is disconnect:
            self._closing.told.add(self._take_note_of_task())
            self._notice()
        return message

    def _notice(self) -> None:
        """Take note that the application knows of the disconnect: what it does now may be important."""
        closing = self._closing
        if not closing.has_noticed:
            closing.has_noticed = True
            closing.stop_timer()
            if closing.is_sent:
                self.connection_ended()

    async def _suspend_late_send(self) -> None:
        """
        Let others run, in a send after the disconnect; take time where such sends are all that an application does.

        Otherwise it would keep the CPU busy until its end. Other connections' tasks may send here too, now and then.
        """
        closing, task = self._closing, self._take_note_of_task()
        if self._loop.time() - closing.last_ignored_send > AT_ONCE:
            closing.ignored_sends = 0
        closing.ignored_sends += 1
        if closing.ignored_sends > IGNORED_AT_ONCE:
            is_late = closing.ignored_sends * LATE_SEND_TIME > closing.grace
            if is_late and task is self._task and self._is_alone():
                self.abort()
            await asyncio.sleep(LATE_SEND_TIME)
        else:
            # Many frameworks listen in another task, and cancel this one when they get the disconnect: let them.
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
        if not self._is_over:  # one of the two has ended it meanwhile: what is at work is not to be disturbed
            await self._part(close_policy)

    async def _wait_released(self, seconds: float) -> None:
        """Wait for the end of a hold that began during the close hooks."""
        self._closing.released = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.released.wait()

    async def _part(self, close_policy: ClosePolicy) -> None:
        closing = self._end_receive(close_policy)
        try:
            async with asyncio.timeout(close_policy.grace):
                await self.send_close(close_policy)
        except Exception as error:  # noqa: BLE001
            # The client has gone, does not read, or the server's own assertions failed (the legacy websockets
            # implementation, when the application is in a blocked send). Nothing more can be done for this one.
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                self._leave_alone(closing)
            logger.debug("The close of a session on %s could not be sent: %r", printable(self.path), error)
        closing.is_sent = True
        if closing.has_noticed or self._task is None:
            self.connection_ended()

    def _leave_alone(self, closing: Closing) -> None:
        """Let an application work on whose client had gone before, unnoticed. It learns of the client's own end."""
        if self._last_received and not (closing.has_noticed or closing.interrupted):
            self._disconnect = None
        self._notice()

    def _end_receive(self, close_policy: ClosePolicy) -> Closing:
        """Disconnect the application. Whatever it does not notice within the grace is cancelled."""
        closing = self._prepare_closing()
        self._disconnect = self.disconnect_message(close_policy)
        closing.grace = close_policy.grace
        if self._task is not None:
            closing.timer = self._loop.call_later(close_policy.grace, self.abort)
        self._interrupt(closing)
        return closing

    def _interrupt(self, closing: Closing) -> None:
        """End a pending `receive` without a trace: it takes the cancellation back."""
        parked = self._parked if isinstance(self._parked, tuple) else (self._parked,)
        closing.interrupted = tuple(task for task in parked if task is not None)
        for task in closing.interrupted:
            task.cancel()

    def _park_beside(self, task: asyncio.Task[object] | None) -> None:
        """Note one more task that is parked in `receive`."""
        self._parked = (*self._parked, task) if isinstance(self._parked, tuple) else (self._parked, task)

    def _step_aside(self, task: asyncio.Task[object] | None) -> None:
        """Forget one of several tasks that are parked in `receive`."""
        if isinstance(self._parked, tuple):
            others = tuple(each for each in self._parked if each is not task)
            self._parked = others if len(others) > 1 else others[0] if others else None

    def _was_only_interrupted(self, task: asyncio.Task[object] | None, before: int) -> bool:
        """Take back our cancellation of the parked task; False if somebody else cancelled it, or did so too."""
        closing = self._closing
        if task is None or task not in closing.interrupted:
            return False
        closing.interrupted = tuple(each for each in closing.interrupted if each is not task)
        return task.uncancel() <= before

    def abort(self) -> None:
        """Cancel the application, whose time has run out."""
        closing = self._closing
        if self._task is None or closing.is_forced:
            return
        logger.debug("The application on %s is cancelled: its grace is over", printable(self.path))
        closing.is_forced = True
        # Only what exceeds this is ours to take back. It may be more than 0: Python 3.11 and 3.12 leave one request
        # behind in a task whose TaskGroup has failed (https://github.com/python/cpython/issues/116720).
        closing.cancelled_before = self._task.cancelling()
        self._task.cancel()
        if self._is_over:
            self._engine.forced(self)
        else:
            self.connection_ended(forced=True)

    def _app_ended(self) -> bool:
        """Take back our cancellation of the application; return whether it was the only one."""
        task, self._task = self._task, None  # there is nothing left to cancel
        closing = self._closing
        closing.stop_timer()
        return closing.is_forced and task is not None and task.uncancel() <= closing.cancelled_before

    def is_our_doing(self, error: BaseException, is_cancellation_ours: bool) -> bool:  # noqa: FBT001
        """Tell what the close caused from what passes through."""
        if isinstance(error, asyncio.CancelledError):
            return is_cancellation_ours
        if self._disconnect is None:
            return False
        if isinstance(error, BaseExceptionGroup):
            return all(self.is_our_doing(each, is_cancellation_ours) for each in error.exceptions)
        return self.is_our_disconnect(error, self._disconnect)

    def is_our_disconnect(self, error: BaseException, disconnect: Message) -> bool:  # noqa: ARG002
        """Tell whether *error* is what became of our *disconnect* in the application."""
        return isinstance(error, ConnectionEnded) and error.connection is self


def _only_receives(task: asyncio.Task[object] | None) -> bool:
    """Tell whether *task* was made for one `receive`, as Channels and ``asyncio.wait_for`` do, and for nothing else."""
    return task is not None and getattr(task.get_coro(), "cr_code", None) is Connection.receive.__code__


def retry_after_header(seconds: float) -> tuple[bytes, bytes]:
    """Return the header that says when to come back, in whole seconds (RFC 9110 section 10.2.3)."""
    return b"retry-after", str(math.ceil(seconds)).encode()
