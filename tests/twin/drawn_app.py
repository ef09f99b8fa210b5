"""
An ASGI application as data: a program of small steps, and what performs it.

A program prints as the Python that makes it, so that a failing test can be pasted into another.
"""

import asyncio
import itertools
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import anyio
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from starlette_drain import NotTracked, session_of

__all__ = [
    "Big",
    "Echo",
    "Forever",
    "Gather",
    "Group",
    "Hold",
    "Limit",
    "Performance",
    "Raise",
    "Receive",
    "Repeat",
    "Return",
    "Send",
    "Sleep",
    "Spawn",
    "Spinning",
    "Try",
]

BUSY = 200
"""Steps in one pass of the event loop that make a loop an endless one."""

Steps = tuple["Step", ...]


class Step:
    """One thing that an application does."""


class Big(bytes):
    """Many bytes, which print as few."""

    __slots__ = ()

    def __new__(cls, size: int) -> Self:
        """Make *size* of them."""
        return super().__new__(cls, b"x" * size)

    def __repr__(self) -> str:
        return f"Big({len(self)})"


@dataclass(frozen=True)
class Receive(Step):
    """Wait for the next message."""


@dataclass(frozen=True)
class Send(Step):
    """Send a message; ``Send("websocket.send", text="x")``."""

    message: tuple[tuple[str, Any], ...]

    def __init__(self, kind: str, **fields: Any) -> None:
        object.__setattr__(self, "message", (("type", kind), *fields.items()))

    def __repr__(self) -> str:
        (_, kind), *fields = self.message
        return f"Send({', '.join([repr(kind), *(f'{name}={value!r}' for name, value in fields)])})"


@dataclass(frozen=True)
class Sleep(Step):
    """Wait for something that is neither a message nor a send."""

    seconds: float


@dataclass(frozen=True)
class Raise(Step):
    """Fail, with an error of its own."""

    error: str


@dataclass(frozen=True)
class Return(Step):
    """Return *value* from the application, where this is not a task of its own."""

    value: Any = None


@dataclass(frozen=True)
class Repeat(Step):
    """Do *body* several times, whatever it receives."""

    times: int
    body: Steps


@dataclass(frozen=True)
class Forever(Step):
    """Do *body* again and again, whatever it receives."""

    body: Steps


@dataclass(frozen=True)
class Echo(Step):
    """Receive until the disconnect, doing *body* for each message."""

    body: Steps


@dataclass(frozen=True)
class Try(Step):
    """``try: body except catch: instead finally: after``; without *catch* there is no ``except``."""

    body: Steps
    catch: str | None = None
    instead: Steps = ()
    after: Steps = ()


@dataclass(frozen=True)
class Spawn(Step):
    """Do *body* in a task that nothing waits for."""

    body: Steps


@dataclass(frozen=True)
class Group(Step):
    """Do *bodies* side by side, in a group of *kind*: ``"asyncio"``, ``"anyio"``; ``"first"`` cancels the others."""

    kind: str
    bodies: tuple[Steps, ...]


@dataclass(frozen=True)
class Gather(Step):
    """Do *bodies* side by side by ``asyncio.gather``."""

    bodies: tuple[Steps, ...]


@dataclass(frozen=True)
class Limit(Step):
    """Do *body*, but no longer than *seconds*, by ``"wait_for"``, ``"timeout"`` or ``"anyio"``."""

    how: str
    seconds: float
    body: Steps


@dataclass(frozen=True)
class Hold(Step):
    """Do *body* undisturbed by a drain."""

    body: Steps


class OwnError(Exception):
    """An error of the application's own."""


class Spinning(BaseException):
    """A loop of the application would never end, and never let anything else happen: stop it, or the test hangs."""


class _Return(BaseException):
    """Unwinds the program."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "OwnError": lambda: OwnError("mine"),
    "OSError": lambda: OSError(5, "mine"),
    "ConnectionResetError": lambda: ConnectionResetError("mine"),
    "TimeoutError": lambda: TimeoutError("mine"),
    "WebSocketDisconnect": lambda: WebSocketDisconnect(4001, "mine"),
    "ClientDisconnect": ClientDisconnect,
    "CancelledError": lambda: asyncio.CancelledError("mine"),
}
"""What a program can raise."""

CATCHES: dict[str, type[BaseException]] = {
    "Exception": Exception,
    "OSError": OSError,
    "RuntimeError": RuntimeError,
    "WebSocketDisconnect": WebSocketDisconnect,
    "CancelledError": asyncio.CancelledError,
    "BaseException": BaseException,
}
"""What a program can catch."""

ADDRESS = re.compile(r"(?<=cancel scope ).*")
"""What anyio says of a cancellation: another address each time."""

ENDS = {"websocket.close", "websocket.disconnect", "http.disconnect"}
"""Messages after which a connection is over."""


class Performance:
    """
    An ASGI application that performs a program, once for each connection, and notes what comes of it.

    Attributes:
        is_over: Whether the connection is over, as far as the application can tell: it ended it, or learned of its end.
        calling: What each task is in (``"receive"``, ``"send"``, or ``"sleep"``, which stands for any work), and which
            task it is.
        tasks: All tasks of the program.
        spins: Whether a loop of it has become an endless one.
    """

    def __init__(self, program: Steps, note: Callable[..., None], ticks: Callable[[], int]) -> None:
        self.program = program
        self.note = note
        self.ticks = ticks
        self.is_over = False
        self.calling: dict[asyncio.Task[Any] | None, tuple[str, str]] = {}
        self.spins = False
        self._busy = (0, 0)
        self._spawned = itertools.count()
        self.tasks: set[asyncio.Task[Any] | None] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return None
        self.scope, self._receive, self._send = scope, receive, send
        try:
            result = await self._run(self.program, "app")
        except BaseException as error:
            self.note("app", "ends with", described(error))
            raise
        self.note("app", "ends", result)
        return result

    async def _run(self, steps: Steps, who: str) -> Any:
        """Run a body that is a task, or the whole."""
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            await self._do(steps, who)
        except _Return as result:
            return result.args[0]
        finally:
            self.tasks.discard(task)
            del task

    async def _do(self, steps: Steps, who: str) -> None:
        for step in steps:
            await self._step(step, who)

    async def _step(self, step: Step, who: str) -> None:  # noqa: C901, PLR0912
        self._look_busy(who)
        match step:
            case Receive():
                await self._get(who)
            case Send():
                await self._put(dict(step.message), who)
            case Sleep():
                await self._sleep(step.seconds, who)
            case Raise():
                error = ERRORS[step.error]()
                raise error
            case Return():
                raise _Return(step.value)
            case Repeat():
                for _ in range(step.times):
                    await self._do(step.body, who)
            case Forever():
                while True:
                    self._look_busy(who)
                    await self._do(step.body, who)
            case Echo():
                while (await self._get(who))["type"] not in ENDS:
                    await self._do(step.body, who)
            case Try():
                await self._try(step, who)
            case Spawn():
                name = f"{who}+{next(self._spawned)}"
                asyncio.create_task(self._run(step.body, name))  # noqa: RUF006 - `_run` keeps it
            case Group():
                await self._group(step, who)
            case Gather():
                await asyncio.gather(*(self._run(body, f"{who}.{place}") for place, body in enumerate(step.bodies)))
            case Limit():
                await self._limit(step, who)
            case Hold():
                await self._hold(step, who)

    async def _get(self, who: str) -> Any:
        message = await self._call("receive", self._receive(), who)
        if message["type"] in ENDS:
            self.is_over = True
        self.note(who, "receives", message)
        return message

    async def _put(self, message: dict[str, Any], who: str) -> None:
        kind = message["type"]
        await self._call("send", self._send(message), who)
        if kind in ENDS or (kind.endswith(".body") and not message.get("more_body")):
            self.is_over = True
            self.note(who, "has sent the last part", kind)
        else:
            self.note(who, "has sent", kind)

    async def _call(self, name: str, coroutine: Any, who: str) -> Any:
        task = asyncio.current_task()
        self.calling[task] = (name, who)
        try:
            return await coroutine
        except BaseException as error:
            self.note(who, f"{name} raises", described(error))
            if name == "send" and isinstance(error, OSError | WebSocketDisconnect):
                self.is_over = True
            raise
        finally:
            del self.calling[task], task

    async def _sleep(self, seconds: float, who: str) -> None:
        task = asyncio.current_task()
        self.calling[task] = ("sleep", who)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.note(who, "is cancelled in sleep", seconds)
            raise
        finally:
            del self.calling[task], task
        self.note(who, "has slept", seconds)

    async def _try(self, step: Try, who: str) -> None:
        try:
            await self._do(step.body, who)
        except (Spinning, _Return):
            raise
        except BaseException as error:
            if step.catch is None or not isinstance(error, CATCHES[step.catch]):
                raise
            self.note(who, "catches", described(error))
            await self._do(step.instead, who)
        finally:
            if step.after and not self.spins:
                await self._do(step.after, who)

    async def _group(self, step: Group, who: str) -> None:
        bodies = [(body, f"{who}.{place}") for place, body in enumerate(step.bodies)]
        if step.kind == "asyncio":
            async with asyncio.TaskGroup() as group:
                for body, name in bodies:
                    group.create_task(self._run(body, name))
            return

        async def run(body: Steps, name: str, scope: anyio.CancelScope) -> None:
            await self._run(body, name)
            if step.kind == "first":
                scope.cancel()

        async with anyio.create_task_group() as tasks:
            for body, name in bodies:
                tasks.start_soon(run, body, name, tasks.cancel_scope)

    async def _limit(self, step: Limit, who: str) -> None:
        try:
            match step.how:
                case "wait_for":
                    await asyncio.wait_for(self._run(step.body, f"{who}~"), step.seconds)
                case "timeout":
                    async with asyncio.timeout(step.seconds):
                        await self._do(step.body, who)
                case "anyio":
                    with anyio.fail_after(step.seconds):
                        await self._do(step.body, who)
        except TimeoutError as error:
            self.note(who, "has no more time", described(error))

    async def _hold(self, step: Hold, who: str) -> None:
        try:
            hold: AbstractAsyncContextManager[None] = session_of(self.scope).hold()
        except NotTracked:
            hold = nullcontext()
        async with hold:
            self.note(who, "holds")
            try:
                await self._do(step.body, who)
            finally:
                self.note(who, "releases")

    def _look_busy(self, who: str) -> None:
        tick, steps = self.ticks(), self._busy[1] + 1
        self._busy = (tick, steps if tick == self._busy[0] else 0)
        if steps > BUSY and tick == self._busy[0] and not self.spins:
            self.note(who, "spins")
            self.spins = True
        if self.spins:
            raise Spinning


def described(error: BaseException | None, depth: int = 3) -> Any:
    """Return what can be compared of an exception: its type, its words, what it holds and what it came of."""
    if error is None or depth == 0:
        return None
    said = getattr(error, "reason", None) or str(error)  # a `WebSocketDisconnect` has no words
    words = (type(error).__name__, ADDRESS.sub("", said))
    if isinstance(error, BaseExceptionGroup):
        return (*words, *(described(each, depth) for each in error.exceptions))
    came_of = described(error.__cause__, depth - 1)
    return (*words, came_of) if came_of else words
