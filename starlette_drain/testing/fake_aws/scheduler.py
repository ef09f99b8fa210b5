# How ECS replaces the tasks of a service, for FakeAWS, `starlette-drain plan` and `doctor`, and the rollout lab.
#
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html: at most
# floor(desired x maximumPercent / 100) tasks are RUNNING or PENDING, and at least
# ceil(desired x minimumHealthyPercent / 100) are RUNNING and healthy. A task that is deregistered becomes DEACTIVATING,
# and counts for neither. So the next new tasks start while old ones drain, and the next old ones are stopped as soon as
# those are healthy, not when the earlier ones have gone: the batches of a rolling deployment are one start-up time
# apart, and overlap if the delay is longer than that.
#
# Blue/green, linear and canary deployments deregister the whole old fleet together, at their end.
#
# With early success criteria and deferred clean-up, a deployment is complete when its new tasks are healthy, and the
# next one may begin while the old tasks of the first drain: three generations at once.
"""How ECS replaces the tasks of a service. Pure."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

__all__ = ["Cohort", "Limits", "Step", "roll", "swap"]


@dataclass(frozen=True, slots=True)
class Step:
    """What the scheduler does at one moment: how many old tasks it stops, and how many new ones it starts."""

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
        Return what the scheduler does now.

        Args:
            desired: The desired count.
            old: The number of old tasks that are RUNNING and healthy.
            new: The number of new tasks that are RUNNING and healthy.
            starting: The number of new tasks that are not healthy yet.
        """
        stop = max(0, min(old, old + new - self.least(desired)))
        start = min(desired - new - starting, self.most(desired) - (old - stop) - new - starting)
        return Step(stop, max(0, start))

    def check(self, desired: int) -> None:
        """
        Check that a deployment of *desired* tasks can be completed.

        Raises:
            ValueError: If it cannot; ECS would wait for ever.
        """
        both = f"a minimum of {self.minimum_healthy_percent} % and a maximum of {self.maximum_percent} %"
        if not 0 <= self.minimum_healthy_percent <= 100 <= self.maximum_percent:
            msg = f"{both} are not valid: use a minimum from 0 to 100, and a maximum of at least 100"
            raise ValueError(msg)
        if self.step(desired, old=desired, new=0) == Step(0, 0):
            msg = f"{both} let none of {desired} tasks start and none stop: raise the maximum or lower the minimum"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Cohort:
    """
    Tasks that begin and stop serving together.

    Attributes:
        tasks: Their number.
        serves_from: When they become healthy; minus infinity for those that were there before.
        leaves_at: When they are deregistered; infinity for those that stay.
    """

    tasks: int
    serves_from: float = -math.inf
    leaves_at: float = math.inf


def roll(fleet: Sequence[Cohort], limits: Limits, *, start_up: float, begin: float = 0.0) -> list[Cohort]:
    """
    Return *fleet* after a rolling deployment: the tasks that serve have left, and as many new ones have come.

    Args:
        fleet: All cohorts so far. Those that stay are replaced; all of them serve when the deployment begins.
        limits: The percentages.
        start_up: Seconds from the start of a task until it is healthy.
        begin: When the deployment begins.

    Raises:
        ValueError: If the deployment cannot be completed within the limits.
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
    """Return *fleet* after the end of a blue/green, linear or canary deployment: all old tasks leave together."""
    desired = sum(each.tasks for each in fleet if math.isinf(each.leaves_at))
    gone = [replace(each, leaves_at=begin) if math.isinf(each.leaves_at) else each for each in fleet]
    return [*gone, Cohort(desired, begin)]


def _taken(waiting: list[Cohort], count: int, now: float) -> Iterator[Cohort]:
    """Remove *count* tasks from the front of *waiting*, and yield them as leaving now."""
    while count:
        first = waiting[0]
        going = min(count, first.tasks)
        yield replace(first, tasks=going, leaves_at=now)
        waiting[:1] = [replace(first, tasks=first.tasks - going)] if first.tasks > going else []
        count -= going
