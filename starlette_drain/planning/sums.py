# How many tasks drain at once?
#
# ECS keeps at least ceil(desired x minimumHealthyPercent / 100) tasks running and at most
# floor(desired x maximumPercent / 100):
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html. So it can be ahead by the
# difference of the two: as many old tasks as that are taken out together. At 100/200 these are all of them. Where the
# difference is 0 the deployment cannot begin at all. Blue/green, linear and canary deployments take the whole old fleet
# out together at their end.
"""The sums behind a deployment: exact, and pure."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from starlette_drain.aws.deadline import fitting_window
from starlette_drain.aws.polling import fleet_interval

__all__ = ["LONGEST_DELAY", "Deployment", "Fleet", "smallest_percent"]

LONGEST_DELAY = 3600.0
"""Seconds: no deregistration delay is longer."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """
    How ECS replaces the tasks of a service.

    Attributes:
        tasks: The desired count.
        min_percent: ``minimumHealthyPercent``.
        max_percent: ``maximumPercent``.
        whole_fleet: Whether all old tasks go together whatever the percentages say.
    """

    tasks: int
    min_percent: int = 100
    max_percent: int = 200
    whole_fleet: bool = False

    @property
    def at_once(self) -> int:
        """How many old tasks may drain at the same time; 0 if the deployment cannot begin."""
        if self.whole_fleet:
            return self.tasks
        most, least = self.tasks * self.max_percent // 100, -(-self.tasks * self.min_percent // 100)
        return max(0, min(self.tasks, most - least))

    @property
    def batches(self) -> int:
        """How many times that happens, one after another."""
        return math.ceil(self.tasks / self.at_once) if self.at_once else 0

    @property
    def targets(self) -> int:
        """How many targets are listed at the most, old ones that drain included."""
        most = 2 * self.tasks if self.whole_fleet else self.tasks * self.max_percent // 100
        return max(self.tasks, most)


def smallest_percent(tasks: int, min_percent: int, at_once: int) -> int:
    """Return the smallest ``maximumPercent`` with which *at_once* of *tasks* may drain at the same time."""
    return math.ceil(Fraction(100 * (at_once - (-tasks * min_percent // 100)), tasks))


@dataclass(frozen=True, slots=True)
class Fleet:
    """
    A service, and what a deployment makes of its sessions.

    Attributes:
        deployment: How its tasks are replaced.
        sessions: On each task.
        delay: Deregistration delay in seconds.
        margin: As the option.
        poll_interval: As the option.
        poll_share: As the option.
        groups: Target groups that each task polls.
        window: As the option.
    """

    deployment: Deployment
    sessions: int
    delay: float = 300.0
    margin: float = 15.0
    poll_interval: float = 5.0
    poll_share: float = 0.2
    groups: int = 1
    window: float | None = None

    @property
    def lag(self) -> float:
        """Seconds after which a deregistration is noticed, at the latest."""
        return fleet_interval(self.poll_interval, self.deployment.targets, self.groups, self.poll_share)

    @property
    def fits(self) -> float:
        """Seconds over which the sheds may spread."""
        fits = fitting_window(self.delay, self.lag, self.margin)
        return fits if self.window is None else min(fits, self.window)

    @property
    def heaviest(self) -> float:
        """
        Sessions that drain at once, in the batch that has most.

        Clients that come back while old tasks are left land on those too, and are shed again with them: each batch
        finds more than the one before, by a part of ``at_once / tasks``.
        """
        plan, each, most, left = self.deployment, float(self.sessions), 0.0, self.deployment.tasks
        for _ in range(plan.batches):
            most = max(most, each * min(left, plan.at_once))
            left -= plan.at_once
            each *= 1 + plan.at_once / plan.tasks
        return most

    @property
    def rate(self) -> float:
        """Reconnects per second over the whole fleet, at an even pace; infinite where there is no time."""
        if not self.heaviest:
            return 0.0
        return self.heaviest / self.fits if self.fits > 0 else math.inf

    def delay_for(self, rate: float) -> int:
        """Return the deregistration delay, in whole seconds, with which no more than *rate* come back a second."""
        spread = self.heaviest / rate
        # A delay shorter than twice the margin gives half of itself: see aws/deadline.py.
        return math.ceil(min(spread + self.lag + self.margin, 2 * (spread + self.lag)) - 1e-9)

    def at(self, at_once: int) -> "Fleet":
        """Return the same service with a ``maximumPercent`` at which *at_once* drain at a time."""
        plan = self.deployment
        percent = smallest_percent(plan.tasks, plan.min_percent, at_once)
        return replace(self, deployment=replace(plan, max_percent=percent))

    def remedies(self, rate: float) -> list[str]:
        """Return what to set so that no more than *rate* come back a second: any one of them will do."""
        found = []
        if self.window is None and (delay := self.delay_for(rate)) <= LONGEST_DELAY:
            found.append(f"set the deregistration delay to {delay:,} s")
        slower = [] if self.deployment.whole_fleet else [self.at(each) for each in range(1, self.deployment.at_once)]
        fitting = [each for each in slower if each.rate <= rate]
        if fitting:
            found.append(_in_words(fitting[-1]))
        elif self.window is None and slower:
            delay, least = min((each.delay_for(rate), number) for number, each in enumerate(slower))
            if self.delay < delay <= LONGEST_DELAY:
                found.append(f"{_in_words(slower[least])}, with a deregistration delay of {delay:,} s")
        return found or ["run more tasks with fewer sessions each: no deregistration delay is long enough"]


def _in_words(fleet: Fleet) -> str:
    plan = fleet.deployment
    what = "one task drains" if plan.at_once == 1 else f"{plan.at_once} tasks drain"
    return f"set maximumPercent to {plan.max_percent} so that {what} at a time"
