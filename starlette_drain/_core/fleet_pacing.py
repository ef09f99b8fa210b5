# One budget for a fleet whose tasks do not talk to one another.
#
# Every answer about the target group says how many tasks drain (D) and how many could take their clients in (H). So
# each draining task sheds at its part of the budget, and takes a new part with every answer. No two tasks ask at the
# same moment: while the number that drain rises, those who asked early would go on with parts that are too large, and
# the sum would exceed the budget until they have asked again. So D is not taken for the last word:
#
#   - A deployment at 100/200 or 50/100 takes out half of those that live, so (D + H) / 2 may drain where that is more.
#     The first who asks knows it as well as the last: D goes up as H goes down, and the parts are equal all the time.
#   - A task that is not among the D itself, since something else than the balancer has told it to leave (an event, the
#     bake of a deployment, a command by hand), knows nothing of the others that were told so. D + H may drain.
#
# A part that is too small costs time, which is there: where it is not, the deadline wins.
#
# Where no other target is healthy, clients that are shed have nowhere to go. So the task waits for as long as its part
# of the budget will still do for the rest: from the moment at which it just does, it sheds.
"""A pace that shares one budget among all tasks of a fleet that drain at once."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from starlette_drain._core.declared import is_number
from starlette_drain.exceptions import SettingsError

__all__ = ["FleetPacing", "FleetView"]

A_LITTLE = 1e-6
"""By what part a rate may be rounded wrong."""


class FleetView(NamedTuple):
    """
    What one answer about the targets of a service says.

    Attributes:
        draining: Targets that are being deregistered.
        healthy: Targets that could take new connections in.
        counted: Whether this task is among those that drain.
    """

    draining: int
    healthy: int
    counted: bool = True

    @property
    def to_follow(self) -> int:
        """How many more may drain, or do so unseen."""
        if not self.counted:
            return self.healthy
        return max(0, math.ceil((self.draining + self.healthy) / 2) - self.draining)


@dataclass(frozen=True, slots=True)
class FleetPacing:
    """
    A task's equal part of *limit* reconnects per second; none while no other target is healthy.

    The deadline always wins: where the part cannot meet it the rest is spread evenly over the time left, and
    ``describe`` says so.

    Args:
        limit: Reconnects per second that the whole service can take.
        draining: Tasks that are seen to drain.
        healthy: Targets that could take the clients in; ``None`` where that is unknown.
        to_follow: Tasks that may drain besides.
    """

    limit: float
    draining: int = 1
    healthy: int | None = None
    to_follow: int = 0
    interval = 0.0

    def __post_init__(self) -> None:
        if not (is_number(self.limit) and self.limit > 0):
            raise SettingsError("limit", self.limit, "give reconnects per second, such as 500")

    @property
    def part(self) -> float:
        """Sessions per second that this task may shed."""
        return self.limit / max(1, self.draining + self.to_follow)

    def rate(self, remaining: float, time_left: float) -> float:
        """Return the part, what the deadline needs where that is more, or nothing while no other is healthy."""
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
        share = f"{self.part:.3g}/s, this task's part of the fleet's {self.limit:g}/s while {self._who()}"
        match self.stance(remaining, time_left):
            case "paused":
                longest = time_left - remaining / self.part
                return f"paused, for {longest:.0f} s at the most: no other target is healthy; then {share}"
            case "gives way":
                return f"{remaining / time_left:.3g} sessions/s: {share}, gives way to the deadline"
        return f"at most {share}"

    def _who(self) -> str:
        if not self.to_follow:
            return f"{max(1, self.draining)} drain"
        if not self.draining:
            return f"{self.to_follow} may drain"
        return f"{self.draining} drain and {self.to_follow} more may"
