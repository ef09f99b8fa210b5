"""
The errors of starlette_drain.

    DrainError
    ├── SettingsError (ValueError)      an option has a value that cannot work
    ├── IllegalTransition (RuntimeError)  the state machine does not allow that move
    │   └── TooLateToCancel             the process has been told to stop
    ├── DrainInUse (RuntimeError)       one Drain, two event loops
    ├── DrainEnded (RuntimeError)       a drain asked for when the application ends
    ├── NotTracked (LookupError)        the connection is not a session of ours
    └── DiscoveryError                  AWS did not tell who this task is

Every message names the thing, the value and the remedy.
"""

from typing import Any

__all__ = [
    "DiscoveryError",
    "DrainEnded",
    "DrainError",
    "DrainInUse",
    "IllegalTransition",
    "NotTracked",
    "SettingsError",
    "TooLateToCancel",
]


class DrainError(Exception):
    """The base of all errors of starlette_drain."""


class SettingsError(DrainError, ValueError):
    """
    An option has a value that cannot work.

    Carries ``option`` (its name), ``value`` (what was given) and ``remedy`` (what to give instead).
    """

    def __init__(self, option: str, value: Any, remedy: str) -> None:
        super().__init__(option, value, remedy)
        self.option = option
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.option}={self.value!r} cannot work: {self.remedy}"


class IllegalTransition(DrainError, RuntimeError):
    """The state does not allow this; nothing has changed."""


class TooLateToCancel(IllegalTransition):
    """The process has been told to stop, so its drain can no longer be cancelled."""


class DrainInUse(DrainError, RuntimeError):
    """A Drain that runs on one event loop was asked to run on another."""


class DrainEnded(DrainError, RuntimeError):
    """The application has ended or is about to, so no drain can begin."""


class NotTracked(DrainError, LookupError):
    """The connection did not come through `DrainMiddleware`."""


class DiscoveryError(DrainError):
    """AWS or the task metadata endpoint did not say which task this is."""
