# One budget for a fleet whose tasks do not talk to one another.
#
# Every answer about the target group says how many tasks drain (D) and how many could take their clients in (H). So
# each draining task sheds at its part R / D of the budget R, and takes a new part with every answer. Why the sum stays
# within R although no two tasks ask at the same moment, and the number rises meanwhile: a task that has just begun to
# drain sheds nothing before its next question, and learns then how many there are. At a time t those who asked at u
# and drained then shed at R / D(u) each; with the questions spread evenly over an interval there are
# D(u) du / interval of them, and the sum over u is R. When D falls, the parts are older and smaller than need be.
#
# Where nobody else is healthy the shed would come back to a wall. So the task waits for as long as its part of the
# budget will still do for the rest: from the moment at which it just does, it sheds.
"""A pace that shares one budget among all tasks of a fleet that drain at once."""

import math
from dataclasses import dataclass

from starlette_drain.exceptions import SettingsError

__all__ = ["FleetPacing"]

A_LITTLE = 1e-6
"""By what part a rate may be rounded wrong."""


@dataclass(frozen=True, slots=True)
class FleetPacing:
    """
    A task's equal part of *limit* reconnects per second; none while no other target is healthy.

    The deadline always wins: where the part cannot meet it the rest is spread evenly over the time left, and
    ``describe`` says so.

    Args:
        limit: Reconnects per second that the whole service can take.
        draining: Tasks that drain now, this one included.
        healthy: Targets that could take the clients in; ``None`` where nobody has told.
    """

    limit: float
    draining: int = 1
    healthy: int | None = None
    interval = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise SettingsError("limit", self.limit, "give reconnects per second, such as 500")

    @property
    def part(self) -> float:
        """Sessions per second that this task may shed."""
        return self.limit / max(1, self.draining)

    def rate(self, remaining: float, time_left: float) -> float:
        """Return the part, what the deadline needs where that is more, or nothing while nobody else is healthy."""
        if self.stance(remaining, time_left) == "paused":
            return 0.0
        return max(self.part, remaining / time_left)

    def stance(self, remaining: float, time_left: float) -> str:
        """Return ``paused``, ``gives way`` or ``within budget``."""
        needed = remaining / time_left
        if self.healthy == 0 and needed < self.part * (1 - A_LITTLE):
            return "paused"
        return "gives way" if needed > self.part * (1 + A_LITTLE) else "within budget"

    def describe(self, remaining: float, time_left: float) -> str:
        """Name the part, what the deadline makes of it, or for how long the pause may last."""
        share = (
            f"{self.part:.3g}/s, this task's part of the fleet's {self.limit:g}/s while {max(1, self.draining)} drain"
        )
        match self.stance(remaining, time_left):
            case "paused":
                longest = time_left - remaining / self.part
                return f"paused, for {longest:.0f} s at the most: no other target is healthy; then {share}"
            case "gives way":
                return f"{remaining / time_left:.3g} sessions/s: {share}, gives way to the deadline"
        return f"at most {share}"
