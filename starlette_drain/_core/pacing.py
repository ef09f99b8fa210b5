"""
How fast sessions are asked to leave: pure arithmetic, no state, no clock.

A strategy is asked again whenever the number of sessions changes, so it answers for this moment only. A new strategy
is one class with an ``interval`` and two methods; see *Extending* in the documentation.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from starlette_drain._core.declared import is_number
from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain.exceptions import SettingsError

__all__ = [
    "FEWEST_BATCHES",
    "SHORTEST_WINDOW",
    "BatchPacing",
    "EvenPacing",
    "Pacing",
    "RateCapPacing",
    "burst_warning",
    "parse_pacing",
]

PACING_REMEDY = (
    "give a Pacing, or 'even', 'rate:50' (sessions/s), 'batches:2' (seconds between batches) or 'fleet:500' "
    "(sessions/s of all draining tasks together)"
)

SHORTEST_WINDOW = 1.0
"""Seconds below which spreading makes no difference: it is one burst."""

FEWEST_BATCHES = 3
"""The fewest batches, however long the interval: one batch of all sessions is the burst that a drain must prevent."""


@runtime_checkable
class Pacing(Protocol):
    """
    A strategy that sets the pace of a drain.

    ``interval`` is the time in seconds between two batches; 0 means one session at a time, each at a random moment
    within its own slot.
    """

    @property
    def interval(self) -> float: ...

    def rate(self, remaining: float, time_left: float) -> float:
        """
        Return how many sessions per second may be asked to leave now.

        The deadline always holds: sessions left at the deadline are all asked then. To avoid that burst, return at
        least ``remaining / time_left``.

        Args:
            remaining: Sessions not yet asked to leave; fractional while a slot is under way.
            time_left: Seconds until the deadline, more than 0.
        """

    def describe(self, remaining: float, time_left: float) -> str:
        """Return in a few words what the strategy does now, and whether it gives way to the deadline."""


@dataclass(frozen=True, slots=True)
class EvenPacing:
    """The default: spreads the sessions evenly over the time left, with the lowest peak that meets the deadline."""

    interval = 0.0

    def rate(self, remaining: float, time_left: float) -> float:
        """Return ``remaining / time_left``."""
        return remaining / time_left

    def describe(self, remaining: float, time_left: float) -> str:
        """Return the rate in words."""
        return f"evenly, {remaining / time_left:.3g} sessions/s"


@dataclass(frozen=True, slots=True)
class RateCapPacing:
    """
    At most *limit* sessions per second; may finish before the deadline.

    A limit too low for the deadline gives way, as little as possible: the remaining sessions are spread evenly over the
    time left, and ``describe`` says so.

    Raises:
        SettingsError: If *limit* is not a number above 0.
    """

    limit: float
    interval = 0.0

    def __post_init__(self) -> None:
        _check_positive("limit", self.limit, "give the number of sessions per second, such as 50")

    def rate(self, remaining: float, time_left: float) -> float:
        """Return the limit, or the rate that the deadline needs if that is higher."""
        return max(self.limit, remaining / time_left)

    def describe(self, remaining: float, time_left: float) -> str:
        """Return the limit, or the rate that the deadline needs."""
        needed = remaining / time_left
        if needed > self.limit * (1 + 1e-9):
            return f"{needed:.3g} sessions/s: the limit of {self.limit:g}/s gives way to the deadline"
        return f"at most {self.limit:g} sessions/s"


@dataclass(frozen=True, slots=True)
class BatchPacing:
    """
    One batch every *interval* seconds, all of the same size.

    This is what Phoenix' drainer does, except that the size follows from the deadline.

    Raises:
        SettingsError: If *interval* is not a number above 0.
    """

    interval: float = 2.0

    def __post_init__(self) -> None:
        _check_positive("interval", self.interval, "give the seconds between two batches, such as 2")

    def rate(self, remaining: float, time_left: float) -> float:
        """Return ``remaining / time_left``; the plan turns it into batches."""
        return remaining / time_left

    def describe(self, remaining: float, time_left: float) -> str:
        """Return the size of a batch and the interval in words."""
        # The tolerance makes 20.0000001 a batch of twenty.
        size = math.ceil(min(remaining, remaining / time_left * self.interval) - 1e-6)
        return f"batches of {size} every {self.interval:g} s"


def parse_pacing(text: str) -> Pacing:
    """
    Return the strategy that *text* names: ``even``, ``rate:50``, ``batches:2`` or ``fleet:500``.

    Raises:
        SettingsError: If *text* is none of these.
    """
    name, _, number = text.strip().partition(":")
    try:
        match name.strip().lower():
            case "even" if not number:
                return EvenPacing()
            case "rate":
                return RateCapPacing(float(number))
            case "batches":
                return BatchPacing(float(number))
            case "fleet":
                return FleetPacing(float(number))
    except ValueError:
        pass
    raise SettingsError("pacing", text, PACING_REMEDY)


def burst_warning(pacing: Pacing, window: float) -> str | None:
    """Return why *pacing* closes many sessions at once in a *window* of so many seconds; ``None`` if it does not."""
    if window < SHORTEST_WINDOW:
        return "all sessions are closed at once; give the drain more time"
    try:
        interval = pacing.interval
    except Exception:  # noqa: BLE001 - the strategy is the application's own; the plan logs what it raises
        return None
    if not (is_number(interval) and interval >= window):
        return None
    return (
        f"the pacing's batches, {interval:g} s apart, do not fit into it; they come {window / FEWEST_BATCHES:.3g} s "
        "apart instead, each with a large part of the sessions; give a shorter interval, or the drain more time"
    )


def _check_positive(option: str, value: float, remedy: str) -> None:
    if not (is_number(value) and value > 0):
        raise SettingsError(option, value, remedy)
