"""The sums behind a deployment: exact, and pure."""

import math
from dataclasses import dataclass, replace

from starlette_drain._core.deadline import fitting_window
from starlette_drain.aws.api.budget import fleet_interval
from starlette_drain.tools.plan.allowance import DELAY, Allowance
from starlette_drain.tools.plan.deployment import Deployment

__all__ = ["Fleet"]

TOLERANCE = 1e-9
"""Seconds that two sums of the same numbers may differ by."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """
    A service, and what a deployment makes of its sessions.

    Attributes:
        deployment: How its tasks are replaced.
        sessions: On each task.
        delay: Seconds that a task has to leave, such as the deregistration delay.
        margin: As the option.
        poll_interval: As the option.
        poll_share: As the option.
        groups: Target groups that each task polls.
        window: As the option.
        noticed: Seconds after which it is known that the time has begun, where it is not the polls of the target's
            health that tell.
        allowance: What gives the time, which is the deregistration delay as a rule.
    """

    deployment: Deployment
    sessions: int
    delay: float = 300.0
    margin: float = 15.0
    poll_interval: float = 5.0
    poll_share: float = 0.2
    groups: int = 1
    window: float | None = None
    noticed: float | None = None
    allowance: Allowance = DELAY

    @property
    def lag(self) -> float:
        """Seconds after which a deregistration is noticed, at the latest."""
        return self.poll_lag if self.noticed is None else self.noticed

    @property
    def poll_lag(self) -> float:
        """Seconds between two looks at the target's health while a deployment goes on."""
        return fleet_interval(self.poll_interval, self.deployment.targets, self.groups, self.poll_share)

    @property
    def room(self) -> float:
        """Seconds over which the sheds could spread if no window were set."""
        return fitting_window(self.delay, self.lag, self.margin)

    @property
    def fits(self) -> float:
        """Seconds over which the sheds may spread."""
        return self.room if self.window is None else min(self.room, self.window)

    @property
    def heaviest(self) -> float:
        """
        Sessions that drain at once, in the batch that has most.

        Clients that come back while old tasks are left land on those too, and are shed again with them: each batch
        finds more than the one before, by a part of ``at_once / healthy``.
        """
        plan, each, most, left = self.deployment, float(self.sessions), 0.0, self.deployment.tasks
        for _ in range(plan.batches):
            most = max(most, each * min(left, plan.at_once))
            left -= plan.at_once
            each *= 1 + plan.at_once / max(1, plan.healthy)
        return most

    @property
    def rate(self) -> float:
        """Reconnects per second over the whole fleet, at an even pace; infinite where there is no time."""
        if not self.heaviest:
            return 0.0
        return self.heaviest / self.fits if self.fits > 0 else math.inf

    def delay_for(self, rate: float) -> int:
        """Return the delay, in whole seconds (or steps of its setting), with which no more than *rate* come back."""
        # A delay shorter than twice the margin gives half of itself: see aws/deadline.py.
        needed = self._spread(rate) + self.lag
        step = self.allowance.step
        return int(step * math.ceil(min(needed + self.margin, 2 * needed) / step - TOLERANCE))

    def at(self, at_once: int) -> "Fleet":
        """Return the same service with percentages at which *at_once* drain at a time."""
        return replace(self, deployment=self.deployment.at(at_once))

    def remedies(self, rate: float) -> list[str]:
        """Return what to set so that no more than *rate* come back a second: any one of them will do."""
        time = self._time_for(rate)
        found = [f"set {time}"] if time else []
        slower = [] if self.deployment.whole_fleet else [self.at(each) for each in range(1, self.deployment.at_once)]
        slower = [each for each in slower if each.deployment.at_once < self.deployment.at_once]
        fitting = [each for each in slower if each.rate <= rate]
        if fitting:
            found.append(f"set {self._percentages(fitting[-1])}")
        elif slower:
            quickest = min(slower, key=lambda each: each.delay_for(rate))
            if time := quickest._time_for(rate):
                found.append(f"set {self._percentages(quickest)}, and {time}")
        return found or [f"run more tasks with fewer sessions each: {self.allowance.setting} can be no longer"]

    def _spread(self, rate: float) -> float:
        """Return the seconds over which the sheds must spread; whole ones where a window has to be set to them."""
        spread = self.heaviest / rate
        return spread if self.window is None or self.window >= spread else math.ceil(spread - TOLERANCE)

    def _time_for(self, rate: float) -> str:
        """Return what to set so that there is time enough; nothing where no time is, or none is needed."""
        spread, found = self._spread(rate), []
        if self.room < spread - TOLERANCE:
            delay = self.delay_for(rate)
            if delay > self.allowance.longest:
                return ""
            found.append(self.allowance.setting_to(delay))
        if self.window is not None and self.window < spread:
            found.append(f"the window to {spread:,.0f} s")
        return " and ".join(found)

    def _percentages(self, slower: "Fleet") -> str:
        then = slower.deployment
        what = "one task drains" if then.at_once == 1 else f"{then.at_once} tasks drain"
        return f"{self.deployment.changes_to(then)} so that {what} at a time"
