"""The Drain: what a user holds in hand, and what watches the triggers for as long as the application runs."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar, Unpack

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.declared import is_number
from starlette_drain._core.options import DrainOptions
from starlette_drain._core.report import DrainReport
from starlette_drain._core.settings import Settings
from starlette_drain._engine.agreement import Agreement, TriggerAndObserver
from starlette_drain._engine.answers import Transfers
from starlette_drain._engine.close_hooks import CloseHook, CloseHooks
from starlette_drain._engine.fleet import FleetShedding
from starlette_drain._engine.flush import flush
from starlette_drain._engine.garbage import Freeze
from starlette_drain._engine.trigger_tasks import Watching, status_of
from starlette_drain.exceptions import DrainInUse, SettingsError
from starlette_drain.telemetry.base import Observer, Observers
from starlette_drain.triggers.base import Trigger, check_triggers

__all__ = ["Drain"]

SAME_MOMENT = 1.0
"""Seconds by which two deadlines differ that come from one event told twice: ages are measured, and travel."""

CloseHookT = TypeVar("CloseHookT", bound=CloseHook)


class Drain(FleetShedding):
    """
    Asks the long-lived connections of one process to leave, one by one, when somebody asks for it.

    Make it anywhere (it binds to an event loop only when the application starts), hand it to `DrainMiddleware`, and
    keep it if you want more than the one line gives. Everything here belongs to the event loop's thread.

    Args:
        triggers: Who may ask for a drain, instead of the usual: SIGTERM and target health.
        observers: Who is told what happens, instead of the usual: the log and OpenTelemetry.
        rng: The source of luck for the jitter.
        **options: See `Settings`, which lists every option; each has an environment variable too.

    Raises:
        SettingsError: If an option cannot work.
    """

    def __init__(
        self,
        *,
        triggers: Iterable[Trigger] | None = None,
        observers: Iterable[Observer] | None = None,
        rng: Random | None = None,
        **options: Unpack[DrainOptions],
    ) -> None:
        settings = Settings.load(options, os.environ)
        if rng is not None and not isinstance(rng, Random):
            raise SettingsError("rng", rng, "give a random.Random, such as Random(7), or None")
        super().__init__(settings, None if observers is None else Observers(observers), rng or Random())
        self._has_own_luck = rng is None
        self.open_elsewhere = 0
        """How many sessions are open in the other workers of the task."""
        self.transfers = Transfers(cancels=settings.cancel_transfers)
        self.close_hooks = CloseHooks(settings.farewell_timeout)
        self._triggers = None if triggers is None else check_triggers(triggers)
        Observers(each for each in self._triggers or () if isinstance(each, Observer))  # refuses what cannot hear
        self._agreement: Agreement | None = None
        self._is_equipped = False
        self._watching: Watching | None = None
        self._former_loop: asyncio.AbstractEventLoop | None = None
        self._flushed: DrainReport | None = None
        """The report that the observers have sent, or had their time to."""

    # What a user calls

    async def start(
        self, *, window: float | None = None, reason: str = "asked for by the application", age: float = 0.0
    ) -> None:
        """
        Begin to drain; while draining, join the drain under way, which that can only shorten.

        Args:
            window: Seconds over which the sheds spread; by default the option, or what AWS leaves.
            reason: One sentence for logs, spans and answers.
            age: Seconds since that has happened, for whoever hears of it late; they are taken off the window.

        Raises:
            SettingsError: If *window* or *age* cannot work.
            DrainInUse: If the drain already runs on another event loop.
        """
        if window is not None and not (is_number(window) and window >= 0):
            raise SettingsError("window", window, "give seconds, 0 or more, or None for the window of the options")
        if not (is_number(age) and age >= 0):
            raise SettingsError("age", age, "give seconds, 0 or more, since what it is asked for has happened")
        self.begin()
        self.look()
        now = self.time()
        deadline = None if window is None else now + window
        if age:
            deadline = self._deadline_since(now - age, window)
        self.request(DrainCause("manual", reason, now, deadline, lag=age))

    async def cancel(self) -> None:
        """
        Stop draining and serve again. The sessions that were asked to leave still leave.

        Raises:
            IllegalTransition: If there is no drain.
            TooLateToCancel: If the process has been told to stop.
        """
        self.look()
        self.withdraw()

    def before_close(self, farewell: CloseHookT) -> CloseHookT:
        """
        Call *farewell* with each session before it is closed by a drain; a decorator.

        It may take ``farewell_timeout`` seconds for each session. Sessions do not wait for one another, and a farewell
        that fails or takes too long is logged and the session closed all the same.
        """
        self.close_hooks.add(farewell)
        return farewell

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Drain"]:
        """
        Watch the triggers for as long as the block lasts: for applications without the middleware's lifespan.

        Raises:
            DrainInUse: If the drain already runs on another event loop.
        """
        began = self.begin()
        try:
            yield self
        finally:
            if began:
                await self.end()

    # What the top floor calls

    def equip(self, triggers: Callable[[], Iterable[Trigger]], observers: Callable[[], Iterable[Observer]]) -> bool:
        """Fill in the triggers and observers where the user left them open; return whether that was news."""
        if self._is_equipped:
            return False
        self._is_equipped = True
        if self._observers is None:
            self._observers = Observers(observers())
        self._observers.add(self.transfers)
        if self.settings.freeze_gc:
            self._observers.add(Freeze())
        if self._triggers is None:
            self._triggers = tuple(triggers())
        for each in self._triggers:
            if isinstance(each, Observer):
                self._observers.add(each)
        self._watch_soon()
        return True

    def add(self, member: TriggerAndObserver) -> None:
        """Let *member* watch and listen too."""
        self._triggers = (*(self._triggers or ()), member)
        if self._observers is not None:
            self._observers.add(member)
        self._watch_soon()

    # What triggers call, besides what `Shedding` has

    def retract(self, trigger: str) -> bool:
        """Take back the drain that *trigger* alone has asked for; return whether there was one to take back."""
        if self._episode and self._episode.is_revocable_by(trigger):
            self.look()  # another worker may just have been asked by somebody else
            if self._episode and self._episode.is_revocable_by(trigger):
                self.withdraw()
                return True
        return False

    @property
    def workers(self) -> int:
        """How many worker processes of this task drain as one."""
        return self._share

    def open_sessions(self) -> int:
        """Return how many sessions are open in the whole task, as far as its workers have told."""
        return self.statistics().open + self.open_elsewhere

    def retry_after(self) -> float:
        """Return how many seconds a client that is turned away should stay away: each something else."""
        return self.settings.retry_after * self.rng.uniform(1.0, 2.0)

    def look(self) -> None:
        """Hear what the other workers of the task were asked for, before this one is."""
        if self._agreement:
            self._agreement.look()

    async def wait_all_drained(self) -> bool:
        """Wait like `wait_drained`, for all workers of the task."""
        return await self.wait_drained() and (self._agreement is None or await self._agreement.wait_others())

    def coordinate(self, agreement: Agreement, elect: Callable[[Trigger], Trigger]) -> None:
        """Let the workers of one task agree; *elect* makes a trigger run in one of them only."""
        watched = self._watching or ()
        self._triggers = tuple(
            elect(each) if getattr(each, "once_per_task", False) and each not in watched else each
            for each in self._triggers or ()
        )
        self._agreement = agreement
        self.add(agreement)

    @property
    def is_running(self) -> bool:
        """Whether it belongs to the running event loop; where there is none, False."""
        return self._loop is not None and self._loop is asyncio._get_running_loop()

    @property
    def has_ended(self) -> bool:
        """Whether it has belonged to the running event loop, and was ended there."""
        return self._loop is None and self._former_loop is not None and self._former_loop is asyncio._get_running_loop()

    def attach(self) -> bool:
        """
        Belong to the running event loop, watching nothing yet; return whether that was news: a new life.

        Raises:
            DrainInUse: If the drain already runs on another event loop, or this one is not asyncio's.
        """
        loop = asyncio._get_running_loop()
        if loop is None:
            msg = "there is no asyncio event loop here (trio has its own kind), and a Drain runs on no other"
            raise DrainInUse(msg)
        if self._loop is loop:
            return False
        if self._loop is not None and not self._loop.is_closed():
            msg = "this Drain already runs on another event loop; make one Drain for each application and loop"
            raise DrainInUse(msg)
        registry = self._registry
        self._reset()
        if self._has_own_luck:
            self.rng.seed()  # workers that were forked after the drain was made would all draw the same
        if loop is self._former_loop:
            self._registry = registry  # with the sessions that outlived its former life
        self._loop = self._former_loop = loop
        self._watching = None
        return True

    def begin(self) -> bool:
        """
        Watch the triggers from now on; return whether that was news.

        Raises:
            DrainInUse: If the drain already runs on another event loop.
        """
        self.attach()
        if self._watching is not None:
            return False
        self._watching = Watching(self)
        self._watch_all()
        return True

    async def end(self, *, may_begin_again: bool = False) -> None:
        """Stop watching. A drain under way ends as it stands; for good, unless it *may_begin_again* on this loop."""
        watching, self._watching = self._watching, None
        if watching is not None:
            await watching.end()
        self.stop()
        self.transfers.stop()
        if self._report is not self._flushed:
            await self.flush()
        self._loop = None
        if may_begin_again:
            self._former_loop = None

    def trigger_status(self) -> dict[str, Mapping[str, Any]]:
        """Return what each trigger says of itself."""
        return {trigger.name: status_of(trigger, self.time()) for trigger in self._triggers or ()}

    async def flush(self) -> None:
        """Let the observers send what they hold, within a few seconds."""
        self._flushed = self._report
        if self._observers:
            await flush(self._observers)

    # The works

    def _deadline_since(self, began: float, window: float | None) -> float:
        """Return the deadline of what began a while ago; that of the drain under way, where it is the same event."""
        deadline = began + (self.settings.usual_window(self.advised_window) if window is None else window)
        if self._episode and abs(deadline - self._episode.deadline) < SAME_MOMENT:
            return self._episode.deadline
        return deadline

    def _watch_soon(self) -> None:
        """Let those watch who came after the beginning: Starlette makes its middleware when it is first used."""
        if self._watching is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._watch_all)  # once all have come who come together

    def _watch_all(self) -> None:
        if self._watching is not None:
            self._watching.begin(self._triggers or ())
