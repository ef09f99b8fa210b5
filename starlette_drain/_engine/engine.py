"""The sessions of one process and the drains they go through: it asks the sessions at their plan's moments."""

import asyncio
import logging
from contextvars import Context
from random import Random

from starlette_drain._core import events
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.pacing import Pacing
from starlette_drain._core.precedence import find_precedence
from starlette_drain._core.report import DrainReport
from starlette_drain._core.run import DrainProgress, Episode
from starlette_drain._core.session import ClosePolicy, Outcome, RegistryStatistics, Session, SessionRegistry
from starlette_drain._core.settings import Settings
from starlette_drain._core.state import DrainEvent, DrainState, advance
from starlette_drain._engine.guarded_pacing import GuardedPacing
from starlette_drain._engine.timer import Timer
from starlette_drain.exceptions import TooLateToCancel
from starlette_drain.telemetry.base import Observers

__all__ = ["Shedding"]

SLICE = 100
"""Sessions asked to leave in one pass of the event loop, so that a burst does not hold up everybody else."""

logger = logging.getLogger("starlette_drain")


class Shedding:
    """
    Knows the sessions of one process, and asks the sessions to leave when told to.

    Args:
        settings: The checked options.
        observers: Who is told; may be filled in later.
        rng: The source of luck for the jitter.
    """

    def __init__(self, settings: Settings, observers: Observers | None, rng: Random) -> None:
        self.settings = settings
        self.close_policy = ClosePolicy(
            settings.close_code, settings.close_reason, settings.close_timeout, settings.grace
        )
        self.own_pacing: Pacing = GuardedPacing(settings.pacing)
        """The pace of the options."""
        self.pacing: Pacing = self.own_pacing
        """The one in force."""
        self.notes_activity = settings.shed_first == "idle"
        """Whether sessions keep account of when their last message passed."""
        self._observers = observers
        self.rng = rng
        """The source of luck."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.advised_window: float | None = None
        """How many seconds a drain may take here, as far as somebody has found out."""
        self._share = 1
        self._timer = Timer(self._tick)
        self._reset()

    def _reset(self) -> None:
        self._state = DrainState.SERVING
        self._registry = SessionRegistry(find_precedence(self.settings.shed_first), _tell_of_precedence)
        self._episode: Episode | None = None
        self._report: DrainReport | None = None
        self._timer.stop()
        self._over = asyncio.Event()

    # What anybody may ask

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
        """Return how far the drain is, under way or over; ``None`` while serving."""
        return self._episode.progress(self.time()) if self._episode and self._loop else None

    async def wait_drained(self) -> bool:
        """
        Wait until the drain is over: every session gone, or the time of those who would not go has run out.

        Returns:
            True; False if the drain was cancelled instead.
        """
        await self._over.wait()
        return self._state is DrainState.DRAINED

    # What triggers and the application call

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it belongs to, or would belong to here."""
        return self._loop or asyncio.get_running_loop()

    def running_task(self) -> asyncio.Task[object] | None:
        """Return the task that runs now, if that is on the drain's own event loop."""
        loop = self._loop
        return asyncio.current_task(loop) if loop is not None and loop is asyncio._get_running_loop() else None

    def time(self) -> float:
        """Return the event loop's monotonic clock, in seconds."""
        return (self._loop or asyncio.get_running_loop()).time()

    def request(self, cause: DrainCause) -> None:
        """Begin to drain, or let *cause* join the drain under way."""
        now = self.time()
        deadline = cause.deadline
        if deadline is None:
            deadline = now + self.settings.usual_window(self.advised_window)
        if self._episode is None:
            self._begin_episode(cause, now, max(now, deadline))
        else:
            self._join_episode(self._episode, cause, now, max(now, deadline))
        self._recount()

    def advise(self, window: float) -> None:
        """Take note how many seconds a drain may take here."""
        self.advised_window = window

    def divide(self, share: int) -> None:
        """Take note that *share* processes shed at once; what the pacing promises holds for their sum."""
        if share != self._share:
            self._share = share
            if self._episode:
                self._episode.plan.divide(self.time(), share)
                self._schedule(self._episode)

    def emit(self, event: events.Event) -> None:
        """Tell the observers."""
        if self._observers:
            self._observers.notify(event)

    def withdraw(self) -> None:
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
        self._timer.stop()
        self._report = episode.report(self.time())
        self.emit(events.DrainCancelled(self.time(), episode.drain_id, self._report))
        self._over.set()
        self._over.clear()

    def stop(self) -> None:
        """End a drain under way as it stands: the process is about to go."""
        if self._episode and self._state is DrainState.DRAINING:
            self._finish(self._episode)

    # What connections call

    def admits(self) -> bool:
        """Return whether a new session may open now."""
        if self._episode is None:
            return True
        return self.settings.late_arrivals == "accept" and self.time() < self._episode.deadline

    def enter(self, session: Session) -> None:
        """Track a session that begins its handshake."""
        self._registry.add(session)
        if self._episode:
            self._state = advance(self._state, DrainEvent.ARRIVE)
            self._episode.tally.arrived += 1
            self._over.clear()
            self._recount()

    def opened(self, session: Session) -> None:
        """Take note that a session has completed its handshake."""
        session.is_open = True
        self.emit(events.SessionOpened(self.time(), session))

    def refused(self, kind: str, path: str) -> None:
        """Take note that a late arrival was turned away."""
        if self._episode:
            self._episode.tally.refused += 1
        self.emit(events.SessionRefused(self.time(), kind, path))

    def closed(self, session: Session, *, forced: bool) -> None:
        """Forget a session that is over. One that was never tracked does no harm."""
        if not self._registry.discard(session):
            return
        was_shed = session.shed_at is not None
        if session.is_open:
            outcome = Outcome.FORCED if forced else Outcome.SHED if was_shed else Outcome.LEFT
            self.emit(events.SessionClosed(self.time(), session, outcome))
        if self._episode:
            self._episode.tally.forced += forced and self._episode.has_shed(session)
            self._episode.tally.left += not was_shed
            if not was_shed:
                self._recount()
            elif self._registry.remaining == 0:
                self._schedule(self._episode)

    def hold(self, session: Session) -> None:
        """Do not ask *session* to leave for now."""
        self._registry.hold(session)
        self._recount()

    def release(self, session: Session) -> None:
        """End one hold of *session*."""
        self._registry.release(session)
        self._recount()

    def shed(self, session: Session) -> None:
        """Ask one session to leave although there is no drain."""
        self._registry.take(session)
        self._shed(session, self.time(), 0.0)

    # The works

    def _begin_episode(self, cause: DrainCause, now: float, deadline: float) -> None:
        episode = Episode(cause, self._registry, self.pacing, self.rng, now=now, deadline=deadline)
        episode.plan.divide(now, self._share)
        self._state, self._episode = advance(self._state, DrainEvent.START), episode
        self._over.clear()
        sessions = episode.tally.sessions_at_start
        self.emit(events.DrainStarted(now, episode.drain_id, cause, deadline, sessions, episode.plan.describe(now)))

    def _join_episode(self, episode: Episode, cause: DrainCause, now: float, deadline: float) -> None:
        known = episode.causes
        shortened = episode.join(cause, now=now, deadline=deadline)
        if episode.causes is not known:
            plan, remaining = episode.plan, self._registry.remaining
            self.emit(
                events.DrainReplanned(
                    now, episode.drain_id, cause, episode.deadline, shortened, remaining, plan.describe(now)
                )
            )

    def _recount(self) -> None:
        if self._episode:
            self._episode.plan.recount(self.time())
            self._schedule(self._episode)

    def _schedule(self, episode: Episode) -> None:
        """Set the timer for the plan's next moment, or finish when there is nothing left to wait for."""
        if self._state is not DrainState.DRAINING:
            return
        moment = episode.next_moment(self.time(), self.settings.tail)
        if moment is None:
            self._finish(episode)
        elif self._loop:
            self._timer.set(self._loop, moment)  # one that rings too early does no harm: it asks again

    def _tick(self) -> None:
        if (episode := self._episode) is None:
            return
        now = self.time()
        due = episode.plan.due(now, SLICE)
        for place, session in enumerate(due, 1):
            episode.tally.count_shed(now)
            self._shed(session, now, episode.reconnect_delay(now, self.settings.reconnect_window, len(due) - place))
        if self._state is DrainState.DRAINING and (percent := episode.milestone()):
            self.emit(
                events.DrainProgressed(now, episode.drain_id, percent, episode.tally.shed, self._registry.remaining)
            )
        self._schedule(episode)

    def _shed(self, session: Session, now: float, reconnect_delay: float) -> None:
        session.shed_at = now
        session.reconnect_after = self.settings.retry_after + reconnect_delay
        self.emit(events.SessionShed(now, session))
        try:
            session.leave(self.close_policy)
        except Exception:
            logger.exception("A session on %s could not be asked to leave; the drain goes on", session.path)

    def _finish(self, episode: Episode) -> None:
        # Not in the context of whoever left last, which is over in a moment: a log would give the end its name.
        Context().run(self._close_episode, episode)

    def _close_episode(self, episode: Episode) -> None:
        self._state = advance(self._state, DrainEvent.FINISH)
        self._timer.stop()
        self._report = episode.report(self.time())
        self.emit(events.DrainFinished(self.time(), episode.drain_id, self._report))
        self._over.set()


def _tell_of_precedence(error: Exception) -> None:
    logger.error("shed_first failed; the drain goes on, and picks at random from here on", exc_info=error)
