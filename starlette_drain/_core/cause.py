"""Why a drain is wanted, and by when it must be over."""

from dataclasses import dataclass

__all__ = ["DrainCause"]


@dataclass(frozen=True, slots=True)
class DrainCause:
    """
    The claim of one trigger: why a drain is wanted, since when, and by which deadline.

    All times are in seconds on the event loop's monotonic clock.

    Attributes:
        trigger: Name of the trigger, such as ``"target-health"``.
        reason: One sentence.
        at: When the trigger noticed the cause.
        deadline: When the last session must be gone; ``None`` leaves it to the option ``window``.
        revocable: Whether the drain can still be cancelled; ``False`` once the process has been told to stop.
        lag: Upper bound, in seconds, of how long the cause had existed before it was noticed.
        follows: Whether the claim only adds its deadline to a drain that another trigger wants.
        by_hand: Whether it is a manual command. A cancel drops commands and mutes other claims.
        taken_out: Whether the balancer sends nothing new here, so that a refused client reaches another task. Without
            such a claim ``late_arrivals="auto"`` accepts late arrivals.
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
