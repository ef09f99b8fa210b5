"""The Drain: the public facade, without logic of its own."""

import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from random import Random
from typing import ClassVar, TypeVar, Unpack

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.claims import BY_HAND
from starlette_drain._core.declared import is_number
from starlette_drain._core.pacing import SHORTEST_WINDOW
from starlette_drain._core.report import DrainReport
from starlette_drain._core.run import DrainProgress
from starlette_drain._core.session import RegistryStatistics
from starlette_drain._core.settings import Settings
from starlette_drain._core.state import DrainState
from starlette_drain._core.turnover import LONGEST_ROTATION, Rotation, RotationProgress
from starlette_drain._engine.close_hooks import CloseHook
from starlette_drain._engine.host import DrainHost
from starlette_drain._engine.options import DrainOptions
from starlette_drain.exceptions import DrainEnded, IllegalTransition, SettingsError
from starlette_drain.telemetry.base import Observer
from starlette_drain.triggers.base import Trigger

__all__ = ["Drain"]

logger = logging.getLogger("starlette_drain")

CloseHookT = TypeVar("CloseHookT", bound=CloseHook)


class Drain:
    """
    Closes the long-lived connections of one process, one by one, when a trigger wants a drain.

    Create it anywhere: it binds to an event loop when the application starts. Pass it to `DrainMiddleware`. Call its
    methods on the event loop's thread.

    Args:
        triggers: What may start a drain. By default SIGTERM and target health.
        observers: What receives the events. By default the log and OpenTelemetry.
        rng: The source of randomness for the jitter.
        **options: See docs/settings.md or ``starlette-drain --help``; each has an environment variable too.

    Raises:
        SettingsError: If an option is unknown or invalid.
    """

    settings_type: ClassVar[type[Settings]] = Settings
    """The options; `_asgi/defaults.py` replaces them by a subclass that adds those of AWS."""

    console: ClassVar[type[AbstractContextManager[object]]] = nullcontext
    """Shows log lines in the server's format before the application starts; `_asgi/defaults.py` replaces it."""

    def __init__(
        self,
        *,
        triggers: Iterable[Trigger] | None = None,
        observers: Iterable[Observer] | None = None,
        rng: Random | None = None,
        **options: Unpack[DrainOptions],
    ) -> None:
        self.settings = self.settings_type.load(options, os.environ)
        with self.console() if self.settings.log else nullcontext():
            for warning in self.settings.warnings(os.environ):
                logger.warning("Check the options: %s", warning)
        self.host = DrainHost(self.settings, triggers, observers, rng)
        """For the packages above this one; not part of the public API."""

    @property
    def state(self) -> DrainState:
        """Whether the process is serving, draining or drained."""
        return self.host.engine.state if self.host.engine else DrainState.SERVING

    @property
    def report(self) -> DrainReport | None:
        """The report of the last drain that ended or was cancelled, or ``None``. A report never changes."""
        return self.host.engine.report if self.host.engine else None

    def progress(self) -> DrainProgress | None:
        """Return the progress of the drain, running or over; ``None`` while serving."""
        return self.host.engine.progress() if self.host.engine else None

    def statistics(self) -> RegistryStatistics:
        """Return the number of sessions in each state."""
        return self.host.engine.statistics() if self.host.engine else RegistryStatistics(0, 0, 0, 0, 0, 0)

    async def start(
        self,
        *,
        window: float | None = None,
        reason: str = "asked for by the application",
        age: float = 0.0,
        taken_out: bool = False,
    ) -> bool:
        """
        Start a drain. During a drain, join it: that can only shorten it.

        Args:
            window: Seconds over which the closes spread. By default the option, or the time that AWS leaves.
            reason: One sentence for logs, spans and answers.
            age: Seconds since the event that caused the call; they are subtracted from the window.
            taken_out: Whether the balancer sends nothing new here, so that late arrivals may be refused.

        Returns:
            True if the process was serving; False if it was draining already, here or in another worker.

        Raises:
            SettingsError: If *window* or *age* is invalid.
            DrainInUse: If the drain already runs on another event loop.
            DrainEnded: If the application has ended or is about to.
        """
        if window is not None and not (is_number(window) and window >= 0):
            raise SettingsError("window", window, "give seconds, 0 or more, or None for the window of the options")
        if not (is_number(age) and age >= 0):
            raise SettingsError("age", age, "give the seconds since the event that caused the drain, 0 or more")
        await self.host.control().refresh()
        control = self.host.control()  # again, because the application may have ended during the await
        was_serving, now = self.state is DrainState.SERVING, control.time()
        deadline = self.host.deadline_of(now - age, window) if age or window is not None else None
        control.claim(DrainCause(BY_HAND, reason, now, deadline, lag=age, taken_out=taken_out))
        await control.publish()
        return was_serving

    async def cancel(self) -> None:
        """
        Stop draining and serve again. Sessions already asked to leave still leave.

        Triggers that still want the drain are ignored until they have withdrawn and renewed their claims.

        Raises:
            IllegalTransition: If there is no drain, or the application has ended or is about to.
            TooLateToCancel: If the process has been told to stop.
        """
        try:
            await self.host.control().refresh()
            control = self.host.control()
        except DrainEnded as error:
            raise IllegalTransition(str(error)) from None
        control.cancel()
        await control.publish()

    async def rotate(
        self,
        *,
        window: float = 86_400.0,
        share: float = 1.0,
        age: float = 0.0,
        reason: str = "asked for by the application",
    ) -> None:
        """
        Ask every session that is open now to leave once, evenly over the window, while the process goes on serving.

        They leave as in a drain, and new ones are accepted. A drain pauses the rotation; it ends with the process.

        Args:
            window: Seconds over which the sessions leave.
            share: The fraction of the sessions that leaves, picked at random.
            age: Seconds since the order was given. Sessions opened since then stay. Pass it if several tasks get the
                order one after the other; otherwise a client that moves from one to the next is asked to leave twice.
            reason: One sentence for logs and answers.

        Raises:
            SettingsError: If *window*, *share* or *age* is invalid.
            IllegalTransition: If the process drains, only observes, is ending or already rotates.
            DrainInUse: If the drain already runs on another event loop.
            DrainEnded: If the application has ended or is about to.
        """
        if not (is_number(window) and SHORTEST_WINDOW <= window <= LONGEST_ROTATION):
            raise SettingsError("window", window, f"give seconds from {SHORTEST_WINDOW:g} to {LONGEST_ROTATION:,.0f}")
        if not (is_number(share) and 0 < share <= 1):
            raise SettingsError("share", share, "give a fraction, more than 0 and at most 1")
        if not (is_number(age) and 0 <= age < window):
            raise SettingsError("age", age, f"give seconds from 0 to less than the window, {window:g}")
        engine = self.host.control().engine
        engine.rotate(Rotation(engine.time() - age, window, share, reason=reason))

    async def stop_rotating(self) -> None:
        """
        End the rotation. Sessions that it has not asked to leave stay.

        Raises:
            IllegalTransition: If no rotation runs.
        """
        if self.host.engine is None:
            msg = "no rotation is running; there is nothing to cancel"
            raise IllegalTransition(msg)
        self.host.engine.stop_rotating()

    def rotation(self) -> RotationProgress | None:
        """Return the progress of this process's rotation, or ``None`` if none runs."""
        return self.host.engine.rotation() if self.host.engine else None

    async def wait_drained(self) -> bool:
        """
        Wait until the running or the next drain is over: every session has gone, or their time has run out.

        It may be called before the application has started.

        Returns:
            True if a drain is over; False if it was cancelled, or the application ends without one.
        """
        return await self.host.wait_drained()

    def before_close(self, hook: CloseHookT) -> CloseHookT:
        """
        Call *hook*, an async function, with each session before it is closed. Can be used as a decorator.

        All hooks together may take 2 s per session; sessions do not wait for one another. If a hook fails or takes too
        long, the session is closed anyway. The first failure is logged, further ones are counted.

        Raises:
            SettingsError: If *hook* is not an async function.
        """
        self.host.close_hooks.add(hook)
        return hook

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Drain"]:
        """
        Watch the triggers during the ``async with`` block, for applications without the middleware's lifespan.

        Raises:
            DrainInUse: If the drain already runs on another event loop.
        """
        began = self.host.begin()
        try:
            yield self
        finally:
            if began:
                await self.host.end()
