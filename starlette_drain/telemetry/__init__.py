"""Who listens to a drain: the contract of an observer, and the facts it hears."""

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
from starlette_drain.telemetry.base import Observer

__all__ = [
    "DrainCancelled",
    "DrainFinished",
    "DrainProgressed",
    "DrainReplanned",
    "DrainStarted",
    "Event",
    "Observer",
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
