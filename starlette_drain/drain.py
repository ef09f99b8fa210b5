"""The Drain: it owns the sessions, the plan and the tasks, and is the only place that waits for a plan's moment."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar, Unpack

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.episode import DrainProgress, Episode
from starlette_drain._core.facts import (
    DrainCancelled,
    DrainFinished,
    DrainProgressed,
    DrainReplanned,
    DrainStarted,
    Fact,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SessionShed,
)
from starlette_drain._core.report import DrainReport
from starlette_drain._core.session import Goodbye, Outcome, RegistryStatistics, Session, SessionRegistry
from starlette_drain._core.settings import DrainOptions, Settings
from starlette_drain._core.state import DrainEvent, DrainState, advance
from starlette_drain.exceptions import DrainInUse, TooLateToCancel
from starlette_drain.telemetry.base import Observer, Observers
from starlette_drain.triggers.base import Trigger

__all__ = ["Drain"]

DEFAULT_WINDOW = 285.0
"""Seconds for a drain that nobody gave a deadline: ELBv2's default deregistration delay of 300 s less the margin."""

SLICE = 100
"""Sessions asked to leave in one pass of the event loop, so that a burst does not hold up everybody else."""

FLUSH_TIMEOUT = 5.0
"""Seconds the observers may take to send what they hold."""

logger = logging.getLogger("starlette_drain")

Farewell = Callable[[Any], Awaitable[None]]
FarewellT = TypeVar("FarewellT", bound=Farewell)


class Drain:
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
        self.settings = Settings.load(options, os.environ)
        self._triggers = None if triggers is None else tuple(triggers)
        self._observers = None if observers is None else Observers(observers)
        self._rng = rng or Random()
        self._goodbye = Goodbye(
            self.settings.close_code, self.settings.close_reason, self.settings.close_timeout, self.settings.grace
        )
        self._farewells: list[Farewell] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._advised: float | None = None
        self._reset()

    def _reset(self) -> None:
        self._state = DrainState.SERVING
        self._registry = SessionRegistry()
        self._episode: Episode | None = None
        self._report: DrainReport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []

    # What a user calls

    @property
    def state(self) -> DrainState:
        """Whether the process is serving, draining or drained."""
        return self._state

    @property
    def report(self) -> DrainReport | None:
        """The report of the last drain that ended or was cancelled."""
        return self._report

    def statistics(self) -> RegistryStatistics:
        """Return how many sessions there are, and how they stand."""
        return self._registry.statistics()

    def progress(self) -> DrainProgress | None:
        """Return how far the drain under way is; ``None`` while serving."""
        return self._episode.progress(self.time()) if self._episode and self._loop else None

    async def start(self, *, window: float | None = None, reason: str = "asked for by the application") -> None:
        """
        Begin to drain; while draining, join the drain under way, which that can only shorten.

        Args:
            window: Seconds over which the sheds spread; by default the option, or what AWS leaves.
            reason: One sentence for logs, spans and answers.
        """
        self.begin()
        now = self.time()
        self.request(DrainCause("manual", reason, now, None if window is None else now + window))

    async def cancel(self) -> None:
        """
        Stop draining and serve again. The sessions that were asked to leave still leave.

        Raises:
            IllegalTransition: If there is no drain.
            TooLateToCancel: If the process has been told to stop.
        """
        following = advance(self._state, DrainEvent.CANCEL)
        if (episode := self._episode) is None:
            return
        if not episode.is_revocable:
            msg = f"drain {episode.drain_id} cannot be cancelled: the process has been told to stop; let it end"
            raise TooLateToCancel(msg)
        self._state, self._episode = following, None
        self._set_timer(None)
        self._report = episode.report(self.time())
        self.tell(DrainCancelled(self.time(), episode.drain_id, self._report))
        self._over.set()
        self._over.clear()

    async def wait_drained(self) -> bool:
        """
        Wait until the drain is over: every session gone, or the time of those who would not go has run out.

        Returns:
            True; False if the drain was cancelled instead.
        """
        await self._over.wait()
        return self._state is DrainState.DRAINED

    def before_close(self, farewell: FarewellT) -> FarewellT:
        """
        Call *farewell* with each session before it is closed by a drain; a decorator.

        It may take ``farewell_timeout`` seconds for each session. Sessions do not wait for one another, and a farewell
        that fails or takes too long is logged and the session closed all the same.
        """
        self._farewells.append(farewell)
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

    def equip(self, triggers: Callable[[], Iterable[Trigger]], observers: Callable[[], Iterable[Observer]]) -> None:
        """Fill in the triggers and observers where the user left them open."""
        if self._observers is None:
            self._observers = Observers(observers())
        if self._triggers is None:
            self._triggers = tuple(triggers())
            if self._loop:
                self._watch_all()

    @property
    def is_running(self) -> bool:
        """Whether the triggers are watched, on the running event loop."""
        return self._loop is not None and self._loop is asyncio.get_running_loop()

    def begin(self) -> bool:
        """
        Watch the triggers from now on; return whether that was news.

        Raises:
            DrainInUse: If the drain already runs on another event loop.
        """
        if not self._bind():
            return False
        self._watch_all()
        return True

    async def end(self) -> None:
        """Stop watching. A drain under way ends as it stands."""
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        if self._episode and self._state is DrainState.DRAINING:
            self._finish(self._episode)
        if self._report:
            await self.flush()
        self._loop = None

    def admits(self) -> bool:
        """Return whether a new session may open now."""
        if self._episode is None:
            return True
        return self.settings.late_arrivals == "accept" and self.time() < self._episode.plan.deadline

    def enter(self, session: Session) -> None:
        """Track a session that begins its handshake."""
        self._registry.add(session)
        self._state = advance(self._state, DrainEvent.ARRIVE)
        if self._episode:
            self._episode.tally.arrived += 1
            self._over.clear()
            self._recount()

    def opened(self, session: Session) -> None:
        """Take note that a session has completed its handshake."""
        session.is_open = True
        self.tell(SessionOpened(self.time(), session))

    def refused(self, kind: str, path: str) -> None:
        """Take note that a late arrival was turned away."""
        if self._episode:
            self._episode.tally.refused += 1
        self.tell(SessionRefused(self.time(), kind, path))

    def closed(self, session: Session, *, forced: bool) -> None:
        """Forget a session that is over."""
        was_shed = session.shed_at is not None
        self._registry.discard(session)
        if self._episode:
            self._episode.tally.forced += forced
            self._episode.tally.left += not was_shed
            if not was_shed:
                self._recount()
            elif self._registry.remaining == 0:
                self._schedule(self._episode)
        if session.is_open:
            outcome = Outcome.FORCED if forced else Outcome.SHED if was_shed else Outcome.LEFT
            self.tell(SessionClosed(self.time(), session, outcome))

    def hold(self, session: Session) -> None:
        """Do not ask *session* to leave for now."""
        self._registry.hold(session)
        self._recount()

    def release(self, session: Session) -> None:
        """End one hold of *session*."""
        self._registry.release(session)
        self._recount()

    async def bid_farewell(self, session: Session) -> None:
        """Let the application say goodbye to *session* in its own words, within ``farewell_timeout``."""
        try:
            async with asyncio.timeout(self.settings.farewell_timeout):
                for farewell in self._farewells:
                    await farewell(session)
        except TimeoutError:
            logger.warning(
                "A farewell to a session on %s took more than %g s and was cut short; say less, or raise farewell_timeout",
                session.path,
                self.settings.farewell_timeout,
            )
        except Exception:
            logger.exception("A farewell to a session on %s failed; the session is closed all the same", session.path)

    def trigger_status(self) -> dict[str, Mapping[str, Any]]:
        """Return what each trigger says of itself."""
        return {trigger.name: trigger.status(self.time()) for trigger in self._triggers or ()}

    # What a trigger calls (the Control protocol)

    def time(self) -> float:
        """Return the event loop's monotonic clock, in seconds."""
        return (self._loop or asyncio.get_running_loop()).time()

    def request(self, cause: DrainCause) -> None:
        """Begin to drain, or let *cause* join the drain under way."""
        now = self.time()
        deadline = cause.deadline
        if deadline is None:
            deadline = now + (self.settings.window or self._advised or DEFAULT_WINDOW)
        self._state = advance(self._state, DrainEvent.START)
        if self._episode is None:
            self._begin_episode(cause, now, max(now, deadline))
        else:
            self._join_episode(self._episode, cause, now, max(now, deadline))
        self._recount()

    def advise(self, window: float) -> None:
        """Take note how many seconds a drain may take here."""
        self._advised = window

    def tell(self, fact: Fact) -> None:
        """Tell the observers."""
        if self._observers:
            self._observers.notify(fact)

    async def flush(self) -> None:
        """Let the observers send what they hold, in a thread, within `FLUSH_TIMEOUT` seconds."""
        if self._observers:
            await asyncio.to_thread(self._observers.flush, FLUSH_TIMEOUT)

    # The works

    def _bind(self) -> bool:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return False
        if self._loop is not None and not self._loop.is_closed():
            msg = "this Drain already runs on another event loop; make one Drain for each application and loop"
            raise DrainInUse(msg)
        self._reset()
        self._loop = loop
        return True

    def _watch_all(self) -> None:
        self._watching += [asyncio.create_task(self._watch(trigger)) for trigger in self._triggers or ()]

    async def _watch(self, trigger: Trigger) -> None:
        try:
            await trigger.watch(self)
        except Exception:
            logger.exception("Trigger %r failed and watches no more; a drain under way goes on", trigger.name)

    def _begin_episode(self, cause: DrainCause, now: float, deadline: float) -> None:
        self._over.clear()
        episode = self._episode = Episode(
            cause, self._registry, self.settings.pacing, self._rng, now=now, deadline=deadline
        )
        self.tell(DrainStarted(now, episode.drain_id, cause, deadline, len(self._registry), episode.plan.describe(now)))

    def _join_episode(self, episode: Episode, cause: DrainCause, now: float, deadline: float) -> None:
        known = episode.causes
        shortened = episode.join(cause, now=now, deadline=deadline)
        if episode.causes is not known:
            remaining = self._registry.remaining
            plan = episode.plan
            self.tell(
                DrainReplanned(now, episode.drain_id, cause, plan.deadline, shortened, remaining, plan.describe(now))
            )

    def _recount(self) -> None:
        if self._episode:
            self._episode.plan.recount(self.time())
            self._schedule(self._episode)

    def _schedule(self, episode: Episode) -> None:
        """Set the timer for the plan's next moment, or finish when there is nothing left to wait for."""
        if self._state is not DrainState.DRAINING:
            return
        moment = episode.plan.ask_at
        if moment is None:
            # Everyone was asked. Those who have not gone by the end of their grace never will.
            moment = episode.tally.last_shed_at + self.settings.tail + 1.0
            if len(self._registry) == 0 or self.time() >= moment:
                self._finish(episode)
                return
        # A timer that fires too early does no harm: it asks the plan again.
        if self._timer is None or moment < self._timer.when():
            self._set_timer(moment)

    def _set_timer(self, moment: float | None) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if moment is not None and self._loop:
            self._timer = self._loop.call_at(moment, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if (episode := self._episode) is None:
            return
        now = self.time()
        for session in episode.due(now, SLICE):
            self._shed(session, now)
        if percent := episode.milestone():
            remaining = self._registry.remaining
            self.tell(DrainProgressed(now, episode.drain_id, percent, episode.tally.shed, remaining))
        self._schedule(episode)

    def _shed(self, session: Session, now: float) -> None:
        session.shed_at = now
        self.tell(SessionShed(now, session))
        try:
            session.leave(self._goodbye)
        except Exception:
            logger.exception("A session on %s could not be asked to leave; the drain goes on", session.path)

    def _finish(self, episode: Episode) -> None:
        self._state = advance(self._state, DrainEvent.FINISH)
        self._set_timer(None)
        self._report = episode.report(self.time())
        self.tell(DrainFinished(self.time(), episode.drain_id, self._report))
        self._over.set()
