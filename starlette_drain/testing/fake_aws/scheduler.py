# How ECS replaces the tasks of a service, as FakeAWS, `starlette-drain plan` and `doctor`, and the rollout lab play it.
#
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html: at most
# floor(desired x maximumPercent / 100) tasks are RUNNING or PENDING, and at least
# ceil(desired x minimumHealthyPercent / 100) are RUNNING and healthy. A task that is taken out is DEACTIVATING from
# then on, and counts for neither. So the next new tasks start while the old ones drain, and the next old ones go as
# soon as those are healthy, not when the former have gone: the batches of a rolling deployment are the start-up of a
# task apart, and with a delay that is longer than that they overlap.
#
# Blue/green, linear and canary deployments take the whole old fleet out together, at their end.
#
# With early success criteria whose clean-up is deferred, a deployment is complete when its new tasks are healthy, and
# the next may begin while the old tasks of the first one drain: three generations at once.
"""How ECS replaces the tasks of a service: pure."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

__all__ = ["Cohort", "Limits", "Step", "roll", "swap"]


@dataclass(frozen=True, slots=True)
class Step:
    """What the scheduler does at one moment: so many old tasks are taken out, so many new ones are started."""

    stop: int
    start: int


@dataclass(frozen=True, slots=True)
class Limits:
    """A service's ``minimumHealthyPercent`` and ``maximumPercent``."""

    minimum_healthy_percent: int = 100
    maximum_percent: int = 200

    def least(self, desired: int) -> int:
        """Return how many tasks must be healthy; AWS rounds up."""
        return -(-desired * self.minimum_healthy_percent // 100)

    def most(self, desired: int) -> int:
        """Return how many tasks may be RUNNING or PENDING; AWS rounds down."""
        return desired * self.maximum_percent // 100

    def step(self, desired: int, *, old: int, new: int, starting: int = 0) -> Step:
        """
        Return what happens now.

        Args:
            desired: The desired count.
            old: Old tasks that are RUNNING and healthy.
            new: New tasks that are.
            starting: New tasks that are not yet.
        """
        stop = max(0, min(old, old + new - self.least(desired)))
        start = min(desired - new - starting, self.most(desired) - (old - stop) - new - starting)
        return Step(stop, max(0, start))

    def check(self, desired: int) -> None:
        """
        See to it that a deployment of so many tasks can come to its end.

        Raises:
            ValueError: If nothing could happen, or not everything; ECS would wait for ever.
        """
        both = f"a minimum of {self.minimum_healthy_percent} % and a maximum of {self.maximum_percent} %"
        if not 0 <= self.minimum_healthy_percent <= 100 <= self.maximum_percent:
            msg = f"{both} are no limits: take a minimum from 0 to 100, and a maximum of at least 100"
            raise ValueError(msg)
        if self.step(desired, old=desired, new=0) == Step(0, 0):
            msg = f"{both} let none of {desired} tasks start and none stop: raise the maximum or lower the minimum"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Cohort:
    """
    Tasks that begin and cease to serve together.

    Attributes:
        tasks: How many.
        serves_from: When they are healthy; minus infinity for those that were there before.
        leaves_at: When they are deregistered; infinity for those that stay.
    """

    tasks: int
    serves_from: float = -math.inf
    leaves_at: float = math.inf


def roll(fleet: Sequence[Cohort], limits: Limits, *, start_up: float, begin: float = 0.0) -> list[Cohort]:
    """
    Return what a rolling deployment makes of *fleet*: those that serve leave, and as many new ones come.

    Args:
        fleet: All cohorts so far; those that stay are replaced, and all of them serve by then.
        limits: The percentages.
        start_up: Seconds from the start of a task until it is healthy.
        begin: When the deployment begins.

    Raises:
        ValueError: If the limits let nothing happen.
    """
    waiting = [each for each in fleet if math.isinf(each.leaves_at)]
    found = [each for each in fleet if not math.isinf(each.leaves_at)]
    desired = old = sum(each.tasks for each in waiting)
    limits.check(desired)
    starting: list[tuple[float, int]] = []
    now, new = begin, 0
    while old or starting:
        step = limits.step(desired, old=old, new=new, starting=sum(count for _, count in starting))
        if step.stop:
            found += _taken(waiting, step.stop, now)
            old -= step.stop
        if step.start:
            heapq.heappush(starting, (now + start_up, step.start))
        if starting:
            now, count = heapq.heappop(starting)
            found.append(Cohort(count, now))
            new += count
    return found


def swap(fleet: Sequence[Cohort], *, begin: float = 0.0) -> list[Cohort]:
    """Return what the end of a blue/green, linear or canary deployment makes of *fleet*: all old ones go together."""
    desired = sum(each.tasks for each in fleet if math.isinf(each.leaves_at))
    gone = [replace(each, leaves_at=begin) if math.isinf(each.leaves_at) else each for each in fleet]
    return [*gone, Cohort(desired, begin)]


def _taken(waiting: list[Cohort], count: int, now: float) -> Iterator[Cohort]:
    """Take *count* tasks from the front of *waiting*, which leave now."""
    while count:
        first = waiting[0]
        going = min(count, first.tasks)
        yield replace(first, tasks=going, leaves_at=now)
        waiting[:1] = [replace(first, tasks=first.tasks - going)] if first.tasks > going else []
        count -= going
