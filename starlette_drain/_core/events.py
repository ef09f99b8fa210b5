"""
Frozen events: everything that observers learn about a drain.

Events carry data; observers write the sentences. All times are in seconds on the event loop's monotonic clock.
"""

from dataclasses import dataclass

from starlette_drain._core.admission import Storm
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.report import DrainReport
from starlette_drain._core.session import Outcome, Session
from starlette_drain._core.turnover import Rotation

__all__ = [
    "DrainCancelled",
    "DrainFinished",
    "DrainProgressed",
    "DrainReplanned",
    "DrainStarted",
    "Event",
    "PaceChanged",
    "RotationEnded",
    "RotationProgressed",
    "RotationStarted",
    "SessionClosed",
    "SessionOpened",
    "SessionRefused",
    "SessionShed",
    "SignalReceived",
    "StormBegan",
    "StormEnded",
    "StormProgressed",
    "TriggerActed",
    "TriggerImpaired",
    "TriggerPolled",
    "TriggerRestored",
    "TriggerStoodDown",
    "WatchChanged",
    "WatchReported",
    "WindowTooLong",
    "WorkersSeen",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, and when."""

    at: float


@dataclass(frozen=True, slots=True)
class DrainStarted(Event):
    """
    The process began to drain *sessions* until *deadline*, at the pace that *pacing* describes.

    *waits* is true if that pace asks no session to leave for now.
    """

    drain_id: str
    cause: DrainCause
    deadline: float
    sessions: int
    pacing: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class DrainReplanned(Event):
    """A further *cause* joined; *shortened* is true if it brought the deadline forward."""

    drain_id: str
    cause: DrainCause
    deadline: float
    shortened: bool
    remaining: int
    pacing: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class DrainProgressed(Event):
    """*percent* of the sessions have been asked to leave or have left: 25, 50 or 75."""

    drain_id: str
    percent: int
    shed: int
    remaining: int


@dataclass(frozen=True, slots=True)
class PaceChanged(Event):
    """The pace changed, as *pacing* says: it pauses, continues, or gives way to the deadline."""

    drain_id: str
    pacing: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class DrainCancelled(Event):
    """The drain was cancelled, or its last claim withdrawn; see *report*."""

    drain_id: str
    report: DrainReport


@dataclass(frozen=True, slots=True)
class DrainFinished(Event):
    """The drain is over."""

    drain_id: str
    report: DrainReport


@dataclass(frozen=True, slots=True)
class RotationStarted(Event):
    """*rotation* began: *sessions* will be asked to leave while the process serves."""

    rotation: Rotation
    sessions: int


@dataclass(frozen=True, slots=True)
class RotationProgressed(Event):
    """A rotation is *percent* done: sessions *asked*, *left* by themselves and *remaining* to be asked."""

    trigger: str
    percent: int
    asked: int
    left: int
    remaining: int


@dataclass(frozen=True, slots=True)
class RotationEnded(Event):
    """
    A rotation is over after *seconds*.

    *outcome* is ``"complete"``, ``"cancelled"``, ``"replaced"`` (by another one) or ``"interrupted"`` (the application
    ended).
    """

    trigger: str
    outcome: str
    seconds: float
    asked: int
    left: int
    remaining: int


@dataclass(frozen=True, slots=True)
class SessionOpened(Event):
    """A session is open: its handshake is complete."""

    session: Session


@dataclass(frozen=True, slots=True)
class SessionShed(Event):
    """A session was asked to leave, by *trigger* or, if that is ``None``, by a drain."""

    session: Session
    trigger: str | None = None


@dataclass(frozen=True, slots=True)
class SessionClosed(Event):
    """A session is over: how, and its close *code* if it has one (1006: the connection was lost)."""

    session: Session
    outcome: Outcome
    code: int | None = None


@dataclass(frozen=True, slots=True)
class SessionRefused(Event):
    """A late arrival was refused (*because* is ``"drain"``), or a handshake that found no place (``"storm"``)."""

    kind: str
    path: str
    because: str = "drain"


@dataclass(frozen=True, slots=True)
class StormBegan(Event):
    """The limit on handshakes was reached; further ones are held, or only counted if *observes_only*."""

    limit: int
    in_progress: int
    observes_only: bool


@dataclass(frozen=True, slots=True)
class StormProgressed(Event):
    """The state of a storm, about once a second."""

    limit: int
    in_progress: int
    held: int


@dataclass(frozen=True, slots=True)
class StormEnded(Event):
    """No handshake has had to wait for some seconds; *storm* has the figures, *limit* is the current limit."""

    storm: Storm
    limit: int
    observes_only: bool


@dataclass(frozen=True, slots=True)
class SignalReceived(Event):
    """The process was told to stop by *signal*, such as ``"SIGTERM"``."""

    signal: str


@dataclass(frozen=True, slots=True)
class TriggerPolled(Event):
    """A trigger polled its source and got *outcome* (a verdict or the name of an error) after *seconds*."""

    trigger: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TriggerActed(Event):
    """A trigger changed something outside the process: *deed* says what, such as a target registration."""

    trigger: str
    deed: str


@dataclass(frozen=True, slots=True)
class TriggerImpaired(Event):
    """A trigger cannot work for now, because of *problem*; *remedy* says what to do. Emitted once until restored."""

    trigger: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TriggerRestored(Event):
    """A trigger that was impaired for *seconds* works again."""

    trigger: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TriggerStoodDown(Event):
    """A trigger is off in this process; *why* gives the reason, and *is_alarm* is true if it should be on."""

    trigger: str
    why: str
    is_alarm: bool = False


@dataclass(frozen=True, slots=True)
class WatchReported(Event):
    """
    Whether a trigger sees what it watches; emitted after its first poll, and when that changes.

    *state* is ``"watching"``, ``"not yet"`` (what it watches is not there yet), ``"blind"`` (no answer for two
    intervals) or ``"elsewhere"`` (another worker watches now). *what* is a phrase for what it watches, empty while that
    is unknown, and *because* says why it does not see it.
    """

    trigger: str
    state: str
    what: str
    because: str = ""


@dataclass(frozen=True, slots=True)
class WatchChanged(Event):
    """
    What may start a drain in this process; emitted soon after the start, and when that changes.

    *watched* lists the triggers in place, each with its state; *off* those that are off, each with the reason.
    *is_alarm* is true if something should be watched here and is not.
    """

    watched: tuple[str, ...]
    off: tuple[tuple[str, str], ...]
    is_alarm: bool


@dataclass(frozen=True, slots=True)
class WindowTooLong(Event):
    """The *window* does not fit into the deregistration *delay*, of which only *fits* seconds can be used."""

    window: float
    fits: float
    delay: float


@dataclass(frozen=True, slots=True)
class WorkersSeen(Event):
    """
    The number of *workers* of the task, and which are *silent*; emitted by each worker when that changes.

    *silent* holds the process ids of those without a heartbeat for five seconds: their event loop is blocked, or the
    process is suspended.
    """

    workers: int
    silent: tuple[int, ...]
