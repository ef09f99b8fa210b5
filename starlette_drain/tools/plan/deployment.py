"""Which tasks leave together in a deployment, and when. Pure."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate

from starlette_drain.testing.fake_aws.scheduler import Cohort, Limits, Step, roll, swap

__all__ = ["START_UP", "START_UPS", "Deployment", "smallest_percent", "starting_in"]

START_UP = 30.0
"""Seconds from the start of a task until it is healthy; fast for Fargate."""

START_UPS = (5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0)
"""The start-up times that are tried if none is given."""


@dataclass(frozen=True)
class Deployment:
    """
    How ECS replaces the tasks of a service.

    Attributes:
        tasks: The desired count.
        min_percent: ``minimumHealthyPercent``.
        max_percent: ``maximumPercent``.
        whole_fleet: Whether all old tasks leave together, whatever the percentages are.
        start_up: Seconds from the start of a task until it is healthy.
        next_after: Seconds from the moment when the new tasks are healthy until a second deployment begins; ``None`` if
            there is none.
    """

    tasks: int
    min_percent: int = 100
    max_percent: int = 200
    whole_fleet: bool = False
    start_up: float = START_UP
    next_after: float | None = None

    @property
    def limits(self) -> Limits:
        """The percentages."""
        return Limits(self.min_percent, self.max_percent)

    @property
    def can_begin(self) -> bool:
        """Whether the percentages let a task start or stop."""
        first = self.limits.step(self.tasks, old=self.tasks, new=0)
        return self.whole_fleet or (0 <= self.min_percent <= 100 <= self.max_percent and first != Step(0, 0))

    @cached_property
    def cohorts(self) -> tuple[Cohort, ...]:
        """All tasks, with times from the first deregistration; empty if the deployment cannot begin."""
        if not self.can_begin:
            return ()
        fleet = self._replaced([Cohort(self.tasks)], 0.0)
        if self.next_after is not None:
            fleet = self._replaced(fleet, max(each.serves_from for each in fleet) + self.next_after)
        zero = min(each.leaves_at for each in fleet)
        return tuple(Cohort(each.tasks, each.serves_from - zero, each.leaves_at - zero) for each in fleet)

    @cached_property
    def leaving(self) -> tuple[Cohort, ...]:
        """The tasks that leave, in their order."""
        gone = [each for each in self.cohorts if each.leaves_at < math.inf]
        return tuple(sorted(gone, key=lambda each: each.leaves_at))

    @property
    def seconds(self) -> float:
        """Seconds from the start of the first new task until the last old one is deregistered."""
        first = min((each.serves_from for each in self.cohorts if each.serves_from >= 0), default=0.0)
        last = max((each.leaves_at for each in self.leaving), default=0.0)
        return self.start_up - first + last

    @property
    def batches(self) -> int:
        """The number of moments at which tasks are deregistered."""
        return len({each.leaves_at for each in self.leaving})

    @property
    def at_once(self) -> int:
        """The most tasks that are deregistered at one moment."""
        return self.draining(0.0)

    @property
    def always_serves(self) -> bool:
        """Whether there is a healthy task at every moment."""
        return all(self._came.until(each.leaves_at) > self._went.until(each.leaves_at) for each in self.leaving)

    def draining(self, seconds: float) -> int:
        """Return the most tasks that drain at the same time, if each takes *seconds*."""
        went = self._went
        return max((went.until(now) - went.before(now - seconds) for now in went.moments), default=0)

    def listed(self, delay: float) -> int:
        """Return the most targets that are listed, including those that drain for the *delay*."""
        if not self.cohorts:
            return self.tasks
        moments = [0.0, *self._came.moments]
        return max(self._came.until(now) - self._went.until(now - delay) for now in moments)

    def at(self, at_once: int) -> "Deployment":
        """Return a copy with percentages at which *at_once* tasks leave together, and enough serve."""
        return replace(self, min_percent=100, max_percent=smallest_percent(self.tasks, at_once))

    def beginnings(self) -> list[str]:
        """Return the percentages with which a deployment can begin, and a healthy task serves at every moment."""
        one_less = 100 * (self.tasks - 1) // self.tasks
        tried = (
            replace(self, min_percent=100),
            replace(self, max_percent=smallest_percent(self.tasks, 1)),
            replace(self, min_percent=one_less),
            replace(self, min_percent=100, max_percent=200),
        )
        working = [each for each in tried if each.can_begin and each.always_serves]
        simplest = [each for each in working if (each.min_percent, each.max_percent) != (100, 200)] or working
        return [*dict.fromkeys(f"set {self.changes_to(each)}" for each in simplest)]

    def changes_to(self, other: "Deployment") -> str:
        """Return the changes of percentages from this deployment to *other*."""
        found = []
        if other.min_percent != self.min_percent:
            found.append(f"minimumHealthyPercent to {other.min_percent}")
        if other.max_percent != self.max_percent:
            found.append(f"maximumPercent to {other.max_percent}")
        return " and ".join(found)

    def _replaced(self, fleet: list[Cohort], begin: float) -> list[Cohort]:
        if self.whole_fleet:
            return swap(fleet, begin=begin)
        return roll(fleet, self.limits, start_up=self.start_up, begin=begin)

    @cached_property
    def _came(self) -> "_Count":
        return _Count((each.serves_from, each.tasks) for each in self.cohorts)

    @cached_property
    def _went(self) -> "_Count":
        return _Count((each.leaves_at, each.tasks) for each in self.leaving)


class _Count:
    """Counts up to a moment, from pairs of a moment and a number."""

    def __init__(self, found: Iterable[tuple[float, int]]) -> None:
        pairs = sorted(found)
        self.moments = [at for at, _ in pairs]
        self._sums = [0, *accumulate(count for _, count in pairs)]

    def until(self, now: float) -> int:
        return self._sums[bisect_right(self.moments, now)]

    def before(self, now: float) -> int:
        return self._sums[bisect_left(self.moments, now)]


@lru_cache(maxsize=512)
def starting_in(plan: Deployment, start_up: float) -> Deployment:
    """Return a copy with another start-up time; cached, so that its cohorts are computed once."""
    return replace(plan, start_up=start_up)


def smallest_percent(tasks: int, at_once: int) -> int:
    """Return the smallest ``maximumPercent`` with which *at_once* new tasks may start beside *tasks*."""
    return -(-100 * (tasks + at_once) // tasks)
