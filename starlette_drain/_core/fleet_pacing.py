# One budget for a fleet whose tasks do not talk to one another.
#
# Every answer about the target group says how many tasks drain (D) and how many can take their clients (H). So each
# draining task sheds at its part of the budget, and computes a new part after every answer. Tasks poll at different
# times: while D rises, those that polled early would use parts that are too large, and the sum would exceed the budget
# until they poll again. So D alone is not enough:
#
#   - A deployment at 100/200 or 50/100 (minimum and maximum healthy percent) takes out half of the running tasks, so
#     (D + H) / 2 may drain, if that is more. This does not depend on when a task polls: D rises as H falls, so the
#     parts are always equal.
#   - A task that is not among the D, because something other than the balancer told it to leave (an event, the bake
#     time of a deployment, a manual command), cannot know which others were told so too. D + H may drain.
#
# A part that is too small costs time. If there is not enough time, the deadline wins.
#
# While no other target is healthy, clients that are shed have nowhere to go. So the task waits for as long as its part
# of the budget still suffices for all of its sessions.
"""A pacing that shares one budget among all tasks of a fleet that drain at once."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from starlette_drain._core.declared import is_number
from starlette_drain.exceptions import SettingsError

__all__ = ["FleetPacing", "FleetView"]

ROUNDING = 1e-6
"""The relative error that rounding may cause in a rate."""


class FleetView(NamedTuple):
    """
    The targets of a service, as one answer counts them.

    Attributes:
        draining: Targets that are being deregistered.
        healthy: Targets that accept new connections.
        counted: Whether this task is among the draining ones.
    """

    draining: int
    healthy: int
    counted: bool = True

    @property
    def to_follow(self) -> int:
        """How many more tasks may drain soon, or drain already without being counted."""
        if not self.counted:
            return self.healthy
        return max(0, math.ceil((self.draining + self.healthy) / 2) - self.draining)


@dataclass(frozen=True, slots=True)
class FleetPacing:
    """
    This task's equal part of *limit* reconnects per second; 0 while no other target is healthy.

    The deadline always wins: if the part is too small to meet it, the remaining sessions are spread evenly over the
    time left, and ``describe`` says so.

    Args:
        limit: Reconnects per second that the whole service can take.
        draining: The number of draining tasks.
        healthy: The number of targets that can take the clients; ``None`` if unknown.
        to_follow: The number of further tasks that may drain.

    Raises:
        SettingsError: If *limit* is not a number above 0.
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
        """Return the part, or the rate that the deadline needs if that is higher; 0 while paused."""
        if self.stance(remaining, time_left) == "paused":
            return 0.0
        return max(self.part, remaining / time_left)

    def stance(self, remaining: float, time_left: float) -> str:
        """Return ``paused``, ``gives way`` or ``within budget``."""
        needed = remaining / time_left
        if self.healthy == 0 and needed < self.part * (1 - ROUNDING):
            return "paused"
        return "gives way" if needed > self.part * (1 + ROUNDING) else "within budget"

    def describe(self, remaining: float, time_left: float) -> str:
        """Return the part, and how the deadline changes it or how long the pause may last, in words."""
        share = f"{self.part:.3g}/s, this task's part of the fleet's {self.limit:g}/s while {self._who()}"
        match self.stance(remaining, time_left):
            case "paused":
                longest = time_left - remaining / self.part
                return f"paused, for at most {longest:.0f} s: no other target is healthy; then {share}"
            case "gives way":
                return f"{remaining / time_left:.3g} sessions/s: {share}, gives way to the deadline"
        return f"at most {share}"

    def _who(self) -> str:
        if not self.to_follow:
            return f"{max(1, self.draining)} drain"
        if not self.draining:
            return f"{self.to_follow} may drain"
        return f"{self.draining} drain and {self.to_follow} more may"
