"""
What happened, as frozen facts: the one language between the drain and those who listen to it.

A fact carries no sentence; observers write those. All times are seconds on the event loop's monotonic clock.
"""

from dataclasses import dataclass

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.report import DrainReport
from starlette_drain._core.session import Outcome, Session

__all__ = [
    "DrainCancelled",
    "DrainFinished",
    "DrainProgressed",
    "DrainReplanned",
    "DrainStarted",
    "Fact",
    "PaceChanged",
    "SessionClosed",
    "SessionOpened",
    "SessionRefused",
    "SessionShed",
    "TriggerActed",
    "TriggerImpaired",
    "TriggerPolled",
    "TriggerRestored",
    "TriggerStoodDown",
    "WindowTooLong",
]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, and when."""

    at: float


@dataclass(frozen=True, slots=True)
class DrainStarted(Fact):
    """The process began to leave: *sessions* of them until *deadline*, at a pace described by *pacing*."""

    drain_id: str
    cause: DrainCause
    deadline: float
    sessions: int
    pacing: str


@dataclass(frozen=True, slots=True)
class DrainReplanned(Fact):
    """A further *cause* joined; *shortened* says whether it brought the deadline forward."""

    drain_id: str
    cause: DrainCause
    deadline: float
    shortened: bool
    remaining: int
    pacing: str


@dataclass(frozen=True, slots=True)
class DrainProgressed(Fact):
    """A milestone: *percent* of those who had to leave have been asked or have left. At most three a drain."""

    drain_id: str
    percent: int
    shed: int
    remaining: int


@dataclass(frozen=True, slots=True)
class PaceChanged(Fact):
    """The pace does something else from now on, as *pacing* says: it pauses, goes on, or gives way to the deadline."""

    drain_id: str
    pacing: str


@dataclass(frozen=True, slots=True)
class DrainCancelled(Fact):
    """Somebody changed their mind; *report* tells how far the drain had come."""

    drain_id: str
    report: DrainReport


@dataclass(frozen=True, slots=True)
class DrainFinished(Fact):
    """The drain is over."""

    drain_id: str
    report: DrainReport


@dataclass(frozen=True, slots=True)
class SessionOpened(Fact):
    """A session is open: its handshake is complete."""

    session: Session


@dataclass(frozen=True, slots=True)
class SessionShed(Fact):
    """A session was asked to leave."""

    session: Session


@dataclass(frozen=True, slots=True)
class SessionClosed(Fact):
    """A session is over; *outcome* says how it went."""

    session: Session
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SessionRefused(Fact):
    """A late arrival was turned away."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class TriggerPolled(Fact):
    """A trigger asked its source and got *outcome* (a verdict, or the name of an error) after *seconds*."""

    trigger: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TriggerActed(Fact):
    """A trigger changed something outside: *deed* says what, such as a registration with a target group."""

    trigger: str
    deed: str


@dataclass(frozen=True, slots=True)
class TriggerImpaired(Fact):
    """A trigger cannot do its work for now: *problem*, and the *remedy*. Said once until it is restored."""

    trigger: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TriggerRestored(Fact):
    """A trigger that was impaired for *seconds* works again."""

    trigger: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TriggerStoodDown(Fact):
    """A trigger has nothing to do in this process, because *why*."""

    trigger: str
    why: str


@dataclass(frozen=True, slots=True)
class WindowTooLong(Fact):
    """The *window* asked for does not fit under the deregistration *delay*, of which *fits* seconds may be used."""

    window: float
    fits: float
    delay: float
