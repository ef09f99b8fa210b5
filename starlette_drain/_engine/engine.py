# The engine of one event loop.
#
# Triggers hold claims; the drain follows from those that stand (_core/claims.py). While one runs there is one
# `DrainRun` and one future for its outcome. Three rules keep it simple to reason about:
#
#   - Feed, then collect. Claims, sessions and holds are fed in; when the timer rings, what closes sessions collects
#     those that are due, and reports back.
#   - A change of state is complete before its event goes out. Events are queued and delivered at the end of the call
#     that caused them, so an observer or a trigger may call back at will.
#   - The outcome is resolved before the events go out: what waits for it never depends on an observer.
"""The sessions of one event loop, and the present run of a drain: its plan, its timer, its outcome."""

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
"""Sessions closed in one pass of the event loop, so that a burst does not hold up everything else."""

WAITING = ("waiting", "paused")
"""The stances of a pacing that asks no session to leave for now."""

MOST_BEGUN = 100
"""Claims that are remembered for having begun a drain, so that another one they begin has another name."""

logger = logging.getLogger("starlette_drain")


class Engine:
    """
    Tracks the sessions of one event loop and drains them while a claim stands.

    Args:
        settings: The checked options.
        observers: What gets the events.
        close_hooks: What the application says to a session before it is closed.
        rng: The source of randomness for the jitter.
        loop: The event loop.
        close_due: What closes the sessions that `collect` returns, when the timer says so.
        outcome: What waits already for the outcome of the first drain.
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
        """What the application has declared of its responses, by path."""
        self.working: set[Session] = set()
        """Whose connection has ended, and whose application is still at work."""
        self.close_policy = ClosePolicy(settings.close_code, settings.grace)
        self.notes_activity = settings.shed_first == "idle"
        """Whether sessions keep account of when their last message passed."""
        self.observes_only = settings.mode == "observe"
        self.returns = ReturnPlan(rng)
        """When those come back that are sent away."""
        self.advised_window: float | None = None
        """Seconds that a drain may take here, as far as a trigger has found out."""
        self.open_elsewhere = 0
        """How many sessions are open in the other workers of the task."""
        self.group: str | None = None
        """What names the workers of the task, the same in all of them."""
        self._registry = SessionRegistry()
        self._open: dict[str, int] = {}
        """How many sessions are open, by kind."""
        observers.open_sessions.by_kind = self._open
        self._events = EventQueue(observers)
        self._timer = Timer(partial(close_due, self))
        self._share = 1
        self._has_warned = False
        self.admission: Admission | None = None
        """What limits the handshakes in progress, if anything does."""
        if (policy := settings.admission) is not None:
            policy = replace(policy, observes=policy.observes or self.observes_only)
            self.admission = Admission(policy, loop, self.admits, self.emit)
        self._begun: deque[tuple[str, float]] = deque(maxlen=MOST_BEGUN)
        self._begin_anew(outcome)

    def _begin_anew(self, outcome: asyncio.Future[bool] | None = None) -> None:
        self._claims = Claims()
        self._state = DrainState.SERVING
        self._run: DrainRun | None = None
        self.sends_away = False
        """Whether clients are to be sent elsewhere: it drains or has drained, and does not only watch."""
        self._report: DrainReport | None = None
        self._pace = Pace(self.settings)
        self._stance: str | None = None
        self.turnover = Turnover(self.settings, self._registry, self._events, self.rng)
        """Who leaves although there is no drain."""
        self._outcome = outcome or self.loop.create_future()
        self._has_ended = False
        self._drained_at = 0.0

    # What anyone may ask

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
        """Whether the process has not been told to stop."""
        return self._claims.is_revocable

    @property
    def workers(self) -> int:
        """How many worker processes of this task drain as one."""
        return self._share

    @property
    def fleet_seen(self) -> FleetView | None:
        """How many targets drain and how many are healthy, as far as a trigger has noted."""
        return self._pace.seen

    def time(self) -> float:
        """Return the event loop's monotonic clock, in seconds."""
        return self.loop.time()

    def retry_after(self, rate: float | None = None) -> float:
        """Return how many seconds a client that is turned away should stay away: each has its place in one plan."""
        now = self.time()
        delay = self.returns.place(now, self.settings.retry_after, rate)
        self._count_returns()
        return delay

    def statistics(self) -> RegistryStatistics:
        """Return the number of sessions in each state."""
        return self._registry.statistics(len(self.working))

    def open_sessions(self) -> int:
        """Return how many sessions are open in the whole task, as far as its workers have published."""
        return len(self._registry) + self.open_elsewhere

    def progress(self) -> DrainProgress | None:
        """Return the progress of the drain, running or over; ``None`` while serving."""
        return self._run.progress(self.time(), self._claims.standing) if self._run else None

    def time_to_close(self) -> float:
        """Return the seconds in which the last session must be asked to leave; infinity where no drain runs."""
        return max(0.0, self._run.plan.deadline - self.time()) if self._run else math.inf

    def drained_for(self) -> float:
        """Return the seconds since the end of the drain that is over."""
        return self.time() - self._drained_at

    async def wait_drained(self) -> bool:
        """Wait until the drain that runs, or the next one, is over; return False if it was cancelled, or never came."""
        return await asyncio.shield(self._outcome)

    # Claims

    def claim_of(self, trigger: str) -> DrainCause | None:
        """Return the claim that *trigger* holds, also one that was cancelled."""
        return self._claims.of(trigger)

    def is_muted(self, trigger: str) -> bool:
        """Return whether *trigger* holds a claim that was cancelled."""
        return self._claims.of(trigger) in self._claims.muted

    def mute(self, claim: DrainCause) -> None:
        """Hold *claim* as one that was cancelled before this process came."""
        self._claims.mute(claim)

    def claim(self, cause: DrainCause) -> bool:
        """Let *cause* be the claim of its trigger; return whether that changed anything."""
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
        Serve again: withdraw what was asked for by hand, and mute the other claims. What was closed stays closed.

        Raises:
            IllegalTransition: If there is no drain, or the application has ended.
            TooLateToCancel: If the process has been told to stop.
        """
        if self._has_ended:
            msg = "the application has ended or is about to: there is nothing to cancel"
            raise IllegalTransition(msg)
        advance(self._state, DrainEvent.CANCEL)
        if self._run and not self._claims.is_revocable:
            msg = f"drain {self._run.drain_id} cannot be cancelled: the process has been told to stop; let it end"
            raise TooLateToCancel(msg)
        self._claims.cancel()
        self._follow(None, self.time())

    def rename(self, cause: DrainCause) -> None:
        """Give the drain that runs the name that it has in the worker in which *cause* began it a moment before."""
        if self._run is not None and self._claims.is_revocable:
            self._run.tally.drain_id = name_drain(cause, 0)

    def note_window(self, window: float) -> None:
        """Take note how many seconds a drain may take here."""
        if not (is_number(window) and window >= 0):
            logger.error("A trigger gave a window of %r, which is not a time in seconds; it is ignored", window)
            return
        self.advised_window = window
        holds = self.settings.window is None or window < self.settings.window
        if holds and not self._has_warned and (warning := burst_warning(self.settings.pacing, window)):
            self._has_warned = True
            logger.warning("A drain has only %g s here: %s", window, warning)

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """Take note how many targets drain and are healthy, and whether this task is *counted* among the former."""
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
        """Whether a claim that stands shows that the balancer sends nothing new, or that the process ends."""
        return self._has_ended or any(each.taken_out or not each.revocable for each in self._claims.standing)

    @property
    def _welcomes_late(self) -> bool:
        choice = self.settings.late_arrivals
        return choice == "accept" or (choice == "auto" and not self.is_taken_out)

    def divide(self, share: int) -> None:
        """Take note that *share* processes drain at once; what the pacing promises holds for their sum."""
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
        return self._welcomes_late and self.time() < run.deadline

    def track(self, session: Session) -> None:
        """Track a session that begins its handshake."""
        self._registry.add(session)
        if (run := self._run) and not self._has_ended:
            now = self.time()
            if self._state is DrainState.DRAINED:  # one drain is over, and its claims still stand: here is the next
                self._state = advance(self._state, DrainEvent.ARRIVE)
                self._begin_run(self._claims.standing[0], now, max(now, run.deadline))
            else:
                run.tally.arrived += 1
                self._recount(run, now)
            self._events.deliver()

    def opened(self, session: Session) -> None:
        """Take note that a session has completed its handshake."""
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
        """Take note that a late arrival was turned away."""
        if self._run:
            self._run.tally.refused += 1
        self.emit(events.SessionRefused(self.time(), kind, path))

    def turned_away(self, kind: str, path: str) -> float:
        """Take note that one found no place in a storm; return how many seconds it should stay away."""
        rate = None
        if self.admission is not None:
            self.admission.refused()
            rate = self.admission.rate()
        self.emit(events.SessionRefused(self.time(), kind, path, "storm"))
        return self.retry_after(rate)

    def closed(self, session: Session, *, forced: bool, code: int | None = None) -> bool:
        """Forget a session that is over, with its close *code* if it has one; return whether it was tracked."""
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
        """Take note that the application of *session* was cancelled."""
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
        """Have what is due closed by *close_due* from now on."""
        self._timer.ring = partial(close_due, self)

    def collect(self) -> list[Session]:
        """Return the sessions to close now, marked as leaving. Call it when the timer is due."""
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

    # Sessions that leave although there is no drain

    def rotation(self) -> RotationProgress | None:
        """Return how far the rotation is that runs; ``None`` where none does."""
        return self.turnover.progress(self.time(), is_paused=self._run is not None)

    def rotate(self, rotation: Rotation) -> None:
        """
        Ask sessions that are open now to leave once, while the process goes on serving.

        Raises:
            IllegalTransition: If the process drains, only observes or ends, or a rotation by hand runs.
        """
        if problem := self._why_not_rotate():
            msg = f"the process cannot rotate its sessions: {problem}"
            raise IllegalTransition(msg)
        self.turnover.rotate(rotation, self.time())
        self._await_turnover()
        self._events.deliver()

    def follow_rotation(self, order: Mapping[str, Any] | None) -> None:
        """Rotate as *order* says, which was given to another worker; ``None`` stops."""
        if order is None or not (self.observes_only or self._has_ended):
            self.turnover.follow(order, self.time())
            self._await_turnover()
            self._events.deliver()

    def stop_rotating(self) -> None:
        """
        End the rotation. Sessions that it has not asked to leave stay.

        Raises:
            IllegalTransition: If none runs, here or in another worker.
        """
        self.turnover.stop(self.time())
        self._events.deliver()

    def _why_not_rotate(self) -> str | None:
        if self._has_ended:
            return "the application ends"
        if self.observes_only:
            return "it only observes"
        return "it drains, and all leave" if self._run else None

    def _collect_turnover(self, now: float) -> list[Session]:
        due = [] if self._has_ended else self.turnover.collect(now, SLICE, self._limit())
        for session, trigger in due:
            self._mark(session, now, 0.0, trigger)
        self._await_turnover()
        self._events.deliver()
        return [session for session, _ in due]

    def _limit(self) -> float:
        """Return the sessions per second that the options allow in this process."""
        pacing, fleet_rate = self.settings.pacing, self.settings.fleet_rate
        limit = pacing.limit if isinstance(pacing, RateCapPacing) else fleet_rate
        return math.inf if limit is None else limit / self._share

    def _await_turnover(self) -> None:
        """Set the timer for the next session that is to leave although there is no drain."""
        moment = self.turnover.ask_at
        if moment is not None and self._run is None and not self._has_ended:
            self._timer.set(self.loop, moment)

    # Events

    def emit(self, event: events.Event) -> None:
        """Send *event* to the observers, after those that are on their way already."""
        self._events.put(event)
        self._events.deliver()

    # The beginning and the end of its life

    def renew(self, outcome: asyncio.Future[bool] | None = None) -> None:
        """Begin again on the same event loop, with the sessions that are still there."""
        self._begin_anew(outcome)

    def end(self) -> None:
        """End a drain that runs as it stands, and resolve all that wait: the application is about to end."""
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

    # The works

    def _checked(self, cause: DrainCause, now: float) -> DrainCause:
        """Return *cause* with a deadline, whatever a trigger of the application has made of it."""
        deadline, held = cause.deadline, self._claims.of(cause.trigger)
        if deadline is None or not is_number(deadline):
            if deadline is not None and held is None:
                logger.error(
                    "Trigger %r gave %r as a deadline; the default window is used instead",
                    cause.trigger,
                    deadline,
                )
            # A claim that is repeated moves nothing.
            usual = now + self.settings.usual_window(self.advised_window)
            deadline = usual if held is None or held.deadline is None else held.deadline
        at = cause.at if is_number(cause.at) else now
        lag = cause.lag if is_number(cause.lag) and cause.lag >= 0 else 0.0
        return replace(cause, at=at, deadline=float(deadline), lag=lag)

    def _follow(self, news: DrainCause | None, now: float) -> None:
        """Do what follows from the claims that stand now."""
        run, deadline = self._run, self._claims.deadline
        if deadline == math.inf:  # none stands, or only those that follow others
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
        former = self._begun.count(begun_by)
        drain_id = name_drain(cause, former, self.group)
        self._begun.append(begun_by)
        self.sends_away = not self.observes_only
        self.returns.busiest = 0
        self._run = run = DrainRun(drain_id, cause, sessions, pacing, self.rng, now=now, deadline=deadline)
        for each in self._claims.standing:
            run.join(each, shortened=False)
        run.plan.divide(now, self._share)
        self._stance = run.plan.stance(now)
        window = deadline - now
        # Not of a window under a second: that was asked for by hand, or the deadline has passed.
        if window >= SHORTEST_WINDOW and not former and (warning := burst_warning(self.settings.pacing, window)):
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
            deadline = min(run.deadline, max(now, deadline))  # one that has passed means now, once
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
        self._leave(run)
        if not is_over or self._report is None:
            self._report = run.report(now, len(self._registry), is_cancelled=True)
        if not self._outcome.done():
            self._outcome.set_result(False)
        self._outcome = self.loop.create_future()
        self._events.put(events.DrainCancelled(now, run.drain_id, self._report))
        self._await_turnover()

    def _finish(self, run: DrainRun) -> None:
        self._state = advance(self._state, DrainEvent.FINISH)
        self._leave(run)
        self._drained_at = now = self.time()
        self._report = run.report(now, self._still_open(run))
        self._outcome.set_result(True)
        # Not in the context of the session that left last: a log would give the end its name.
        self._events.put(events.DrainFinished(now, run.drain_id, self._report), Context())

    def _leave(self, run: DrainRun) -> None:
        """Tidy up after a run."""
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
        """Set the timer for the plan's next moment, or finish when there is nothing left to wait for."""
        if self._state is not DrainState.DRAINING or run is not self._run:
            return
        now = self.time()
        self._log_failure(run)
        moment = run.next_moment(now, self.settings.tail, self._still_open(run))
        if moment is None:
            self._finish(run)
            return
        self._timer.set(self.loop, moment)  # one that is too early does no harm: it asks again
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
