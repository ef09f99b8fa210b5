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

    Carries ``option`` (its name), ``value`` (what was given) and ``remedy`` (what to give instead), and in ``others``
    the errors of further options.
    """

    def __init__(self, option: str, value: Any, remedy: str, *others: "SettingsError") -> None:
        super().__init__(option, value, remedy, *others)
        self.option = option
        self.value = value
        self.remedy = remedy
        self.others = others

    def __str__(self) -> str:
        own = f"{self.option}={self.value!r} cannot work: {self.remedy}"
        return ". ".join([own.removesuffix("."), *map(str, self.others)]) if self.others else own


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
