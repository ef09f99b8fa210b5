"""
What happened, as frozen events: the one language between the drain and its observers.

An event carries no sentence; observers write those. All times are seconds on the event loop's monotonic clock.
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

    *waits* says that this pace asks no session to leave for now.
    """

    drain_id: str
    cause: DrainCause
    deadline: float
    sessions: int
    pacing: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class DrainReplanned(Event):
    """A further *cause* joined; *shortened* says whether it brought the deadline forward."""

    drain_id: str
    cause: DrainCause
    deadline: float
    shortened: bool
    remaining: int
    pacing: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class DrainProgressed(Event):
    """*percent* of the sessions have been asked or have left: 25, 50 and 75."""

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
    """The process began to ask *sessions* to leave while it serves, as *rotation* says."""

    rotation: Rotation
    sessions: int


@dataclass(frozen=True, slots=True)
class RotationProgressed(Event):
    """A quarter of a rotation is done: sessions *asked*, *left* by themselves, *remaining* to be asked."""

    trigger: str
    percent: int
    asked: int
    left: int
    remaining: int


@dataclass(frozen=True, slots=True)
class RotationEnded(Event):
    """A rotation is over after *seconds*; *outcome* is ``"complete"``, ``"cancelled"`` or ``"replaced"``."""

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
    """A session was asked to leave, by a drain or by *trigger*."""

    session: Session
    trigger: str | None = None


@dataclass(frozen=True, slots=True)
class SessionClosed(Event):
    """A session is over; *outcome* says how it went, *code* its close code, where it has one (1006: it was lost)."""

    session: Session
    outcome: Outcome
    code: int | None = None


@dataclass(frozen=True, slots=True)
class SessionRefused(Event):
    """A late arrival was refused (*because* is ``"drain"``), or a handshake that waited too long (``"storm"``)."""

    kind: str
    path: str
    because: str = "drain"


@dataclass(frozen=True, slots=True)
class StormBegan(Event):
    """More handshakes arrived than may be in progress; further ones are held, or only counted."""

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
    """No handshake had to wait for some seconds; *storm* has the figures, *limit* is the present one."""

    storm: Storm
    limit: int
    observes_only: bool


@dataclass(frozen=True, slots=True)
class SignalReceived(Event):
    """The process was told to stop, by the signal of this name."""

    signal: str


@dataclass(frozen=True, slots=True)
class TriggerPolled(Event):
    """A trigger asked its source and got *outcome* (a verdict, or the name of an error) after *seconds*."""

    trigger: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TriggerActed(Event):
    """A trigger changed something outside: *deed* says what, such as a registration with a target group."""

    trigger: str
    deed: str


@dataclass(frozen=True, slots=True)
class TriggerImpaired(Event):
    """A trigger cannot work for now: the *problem* and the *remedy*. Emitted once until it is restored."""

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
    """A trigger has nothing to do in this process, because *why*; *is_alarm* says that it should have."""

    trigger: str
    why: str
    is_alarm: bool = False


@dataclass(frozen=True, slots=True)
class WatchReported(Event):
    """
    Whether a trigger sees its source; emitted after its first poll, and when it changes.

    *state* is ``"watching"``, ``"not yet"`` (what it watches for is not there) or ``"blind"`` (it was told nothing for
    two intervals); *what* says in a clause what it looks at, and *because* why it is not watching.
    """

    trigger: str
    state: str
    what: str
    because: str = ""


@dataclass(frozen=True, slots=True)
class WatchChanged(Event):
    """
    What may start a drain here; emitted soon after the start, and when it changes.

    *watched* names the triggers in place, each with its state, *off* those that have nothing to do here, each with the
    reason. *is_alarm* says that something should be watched here and is not.
    """

    watched: tuple[str, ...]
    off: tuple[tuple[str, str], ...]
    is_alarm: bool


@dataclass(frozen=True, slots=True)
class WindowTooLong(Event):
    """The *window* does not fit under the deregistration *delay*, of which *fits* seconds can be used."""

    window: float
    fits: float
    delay: float


@dataclass(frozen=True, slots=True)
class WorkersSeen(Event):
    """
    How many *workers* the task has, and which of them are *silent*: emitted by each worker when that changes.

    *silent* holds the process ids of those without a heartbeat for five seconds: their event loop hangs, or they were
    stopped.
    """

    workers: int
    silent: tuple[int, ...]
