"""Logs a drain in sentences. Single sessions are logged at DEBUG only."""

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import partial

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainProgressed,
    DrainReplanned,
    DrainStarted,
    Event,
    PaceChanged,
    RotationEnded,
    RotationProgressed,
    RotationStarted,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SessionShed,
    SignalReceived,
    StormBegan,
    StormEnded,
    StormProgressed,
    TriggerActed,
    TriggerImpaired,
    TriggerPolled,
    TriggerRestored,
    TriggerStoodDown,
    WatchChanged,
    WatchReported,
    WindowTooLong,
    WorkersSeen,
)
from starlette_drain._core.printable import printable
from starlette_drain._core.report import DrainReport

__all__ = ["LogObserver"]

STARTED = (
    "Drain %(drain_id)s starts, caused by %(drain_causes)s. Open sessions: %(drain_sessions)d, to leave within "
    "%(drain_window).1f s (%(drain_pacing)s)"
)
SHORTENED = (
    "Drain %(drain_id)s gets an earlier deadline, caused by %(drain_causes)s. Still to be asked to leave: "
    "%(drain_sessions_waiting)d, within %(drain_time_left).1f s (%(drain_pacing)s)"
)
JOINED = (
    "Drain %(drain_id)s has another cause and keeps its deadline in %(drain_time_left).1f s: %(drain_causes)s. "
    "Still to be asked to leave: %(drain_sessions_waiting)d (%(drain_pacing)s)"
)
PROGRESSED = (
    "Drain %(drain_id)s is %(drain_percent)d%% done. Asked to leave: %(drain_shed)d, still to be asked: "
    "%(drain_sessions_waiting)d"
)
PACED = "Drain %(drain_id)s changes its pace: %(drain_pacing)s"
ENDED = (
    "Drain %(drain_id)s {what}, %(drain_duration).1f s after it started and {margin}. Caused by %(drain_causes)s{lag}. "
    "Sessions: %(drain_sessions_at_start)d at the start, %(drain_arrived)d arrived later, %(drain_shed)d asked to "
    "leave (%(drain_forced)d by force), %(drain_left)d left on their own, %(drain_still_open)d still open, "
    "%(drain_refused)d late arrivals refused. Rate: %(drain_peak_rate)d/s at the peak, %(drain_mean_rate).3g/s on "
    "average"
)
LAG = "; detected at most %(drain_detection_lag).1f s late"
CANCELLED_LATER = "Drain %(drain_id)s, which had ended, was cancelled: the process serves again"
WINDOW_TOO_LONG = (
    "The drain window of %(drain_window).1f s does not fit into the target group's deregistration delay of "
    "%(drain_delay).1f s and is shortened to %(drain_fits).1f s: the balancer would cut the sessions left after that. "
    "Remedy: raise deregistration_delay.timeout_seconds, lower the window (DRAIN_WINDOW), or set no window and let it "
    "follow the delay"
)
ROTATES = (
    "Rotation starts, caused by %(drain_causes)s. To be asked to leave: %(drain_sessions)d, over %(drain_window).1f s, "
    "while the process goes on serving"
)
ROTATED = (
    "Rotation is %(drain_percent)d%% done. Asked to leave: %(drain_shed)d, left on their own: %(drain_left)d, still to "
    "be asked: %(drain_sessions_waiting)d"
)
ROTATION_ENDED = (
    "Rotation {what} after %(drain_duration).1f s. Asked to leave: %(drain_shed)d, left on their own: %(drain_left)d, "
    "not asked: %(drain_sessions_waiting)d"
)
ENDINGS = {
    "complete": "is complete",
    "cancelled": "was cancelled",
    "replaced": "was replaced by another",
    "interrupted": "was interrupted by the end of the application",
}
IMPAIRED = "Trigger %(drain_trigger)s does not work for now: %(drain_problem)s. Remedy: %(drain_remedy)s"
RESTORED = "Trigger %(drain_trigger)s works again after %(drain_impaired_for).1f s"
WATCHES = "starlette_drain watches %(drain_watched)s"
WATCHES_SOME = "starlette_drain watches %(drain_watched)s; off here: %(drain_off)s"
NOTHING = "starlette_drain watches nothing, so a drain starts only by hand: %(drain_off)s"
STOOD_DOWN = "Trigger %(drain_trigger)s is off in this process: %(drain_why)s"
SEES = {
    "watching": "Trigger %(drain_trigger)s watches %(drain_what)s",
    "not yet": "Trigger %(drain_trigger)s does not yet see %(drain_what)s: %(drain_because)s",
    "blind": "Trigger %(drain_trigger)s sees nothing of %(drain_what)s: %(drain_because)s",
    "elsewhere": "Trigger %(drain_trigger)s is left to another worker",
}
ACTED = "Trigger %(drain_trigger)s has %(drain_deed)s"
SILENT = (
    "Worker %(drain_worker)d has not responded for 5 s or more: its event loop is blocked, or it was stopped. "
    "Remedy: py-spy dump --pid %(drain_worker)d shows where; if it stays blocked, kill -KILL %(drain_worker)d cuts its "
    "sessions now, and the other workers go on"
)
HEARD = "Worker %(drain_worker)d responds again, or has ended"
RECEIVED = "The process was told to stop by %(drain_signal)s"
POLLED = "Trigger %(drain_trigger)s got the answer %(drain_poll_outcome)s after %(drain_poll_seconds).3f s"

OPENED = "A %(drain_session_kind)s session opened on %(drain_session_path)s"
SHED = "The %(drain_session_kind)s session on %(drain_session_path)s is asked to leave"
CLOSED = "The %(drain_session_kind)s session on %(drain_session_path)s ended after %(drain_session_seconds).1f s: {how}"
REFUSED = "A %(drain_session_kind)s session on %(drain_session_path)s arrived during the {what} and was refused"

STORM_BEGAN = (
    "More connections arrive than can be set up: %(drain_in_progress)d are in progress, the limit is %(drain_limit)d; "
    "further ones {what}"
)
STORM_PROGRESSED = (
    "Connections still arrive: %(drain_in_progress)d are in progress, the limit is %(drain_limit)d, %(drain_held)d wait"
)
STORM_ENDED = (
    "The connections that arrived have been set up, %(drain_duration).1f s after the first had to wait. Of "
    "%(drain_arrived)d %(drain_held)d {what} (at most %(drain_most_held)d at once, the longest for "
    "%(drain_longest_wait).1f s), %(drain_refused)d were refused and %(drain_gone)d left before their turn. Set-up: "
    "99%% within %(drain_set_up_time).3f s, %(drain_set_up_rate).3g/s; limit from %(drain_lowest_limit)d to "
    "%(drain_highest_limit)d; the event loop was %(drain_lag).3f s late at worst"
)

OBSERVED = "Dry run, no session is closed: "


class LogObserver:
    """
    Writes one line for each step of a drain. Its values are also fields of the log record (``extra``).

    Args:
        logger: The logger to write to; by default the one named ``starlette_drain``.
        observes_only: Whether the drain closes nothing (``mode="observe"``); then every line of a drain says so.
    """

    def __init__(self, logger: logging.Logger | None = None, *, observes_only: bool = False) -> None:
        self._logger = logger or logging.getLogger("starlette_drain")
        self._prefix = OBSERVED if observes_only else ""
        self._ended: str | None = None
        self._silent: tuple[int, ...] = ()

    def interest(self, kind: type[Event]) -> Callable[[], bool]:  # noqa: ARG002
        """Return a function that says whether single sessions are logged."""
        return partial(self._logger.isEnabledFor, logging.DEBUG)

    def notify(self, event: Event) -> None:
        """Write the line of *event*, if it has one."""
        match event:
            case SessionOpened() | SessionShed() | SessionClosed() | SessionRefused():
                # There may be tens of thousands: do no work for a line that is not logged.
                if self._logger.isEnabledFor(logging.DEBUG):
                    self._log_session(event)
            case DrainFinished(report=report):
                self._finish(report)
            case DrainCancelled(report=report) if report.outcome != "cancelled":  # it is that of the end
                self._log(logging.INFO, CANCELLED_LATER, id=report.drain_id, outcome="cancelled")
            case DrainCancelled(report=report):
                self._report(logging.INFO, "was cancelled", "cancelled", report)
            case StormBegan() | StormProgressed() | StormEnded():
                self._log_storm(event)
            case RotationStarted() | RotationProgressed() | RotationEnded():
                self._log_rotation(event)
            case DrainStarted() | DrainReplanned() | DrainProgressed() | PaceChanged() | WindowTooLong():
                self._log_plan(event)
            case WorkersSeen():
                self._log_workers(event.silent)
            case _:
                self._log_trigger(event)

    def _log_plan(self, event: Event) -> None:
        match event:
            case DrainStarted():
                self._log(
                    logging.INFO,
                    STARTED,
                    id=event.drain_id,
                    causes=_named(event.cause),
                    trigger=event.cause.trigger,
                    sessions=event.sessions,
                    window=event.deadline - event.at,
                    pacing=event.pacing,
                )
            case DrainReplanned():
                # After the end of a drain, a further cause changes nothing unless a session is left.
                self._log(
                    logging.DEBUG if event.drain_id == self._ended and not event.remaining else logging.INFO,
                    SHORTENED if event.shortened else JOINED,
                    id=event.drain_id,
                    causes=_named(event.cause),
                    trigger=event.cause.trigger,
                    sessions_waiting=event.remaining,
                    time_left=event.deadline - event.at,
                    pacing=event.pacing,
                )
            case DrainProgressed():
                self._log(
                    logging.INFO,
                    PROGRESSED,
                    id=event.drain_id,
                    percent=event.percent,
                    shed=event.shed,
                    sessions_waiting=event.remaining,
                )
            case PaceChanged():
                self._log(logging.INFO, PACED, id=event.drain_id, pacing=event.pacing)
            case WindowTooLong():
                self._log(logging.WARNING, WINDOW_TOO_LONG, window=event.window, fits=event.fits, delay=event.delay)

    def _log_rotation(self, event: Event) -> None:
        match event:
            case RotationStarted(rotation=rotation):
                self._log(
                    logging.INFO,
                    ROTATES,
                    causes=f"{rotation.trigger} ({_clause(rotation.reason)})",
                    trigger=rotation.trigger,
                    sessions=event.sessions,
                    window=rotation.at + rotation.window - event.at,
                )
            case RotationProgressed():
                self._log(
                    logging.INFO,
                    ROTATED,
                    trigger=event.trigger,
                    percent=event.percent,
                    shed=event.asked,
                    left=event.left,
                    sessions_waiting=event.remaining,
                )
            case RotationEnded():
                self._log(
                    logging.INFO,
                    ROTATION_ENDED.format(what=ENDINGS[event.outcome]),
                    trigger=event.trigger,
                    outcome=event.outcome,
                    duration=event.seconds,
                    shed=event.asked,
                    left=event.left,
                    sessions_waiting=event.remaining,
                )

    def _finish(self, report: DrainReport) -> None:
        again, self._ended = report.drain_id == self._ended, report.drain_id
        match how := report.outcome:
            case "incomplete":
                self._report(logging.WARNING, "ended with sessions still open", how, report)
            case "late":
                self._report(logging.WARNING, "ended late", how, report)
            case _ if again:
                # A late arrival was let in after the end. There may be many, so this is not logged at INFO.
                self._report(logging.DEBUG, "is complete again", how, report)
            case _:
                self._report(logging.INFO, "is complete", how, report)

    def _report(self, level: int, what: str, how: str, report: DrainReport) -> None:
        margin = f"{abs(report.slack):.1f} s {'after' if report.slack < 0 else 'before'} its deadline"
        figures = {each.name: getattr(report, each.name) for each in fields(report)}
        figures["id"] = figures.pop("drain_id")
        figures["causes"] = ", ".join(_named(cause) for cause in report.causes)
        figures["trigger"] = report.causes[0].trigger
        figures["outcome"] = how
        lag = LAG if report.detection_lag else ""
        self._log(level, ENDED.format(what=what, margin=margin, lag=lag), **figures)

    def _log_trigger(self, event: Event) -> None:
        match event:
            case TriggerPolled():
                self._log(
                    logging.DEBUG,
                    POLLED,
                    trigger=event.trigger,
                    poll_outcome=_clause(event.outcome),
                    poll_seconds=event.seconds,
                )
            case TriggerImpaired():
                self._log(
                    logging.WARNING,
                    IMPAIRED,
                    trigger=event.trigger,
                    problem=_clause(event.problem),
                    remedy=_clause(event.remedy),
                )
            case TriggerRestored():
                self._log(logging.INFO, RESTORED, trigger=event.trigger, impaired_for=event.seconds)
            case SignalReceived():
                self._log(logging.DEBUG, RECEIVED, signal=event.signal)
            case TriggerActed():
                self._log(logging.INFO, ACTED, trigger=event.trigger, deed=_clause(event.deed))
            case WatchChanged():
                self._log(
                    logging.WARNING if event.is_alarm else logging.INFO,
                    (WATCHES_SOME if event.off else WATCHES) if event.watched else NOTHING,
                    watched=", ".join(_clause(each) for each in event.watched),
                    off=", ".join(f"{name} ({_clause(why)})" for name, why in event.off) or "it has no triggers",
                )
            case WatchReported():
                self._log(
                    logging.DEBUG,
                    SEES[event.state],
                    trigger=event.trigger,
                    watch=event.state,
                    what=_clause(event.what) or "what it watches",
                    because=_clause(event.because),
                )
            case TriggerStoodDown():
                self._log(logging.DEBUG, STOOD_DOWN, trigger=event.trigger, why=_clause(event.why))

    def _log_workers(self, silent: tuple[int, ...]) -> None:
        before, self._silent = self._silent, silent
        for pid in silent:
            if pid not in before:
                self._log(logging.WARNING, SILENT, worker=pid)
        for pid in before:
            if pid not in silent:
                self._log(logging.INFO, HEARD, worker=pid)

    def _log_storm(self, event: StormBegan | StormProgressed | StormEnded) -> None:
        match event:
            case StormBegan():
                self._log(
                    logging.WARNING,
                    STORM_BEGAN.format(what="are only counted" if event.observes_only else "are held"),
                    in_progress=event.in_progress,
                    limit=event.limit,
                )
            case StormProgressed():
                self._log(
                    logging.DEBUG, STORM_PROGRESSED, in_progress=event.in_progress, limit=event.limit, held=event.held
                )
            case StormEnded(storm=storm):
                self._log(
                    logging.INFO,
                    STORM_ENDED.format(what="would have waited" if event.observes_only else "waited"),
                    duration=storm.last - storm.began,
                    arrived=storm.arrived,
                    held=storm.held,
                    most_held=storm.most_held,
                    longest_wait=storm.longest_wait,
                    refused=storm.refused,
                    gone=storm.gone,
                    set_up_time=storm.p99(),
                    set_up_rate=storm.rate(storm.last),
                    lowest_limit=storm.lowest,
                    highest_limit=storm.highest,
                    lag=storm.lag,
                )

    def _log_session(self, event: Event) -> None:
        match event:
            case SessionOpened(session=session):
                self._log(logging.DEBUG, OPENED, session_kind=session.kind, session_path=printable(session.path))
            case SessionShed(session=session):
                self._log(logging.DEBUG, SHED, session_kind=session.kind, session_path=printable(session.path))
            case SessionClosed(session=session, outcome=outcome):
                self._log(
                    logging.DEBUG,
                    CLOSED.format(how=outcome.value),
                    session_kind=session.kind,
                    session_path=printable(session.path),
                    session_seconds=event.at - session.opened_at,
                )
            case SessionRefused():
                refused = REFUSED.format(what=event.because)
                self._log(logging.DEBUG, refused, session_kind=event.kind, session_path=printable(event.path))

    def _log(self, level: int, sentence: str, **figures: object) -> None:
        # Prefixed, because logging refuses an extra with the name of a record's own field, such as "name".
        extra = {f"drain_{name}": figure for name, figure in figures.items()}
        prefix = self._prefix if "id" in figures else ""
        self._logger.log(level, f"{prefix}{sentence}", extra, extra=extra)  # noqa: G004


def _named(cause: DrainCause) -> str:
    return f"{cause.trigger} ({_clause(cause.reason)})"


def _clause(sentence: str) -> str:
    """Return *sentence* on one line and without its full stop, as a part of another sentence."""
    return printable(" ".join(sentence.split()).removesuffix("."))
