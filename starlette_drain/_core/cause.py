"""Why a drain began, and by when it must have ended."""

from dataclasses import dataclass

__all__ = ["DrainCause"]


@dataclass(frozen=True, slots=True)
class DrainCause:
    """
    What one trigger said: who spoke, why, when, and the deadline it brings.

    All times are seconds on the event loop's monotonic clock.

    Attributes:
        trigger: Name of the trigger, such as ``"target-health"``.
        reason: One sentence for people.
        at: When the trigger noticed.
        deadline: When the last session must be gone; ``None`` leaves it to the drain's own window.
        revocable: Whether the drain may still be cancelled. ``False`` once the process was told to stop.
        follows: Whether it only brings its deadline to a drain that another trigger wants, and wants none by itself.
        by_hand: Whether it is a command: a cancel drops it, where it mutes what a trigger sees.
        taken_out: Whether it shows that the balancer sends nothing new, so that a client that is refused finds another
            task. While no such claim stands, late arrivals are let in where ``late_arrivals`` is ``"auto"``.
        lag: Upper bound, in seconds, of how long the cause had existed before it was noticed.
    """

    trigger: str
    reason: str
    at: float
    deadline: float | None = None
    revocable: bool = True
    lag: float = 0.0
    follows: bool = False
    by_hand: bool = False
    taken_out: bool = False
