# The engine of one event loop.
#
# Triggers hold claims; the drain follows from those that stand (_core/claims.py). While a drain runs there is one
# `DrainRun` and one future for its outcome. Three rules keep it simple:
#
#   - Feed, then collect. Claims, sessions and holds are fed in. When the timer fires, the closer collects the sessions
#     that are due and reports back.
#   - A change of state is complete before its event is delivered. Events are queued and delivered at the end of the
#     call that caused them, so observers and triggers may call back at any time.
#   - The outcome is resolved before the events are delivered, so waiters never depend on an observer.
"""The sessions of one event loop, and the current run of a drain: its plan, its timer, its outcome."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from starlette_drain._core import events
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.claims import Claims
from starlette_drain._core.declared import is_number, is_whole
from starlette_drain._core.fleet_pacing import FleetView
from starlette_drain._core.observed import ObservedSessions
from starlette_drain._core.pacing import SHORTEST_WINDOW, RateCapPacing, burst_warning
from starlette_drain._core.precedence import find_precedence
from starlette_drain._core.report import DrainReport
from starlette_drain._core.return_plan import ReturnPlan
from starlette_drain._core.run import DrainProgress, DrainRun, name_drain
from starlette_drain._core.session import ClosePolicy, Outcome, RegistryStatistics, Session, SessionRegistry
from starlette_drain._core.settings import Settings
from starlette_drain._core.state import DrainEvent, DrainState, advance
from starlette_drain._core.streams import Streams
from starlette_drain._core.turnover import Rotation, RotationProgress
from starlette_drain._engine.admission import Admission
from starlette_drain._engine.answers import Answers
from starlette_drain._engine.close_hooks import CloseHooks
from starlette_drain._engine.event_queue import EventQueue
from starlette_drain._engine.pace import Pace
from starlette_drain._engine.timer import Timer
from starlette_drain._engine.turnover import Turnover
from starlette_drain.exceptions import IllegalTransition, TooLateToCancel
from starlette_drain.telemetry.base import Observers

__all__ = ["Engine"]

SLICE = 100
"""The most sessions closed in one pass of the event loop, so that a burst does not block everything else."""

WAITING = ("waiting", "paused")
"""The stances in which a pacing asks no session to leave for now."""

MOST_BEGUN = 100
"""The most claims remembered for having begun a drain, so that the next drain they begin has another id."""

logger = logging.getLogger("starlette_drain")


class Engine:
    """
    Tracks the sessions of one event loop and drains them while a claim stands.

    Args:
        settings: The validated options.
        observers: What receives the events.
        close_hooks: The application's hooks before a session is closed.
        rng: The source of randomness for the jitter.
        loop: The event loop.
        close_due: Called when sessions are due; it closes those that `collect` returns.
        outcome: A future that already waits for the outcome of the first drain.
    """

    def __init__(
        self,
        settings: Settings,
        observers: Observers,
        close_hooks: CloseHooks,
        rng: Random,
        loop: asyncio.AbstractEventLoop,
        *,
        close_due: Callable[["Engine"], object],
        outcome: asyncio.Future[bool] | None = None,
    ) -> None:
        self.settings = settings
        self.observers = observers
        self.close_hooks = close_hooks
        self.rng = rng
        self.loop = loop
        self.answers = Answers()
        self.streams = Streams(settings.streams) if settings.streams else None
        """What the application has declared about its responses, by path."""
        self.working: set[Session] = set()
        """The sessions whose connection has ended while the application is still running."""
        self.close_policy = ClosePolicy(settings.close_code, settings.grace)
        self.notes_activity = settings.shed_first == "idle"
        """Whether sessions record the time of their last message."""
        self.observes_only = settings.mode == "observe"
        self.returns = ReturnPlan(rng)
        """When the clients that are sent away come back."""
        self.advised_window: float | None = None
        """Seconds that a drain can take here, if a trigger has found out."""
        self.open_elsewhere = 0
        """The number of open sessions in the other workers of the task."""
        self.group: str | None = None
        """Identifies the workers of the task, the same in all of them."""
        self._registry = SessionRegistry()
        self._open: dict[str, int] = {}
        """The number of open sessions, by kind."""
        observers.open_sessions.by_kind = self._open
        observers.open_sessions.observes_only = self.observes_only
        self._events = EventQueue(observers)
        self._timer = Timer(partial(close_due, self))
        self._share = 1
        self._has_warned = False
        self.admission: Admission | None = None
        """The limit on handshakes in progress, if there is one."""
        if (policy := settings.admission) is not None:
            policy = replace(policy, observes=policy.observes or self.observes_only)
            self.admission = Admission(policy, loop, self.admits, self.emit)
        self._begun: deque[tuple[str, float]] = deque(maxlen=MOST_BEGUN)
        self._reset(outcome)

    def _reset(self, outcome: asyncio.Future[bool] | None = None) -> None:
        self._claims = Claims()
        self._state = DrainState.SERVING
        self._run: DrainRun | None = None
        self.sends_away = False
        """Whether clients are sent elsewhere: the process drains or has drained, and does not only observe."""
        self._report: DrainReport | None = None
        self._pace = Pace(self.settings)
        self._stance: str | None = None
        self.turnover = Turnover(self.settings, self._registry, self._events, self.rng)
        """Which sessions leave without a drain."""
        self._outcome = outcome or self.loop.create_future()
        self._has_ended = False
        self._drained_at = 0.0

    # Queries

    @property
    def state(self) -> DrainState:
        """Whether the process is serving, draining or drained."""
        return self._state

    @property
    def report(self) -> DrainReport | None:
        """The report of the last drain that is over or was cancelled."""
        return self._report

    @property
    def claims(self) -> tuple[DrainCause, ...]:
        """The claims that stand."""
        return self._claims.standing

    @property
    def is_revocable(self) -> bool:
        """Whether the drain can still be cancelled: the process has not been told to stop."""
        return self._claims.is_revocable

    @property
    def workers(self) -> int:
        """The number of worker processes of this task that drain as one."""
        return self._share

    @property
    def fleet_seen(self) -> FleetView | None:
        """How many targets drain and how many are healthy, if a trigger has found out."""
        return self._pace.seen

    def time(self) -> float:
        """Return the time of the event loop's monotonic clock, in seconds."""
        return self.loop.time()

    def retry_after(self, rate: float | None = None) -> float:
        """
        Return the seconds after which a refused client should retry, so that the retries are spread.

        Args:
            rate: The set-ups per second in a storm, if known.
        """
        now = self.time()
        delay = self.returns.place(now, self.settings.retry_after, rate)
        self._count_returns()
        return delay

    def statistics(self) -> RegistryStatistics:
        """Return the number of sessions in each state."""
        return self._registry.statistics(len(self.working))

    def open_sessions(self) -> int:
        """Return the number of open sessions in the whole task, as last published by its workers."""
        return len(self._registry) + self.open_elsewhere

    def progress(self) -> DrainProgress | None:
        """Return the progress of the drain, running or over; ``None`` while serving."""
        return self._run.progress(self.time(), self._claims.standing) if self._run else None

    def time_to_close(self) -> float:
        """Return the seconds until the last session must be asked to leave; infinity if no drain runs."""
        return max(0.0, self._run.plan.deadline - self.time()) if self._run else math.inf

    def drained_for(self) -> float:
        """Return the seconds since the last drain was over."""
        return self.time() - self._drained_at

    async def wait_drained(self) -> bool:
        """Wait until the running or the next drain is over; return False if it was cancelled or never began."""
        return await asyncio.shield(self._outcome)

    # Claims

    def claim_of(self, trigger: str) -> DrainCause | None:
        """Return the claim that *trigger* holds, muted or not, or ``None``."""
        return self._claims.of(trigger)

    def is_muted(self, trigger: str) -> bool:
        """Return whether *trigger* holds a muted claim."""
        return self._claims.of(trigger) in self._claims.muted

    def mute(self, claim: DrainCause) -> None:
        """Hold *claim* as muted: it was cancelled before this process started."""
        self._claims.mute(claim)

    def claim(self, cause: DrainCause) -> bool:
        """Make *cause* the claim of its trigger; return whether that changed anything."""
        if self._has_ended:
            return False
        now = self.time()
        claim = self._checked(cause, now)
        changed = self._claims.hold(claim)
        if changed:
            self._follow(claim, now)
        return changed

    def withdraw(self, trigger: str) -> bool:
        """Drop the claim of *trigger*; return whether that changed anything."""
        changed = not self._has_ended and self._claims.withdraw(trigger)
        if changed:
            self._follow(None, self.time())
        return changed

    def cancel(self) -> None:
        """
        Serve again: withdraw manual commands and mute the other claims. Sessions already asked to leave still leave.

        Raises:
            IllegalTransition: If there is no drain, or the application has ended.
            TooLateToCancel: If the process has been told to stop.
        """
        if self._has_ended:
            msg = "the application has ended or is about to: there is nothing to cancel"
            raise IllegalTransition(msg)
        if self._run is None:
            msg = "no drain is running; there is nothing to cancel"
            raise IllegalTransition(msg)
        if not self._claims.is_revocable:
            msg = f"drain {self._run.drain_id} cannot be cancelled: the process has been told to stop; let it end"
            raise TooLateToCancel(msg)
        self._claims.cancel()
        self._follow(None, self.time())

    def rename(self, cause: DrainCause) -> None:
        """Give the running drain the id that it has in the worker where *cause* began it a moment before."""
        if self._run is not None and self._claims.is_revocable:
            self._run.tally.drain_id = name_drain(cause, 0)

    def note_window(self, window: float) -> None:
        """Set the longest window, in seconds, that a drain can have here. An invalid value is logged and ignored."""
        if not (is_number(window) and window >= 0):
            logger.error("A trigger gave a window of %r, which is not a time in seconds; it is ignored", window)
            return
        self.advised_window = window
        holds = self.settings.window is None or window < self.settings.window
        if holds and not self._has_warned and (warning := burst_warning(self.settings.pacing, window)):
            self._has_warned = True
            logger.warning("A drain has only %g s here: %s", window, warning)

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """
        Set how many targets are draining and healthy, and whether this task is *counted* among the draining.

        Invalid numbers are logged and ignored.
        """
        if not (all(is_whole(each) and each >= 0 for each in (draining, healthy)) and is_number(draining + healthy)):
            logger.error("A trigger reported %r draining and %r healthy targets; this is ignored", draining, healthy)
            return
        seen = FleetView(draining, healthy, counted)
        if seen == self._pace.seen:
            return
        self._pace.seen = seen
        if run := self._run:
            run.plan.repace(self.time(), self._pace.choose())
            self._schedule(run)
            self._events.deliver()

    @property
    def is_taken_out(self) -> bool:
        """Whether, by the claims that stand, the balancer sends nothing new here or the process is ending."""
        return self._has_ended or any(each.taken_out or not each.revocable for each in self._claims.standing)

    @property
    def _accepts_late(self) -> bool:
        choice = self.settings.late_arrivals
        return choice == "accept" or (choice == "auto" and not self.is_taken_out)

    def divide(self, share: int) -> None:
        """Divide rates and limits among *share* processes that drain at once."""
        if share == self._share:
            return
        self._share = share
        if self.admission is not None:
            self.admission.divide(share)
        if run := self._run:
            run.plan.divide(self.time(), share)
            self._schedule(run)
            self._events.deliver()

    # Sessions

    def admits(self) -> bool:
        """Return whether a new session may open now."""
        run = self._run
        if run is None or self.observes_only:
            return True
        return self._accepts_late and self.time() < run.deadline

    def track(self, session: Session) -> None:
        """Track a session that begins its handshake."""
        self._registry.add(session)
        if (run := self._run) and not self._has_ended:
            now = self.time()
            if self._state is DrainState.DRAINED:  # a drain is over, and its claims still stand: begin another run
                self._state = advance(self._state, DrainEvent.ARRIVE)
                self._begin_run(self._claims.standing[0], now, max(now, run.deadline))
            else:
                run.tally.arrived += 1
                self._recount(run, now)
            self._events.deliver()

    def opened(self, session: Session) -> None:
        """Record that *session* has completed its handshake."""
        session.is_open = True
        self._open[session.kind] = self._open.get(session.kind, 0) + 1
        if self.admission is not None:
            self.admission.finish(session)
        if self.turnover.ages and session.shed_at is None:
            self.turnover.age(session, self.time())
            self._await_turnover()
        if self.observers.wants(events.SessionOpened):
            self.emit(events.SessionOpened(self.time(), session))

    def refused(self, kind: str, path: str) -> None:
        """Record that a drain refused a late arrival."""
        if self._run:
            self._run.tally.refused += 1
        self.emit(events.SessionRefused(self.time(), kind, path))

    def turned_away(self, kind: str, path: str) -> float:
        """Record that a handshake found no place in a storm; return the seconds after which its client should retry."""
        rate = self.admission.refuse() if self.admission is not None else None
        self.emit(events.SessionRefused(self.time(), kind, path, "storm"))
        return self.retry_after(rate)

    def closed(self, session: Session, *, forced: bool, code: int | None = None) -> bool:
        """
        Stop tracking a session that is over; return whether it was tracked.

        Args:
            session: The session.
            forced: Whether its application had to be cancelled.
            code: Its close code, if it has one.
        """
        if self.admission is not None:
            self.admission.finish(session)
        if not self._registry.discard(session):
            return False
        was_shed = session.shed_at is not None
        if not was_shed:
            self.turnover.discard(session, self.time())
        if session.is_open:
            self._open[session.kind] = self._open.get(session.kind, 0) - 1
            if self.observers.wants(events.SessionClosed):
                outcome = Outcome.FORCED if forced else Outcome.SHED if was_shed else Outcome.LEFT
                self._events.put(events.SessionClosed(self.time(), session, outcome, code))
        if run := self._run:
            run.tally.left += not was_shed
            if forced:
                self.forced(session)
            if not was_shed:
                self._recount(run, self.time())
            elif self._registry.remaining == 0:
                self._schedule(run)
        self._events.deliver()
        return True

    def forced(self, session: Session) -> None:
        """Record that the application of *session* was cancelled."""
        if (run := self._run) and run.has_shed(session):
            run.tally.forced += 1

    def hold(self, session: Session) -> None:
        """Do not close *session* for now."""
        self._registry.hold(session)
        self._held_or_released()

    def release(self, session: Session) -> None:
        """End one hold of *session*."""
        self._registry.release(session)
        self._held_or_released()

    def close_with(self, close_due: Callable[["Engine"], object]) -> None:
        """Replace what is called when sessions are due."""
        self._timer.callback = partial(close_due, self)

    def collect(self) -> list[Session]:
        """Return the sessions to close now, marked as leaving. Call it when the timer fires."""
        run, now = self._run, self.time()
        if run is None:
            return self._collect_turnover(now)
        due = run.plan.due(now, SLICE)
        for place, session in enumerate(due, 1):
            run.tally.count_shed(now)
            if not self.observes_only:
                self._mark(session, now, run.reconnect_delay(now, len(due) - place))
                self.turnover.discard(session, now)
        if self._state is DrainState.DRAINING and (percent := run.milestone()):
            self._events.put(events.DrainProgressed(now, run.drain_id, percent, run.tally.shed, run.remaining))
        self._schedule(run)
        self._events.deliver()
        return [] if self.observes_only else due

    # Sessions that leave without a drain

    def rotation(self) -> RotationProgress | None:
        """Return the progress of the running rotation, or ``None`` if there is none."""
        return self.turnover.progress(self.time(), is_paused=self._run is not None)

    def rotate(self, rotation: Rotation) -> None:
        """
        Ask sessions that are open now to leave once, while the process goes on serving.

        Raises:
            IllegalTransition: If the process drains, only observes or is ending, or a manual rotation runs.
        """
        if problem := self._why_not_rotate():
            msg = f"the process cannot rotate its sessions: {problem}"
            raise IllegalTransition(msg)
        self.turnover.rotate(rotation, self.time())
        self._await_turnover()
        self._events.deliver()

    def follow_rotation(self, order: Mapping[str, Any] | None) -> None:
        """Follow a rotation *order* that was given to another worker; ``None`` stops the rotation."""
        if order is None or not (self.observes_only or self._has_ended):
            self.turnover.follow(order, self.time())
            self._await_turnover()
            self._events.deliver()

    def stop_rotating(self) -> None:
        """
        End the rotation. Sessions that it has not asked to leave stay.

        Raises:
            IllegalTransition: If no rotation runs, here or in another worker.
        """
        self.turnover.stop(self.time())
        self._events.deliver()

    def _why_not_rotate(self) -> str | None:
        if self._has_ended:
            return "the application is ending"
        if self.observes_only:
            return "it only observes"
        return "it is draining, so all of them leave" if self._run else None

    def _collect_turnover(self, now: float) -> list[Session]:
        due = [] if self._has_ended else self.turnover.collect(now, SLICE, self._limit())
        for session, trigger in due:
            self._mark(session, now, 0.0, trigger)
        self._await_turnover()
        self._events.deliver()
        return [session for session, _ in due]

    def _limit(self) -> float:
        """Return the most sessions per second that the options allow in this process."""
        pacing, fleet_rate = self.settings.pacing, self.settings.fleet_rate
        limit = pacing.limit if isinstance(pacing, RateCapPacing) else fleet_rate
        return math.inf if limit is None else limit / self._share

    def _await_turnover(self) -> None:
        """Set the timer for the next session that leaves without a drain."""
        moment = self.turnover.ask_at
        if moment is not None and self._run is None and not self._has_ended:
            self._timer.set(self.loop, moment)

    # Events

    def emit(self, event: events.Event) -> None:
        """Send *event* to the observers, after those that are queued already."""
        self._events.put(event)
        self._events.deliver()

    # Lifetime

    def renew(self, outcome: asyncio.Future[bool] | None = None) -> None:
        """Begin again on the same event loop, with the sessions that are still open."""
        self._reset(outcome)

    def end(self) -> None:
        """Finish a running drain as it stands, and resolve all waiters: the application is about to end."""
        self._has_ended = True
        if self._run and self._state is DrainState.DRAINING:
            self._finish(self._run)
        self.turnover.interrupt(self.time())
        if self.admission is not None:
            self.admission.end()
        if not self._outcome.done():
            self._outcome.set_result(False)
        self._timer.stop()
        self._events.deliver()

    # Internals

    def _checked(self, cause: DrainCause, now: float) -> DrainCause:
        """Return *cause* with a deadline and valid times: the application's own triggers may pass anything."""
        deadline, held = cause.deadline, self._claims.of(cause.trigger)
        if deadline is None or not is_number(deadline):
            if deadline is not None and held is None:
                logger.error(
                    "Trigger %r gave %r as a deadline; the default window is used instead",
                    cause.trigger,
                    deadline,
                )
            # A repeated claim must not move the deadline.
            usual = now + self.settings.usual_window(self.advised_window)
            deadline = usual if held is None or held.deadline is None else held.deadline
        at = cause.at if is_number(cause.at) else now
        lag = cause.lag if is_number(cause.lag) and cause.lag >= 0 else 0.0
        return replace(cause, at=at, deadline=float(deadline), lag=lag)

    def _follow(self, news: DrainCause | None, now: float) -> None:
        """Begin, replan or cancel the drain, as the claims that stand now require."""
        run, deadline = self._run, self._claims.deadline
        if deadline == math.inf:  # no claim stands, or only ones that follow others
            if run is not None:
                self._cancel(run, now)
        elif run is None:
            cause = news or self._claims.standing[0]
            self._state = advance(self._state, DrainEvent.START)
            self._begin_run(cause, now, max(now, deadline))
        else:
            self._replan(run, news, now, deadline)
        self._events.deliver()

    def _begin_run(self, cause: DrainCause, now: float, deadline: float) -> None:
        if (precedence := find_precedence(self.settings.shed_first)) is not None:
            try:
                self._registry.rank(precedence)
            except Exception:
                logger.exception("shed_first failed; the drain continues in random order")
        pacing = self._pace.begin(cause, deadline - now, self._registry.remaining * self._share)
        sessions = ObservedSessions(self._registry) if self.observes_only else self._registry
        begun_by = cause.trigger, cause.at
        earlier = self._begun.count(begun_by)
        drain_id = name_drain(cause, earlier, self.group)
        self._begun.append(begun_by)
        self.sends_away = not self.observes_only
        self.returns.busiest = 0
        self._run = run = DrainRun(drain_id, cause, sessions, pacing, self.rng, now=now, deadline=deadline)
        for each in self._claims.standing:
            run.join(each, shortened=False)
        run.plan.divide(now, self._share)
        self._stance = run.plan.stance(now)
        window = deadline - now
        # A window under a second was asked for explicitly, or the deadline has passed: no warning.
        if window >= SHORTEST_WINDOW and not earlier and (warning := burst_warning(self.settings.pacing, window)):
            logger.warning("Drain %s has only %g s: %s", drain_id, window, warning)
        if self._outcome.done():
            self._outcome = self.loop.create_future()
        plan, waits = run.plan.describe(now), self._stance in WAITING
        sessions_now = run.tally.sessions_at_start
        self._events.put(events.DrainStarted(now, run.drain_id, cause, deadline, sessions_now, plan, waits))
        self._recount(run, now)
        self.answers.warn_of_streams()

    def _replan(self, run: DrainRun, news: DrainCause | None, now: float, deadline: float) -> None:
        if deadline < run.deadline:
            deadline = min(run.deadline, max(now, deadline))  # a deadline in the past means now, once
        shortened = deadline < run.deadline
        moved = run.move(now, deadline)
        joined = news is not None and run.join(news, shortened=shortened)
        if moved or joined:
            cause = news or self._claims.standing[0]
            plan, waits = run.plan.describe(now), run.plan.stance(now) in WAITING
            self._events.put(
                events.DrainReplanned(now, run.drain_id, cause, run.deadline, shortened, run.remaining, plan, waits)
            )
            self._recount(run, now)

    def _cancel(self, run: DrainRun, now: float) -> None:
        is_over = self._state is DrainState.DRAINED
        self._state, self._run = advance(self._state, DrainEvent.CANCEL), None
        self.sends_away = False
        self._clean_up(run)
        if not is_over or self._report is None:
            self._report = run.report(now, len(self._registry), is_cancelled=True)
        if not self._outcome.done():
            self._outcome.set_result(False)
        self._outcome = self.loop.create_future()
        self._events.put(events.DrainCancelled(now, run.drain_id, self._report))
        self._await_turnover()

    def _finish(self, run: DrainRun) -> None:
        self._state = advance(self._state, DrainEvent.FINISH)
        self._clean_up(run)
        self._drained_at = now = self.time()
        self._report = run.report(now, self._still_open(run))
        self._outcome.set_result(True)
        # In an empty context: otherwise the log line would carry the context of the session that left last.
        self._events.put(events.DrainFinished(now, run.drain_id, self._report), Context())

    def _clean_up(self, run: DrainRun) -> None:
        self._log_failure(run)
        self._timer.stop()
        self._registry.unrank()
        self._pace.end()

    def _recount(self, run: DrainRun, now: float) -> None:
        run.plan.recount(now)
        self._schedule(run)

    def _held_or_released(self) -> None:
        if run := self._run:
            self._recount(run, self.time())
            self._events.deliver()

    def _schedule(self, run: DrainRun) -> None:
        """Set the timer for the plan's next moment, or finish if there is nothing left to wait for."""
        if self._state is not DrainState.DRAINING or run is not self._run:
            return
        now = self.time()
        self._log_failure(run)
        moment = run.next_moment(now, self.settings.tail, self._still_open(run))
        if moment is None:
            self._finish(run)
            return
        self._timer.set(self.loop, moment)  # if it fires too early, the plan is asked again
        stance = run.plan.stance(now)
        if stance not in (None, self._stance):
            self._stance = stance
            self._events.put(events.PaceChanged(now, run.drain_id, run.plan.describe(now), stance in WAITING))

    def _mark(self, session: Session, now: float, reconnect_delay: float, trigger: str | None = None) -> None:
        session.shed_at = now
        session.reconnect_after = self.settings.retry_after + reconnect_delay
        self.returns.note(now, session.reconnect_after)
        self._count_returns()
        if self.observers.wants(events.SessionShed):
            self._events.put(events.SessionShed(now, session, trigger))

    def _count_returns(self) -> None:
        if (run := self._run) is not None:
            run.tally.return_rate = self.returns.busiest

    def _still_open(self, run: DrainRun) -> int:
        return run.remaining if self.observes_only else len(self._registry)

    def _log_failure(self, run: DrainRun) -> None:
        failure, run.plan.failure = run.plan.failure, None
        if failure is not None:
            logger.error("The pacing failed; the drain continues at an even pace", exc_info=failure)
