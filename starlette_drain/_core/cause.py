"""Why a drain began, and by when it must have ended."""

from dataclasses import dataclass

__all__ = ["DrainCause"]


@dataclass(frozen=True, slots=True)
class DrainCause:
    """
    What one trigger wants: which trigger, why, since when, and by which deadline.

    All times are seconds on the event loop's monotonic clock.

    Attributes:
        trigger: Name of the trigger, such as ``"target-health"``.
        reason: One sentence.
        at: When the trigger noticed.
        deadline: When the last session must be gone; with ``None`` the drain's own window decides.
        revocable: Whether the drain can still be cancelled; ``False`` after the process was told to stop.
        follows: Whether it only adds its deadline to a drain that another trigger wants.
        by_hand: Whether it is a command. A cancel drops a command, and mutes other claims.
        taken_out: Whether the balancer sends nothing new here, so that a refused client finds another task. Without
            such a claim ``late_arrivals="auto"`` lets late arrivals in.
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
