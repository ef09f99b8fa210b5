"""Tells the story of a drain to Python's logging, in sentences. Session by session only at DEBUG."""

import logging
from dataclasses import fields

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainProgressed,
    DrainReplanned,
    DrainStarted,
    Event,
    PaceChanged,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SessionShed,
    TriggerActed,
    TriggerImpaired,
    TriggerPolled,
    TriggerRestored,
    TriggerStoodDown,
    WindowTooLong,
)
from starlette_drain._core.report import DrainReport
from starlette_drain.telemetry.outcome import outcome

__all__ = ["LogObserver"]

STARTED = (
    "Drain %(drain_id)s begins, because %(drain_causes)s. %(drain_sessions)d sessions are open and have "
    "%(drain_window).1f s to leave: %(drain_pacing)s"
)
SHORTENED = (
    "Drain %(drain_id)s must end sooner, because %(drain_causes)s. %(drain_sessions_waiting)d sessions wait to be "
    "asked to leave and %(drain_time_left).1f s are left: %(drain_pacing)s"
)
JOINED = (
    "Drain %(drain_id)s has one more cause, and keeps its deadline in %(drain_time_left).1f s: %(drain_causes)s. "
    "%(drain_sessions_waiting)d sessions wait to be asked to leave: %(drain_pacing)s"
)
PROGRESSED = (
    "Drain %(drain_id)s is %(drain_percent)d%% done: %(drain_shed)d sessions were asked to leave, "
    "%(drain_sessions_waiting)d wait to be asked"
)
PACED = "Drain %(drain_id)s changes its pace: %(drain_pacing)s"
ENDED = (
    "Drain %(drain_id)s {what}, %(drain_duration).1f s after it began and {margin}. Because %(drain_causes)s; noticed "
    "at most %(drain_detection_lag).1f s late. Of %(drain_sessions_at_start)d sessions at the start and "
    "%(drain_arrived)d that came later, %(drain_shed)d were asked to leave (%(drain_forced)d by force), "
    "%(drain_left)d left by themselves and %(drain_still_open)d are still open; %(drain_refused)d late arrivals were "
    "refused. Asked in the busiest second: %(drain_peak_rate)d; on average: %(drain_mean_rate).3g a second"
)
WINDOW_TOO_LONG = (
    "The drain window of %(drain_window).1f s does not fit under the target group's deregistration delay of "
    "%(drain_delay).1f s and is shortened to %(drain_fits).1f s: the balancer would cut the rest. Remedy: raise "
    "deregistration_delay.timeout_seconds, or lower the window (DRAIN_WINDOW), or set none and let it follow the delay"
)
IMPAIRED = "Trigger %(drain_trigger)s cannot do its work for now: %(drain_problem)s. Remedy: %(drain_remedy)s"
RESTORED = "Trigger %(drain_trigger)s works again, after %(drain_impaired_for).1f s"
STOOD_DOWN = "Trigger %(drain_trigger)s has nothing to do in this process: %(drain_why)s"
ACTED = "Trigger %(drain_trigger)s has %(drain_deed)s"
POLLED = "Trigger %(drain_trigger)s got the answer %(drain_poll_outcome)s after %(drain_poll_seconds).3f s"

# A path is what a client made of it, line breaks and all: hence its repr.
OPENED = "A %(drain_session_kind)s session opened on %(drain_session_path)r"
SHED = "The %(drain_session_kind)s session on %(drain_session_path)r is asked to leave"
CLOSED = (
    "The %(drain_session_kind)s session on %(drain_session_path)r is over after %(drain_session_seconds).1f s: {how}"
)
REFUSED = "A %(drain_session_kind)s session on %(drain_session_path)r came too late and was refused"


class LogObserver:
    """
    Writes one line for each step of a drain; what the sentence names is a field of the record too (``extra``).

    Args:
        logger: Where to write; by default the logger named ``starlette_drain``.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("starlette_drain")
        self._ended: str | None = None

    def notify(self, event: Event) -> None:
        """Write the line of *fact*, if it has one."""
        match event:
            case SessionOpened() | SessionShed() | SessionClosed() | SessionRefused():
                # Tens of thousands of these: do no work for a line that nobody reads.
                if self._logger.isEnabledFor(logging.DEBUG):
                    self._tell_of_session(event)
            case DrainFinished(report=report):
                self._finish(report)
            case DrainCancelled(report=report):
                self._report(logging.INFO, "was cancelled", "cancelled", report)
            case DrainStarted() | DrainReplanned() | DrainProgressed() | PaceChanged() | WindowTooLong():
                self._tell_of_plan(event)
            case _:
                self._tell_of_trigger(event)

    def flush(self, timeout: float) -> None:
        """Do nothing: lines are written at once."""

    def _tell_of_plan(self, event: Event) -> None:
        match event:
            case DrainStarted():
                self._say(
                    logging.INFO,
                    STARTED,
                    id=event.drain_id,
                    causes=_sentence(event.cause),
                    trigger=event.cause.trigger,
                    sessions=event.sessions,
                    window=event.deadline - event.at,
                    pacing=event.pacing,
                )
            case DrainReplanned():
                # Where the drain is over the cause concerns only those who have not drained.
                self._say(
                    logging.DEBUG if event.drain_id == self._ended and not event.remaining else logging.INFO,
                    SHORTENED if event.shortened else JOINED,
                    id=event.drain_id,
                    causes=_sentence(event.cause),
                    trigger=event.cause.trigger,
                    sessions_waiting=event.remaining,
                    time_left=event.deadline - event.at,
                    pacing=event.pacing,
                )
            case DrainProgressed():
                self._say(
                    logging.INFO,
                    PROGRESSED,
                    id=event.drain_id,
                    percent=event.percent,
                    shed=event.shed,
                    sessions_waiting=event.remaining,
                )
            case PaceChanged():
                self._say(logging.INFO, PACED, id=event.drain_id, pacing=event.pacing)
            case WindowTooLong():
                self._say(logging.WARNING, WINDOW_TOO_LONG, window=event.window, fits=event.fits, delay=event.delay)

    def _finish(self, report: DrainReport) -> None:
        again, self._ended = report.drain_id == self._ended, report.drain_id
        match how := outcome(report):
            case "incomplete":
                self._report(logging.WARNING, "ended with sessions still open", how, report)
            case "late":
                self._report(logging.WARNING, "missed its deadline", how, report)
            case _ if again:
                # A late arrival that was let in made the drain go on: a line for that would be one a session.
                self._report(logging.DEBUG, "is over again", how, report)
            case _:
                self._report(logging.INFO, "is over", how, report)

    def _report(self, level: int, what: str, how: str, report: DrainReport) -> None:
        margin = f"{abs(report.slack):.1f} s {'after' if report.slack < 0 else 'before'} its deadline"
        figures = {each.name: getattr(report, each.name) for each in fields(report)}
        figures["id"] = figures.pop("drain_id")
        figures["causes"] = "; ".join(_sentence(cause) for cause in report.causes)
        figures["trigger"] = report.causes[0].trigger
        figures["outcome"] = how
        self._say(level, ENDED.format(what=what, margin=margin), **figures)

    def _tell_of_trigger(self, event: Event) -> None:
        match event:
            case TriggerPolled():
                self._say(
                    logging.DEBUG,
                    POLLED,
                    trigger=event.trigger,
                    poll_outcome=event.outcome,
                    poll_seconds=event.seconds,
                )
            case TriggerImpaired():
                self._say(
                    logging.WARNING,
                    IMPAIRED,
                    trigger=event.trigger,
                    problem=_clause(event.problem),
                    remedy=_clause(event.remedy),
                )
            case TriggerRestored():
                self._say(logging.INFO, RESTORED, trigger=event.trigger, impaired_for=event.seconds)
            case TriggerActed():
                self._say(logging.INFO, ACTED, trigger=event.trigger, deed=_clause(event.deed))
            case TriggerStoodDown():
                self._say(logging.INFO, STOOD_DOWN, trigger=event.trigger, why=_clause(event.why))

    def _tell_of_session(self, event: Event) -> None:
        match event:
            case SessionOpened(session=session):
                self._say(logging.DEBUG, OPENED, session_kind=session.kind, session_path=session.path)
            case SessionShed(session=session):
                self._say(logging.DEBUG, SHED, session_kind=session.kind, session_path=session.path)
            case SessionClosed(session=session, outcome=outcome):
                self._say(
                    logging.DEBUG,
                    CLOSED.format(how=outcome.value),
                    session_kind=session.kind,
                    session_path=session.path,
                    session_seconds=event.at - session.opened_at,
                )
            case SessionRefused():
                self._say(logging.DEBUG, REFUSED, session_kind=event.kind, session_path=event.path)

    def _say(self, level: int, sentence: str, **figures: object) -> None:
        # Prefixed, because a record has fields of its own: logging refuses an extra called "name".
        extra = {f"drain_{name}": figure for name, figure in figures.items()}
        self._logger.log(level, sentence, extra, extra=extra)


def _sentence(cause: DrainCause) -> str:
    return f"{cause.trigger} says: {_clause(cause.reason)}"


def _clause(sentence: str) -> str:
    """Make one line of *sentence* and drop its full stop, so that it can be part of another."""
    return " ".join(sentence.split()).removesuffix(".")
