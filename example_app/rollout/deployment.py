# ECS's order, from https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html and
# https://docs.aws.amazon.com/AmazonECS/latest/bestpracticesguide/load-balancer-connection-draining.html:
#
#   while there are old tasks
#       start new ones, as many as maximumPercent allows         (PENDING and RUNNING tasks count)
#       register them, wait until they are healthy
#       retire old ones, as many as minimumHealthyPercent allows
#
#   to retire a task is to
#       deregister its target                                    the balancer sends it nothing new from here on
#       wait for the deregistration delay
#       SIGTERM                                                  8 s later the balancer cuts what is left
#       wait for stopTimeout
#       SIGKILL
#
# A task that is being retired is DEACTIVATING, no longer RUNNING, and does not count; so the next new tasks start while
# the old ones drain, and with percentages below 200 several batches drain at overlapping times. `in_turn` waits for
# each batch to end instead, as an operator does who deploys by hand.
"""A rolling deployment in exactly ECS's order; what really happens is done by the hands it is given."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from example_app.rollout.events import Events
from example_app.rollout.times import Times

__all__ = ["Hands", "Limits", "deploy"]


class Named(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Hands(Protocol[T]):
    """What a deployment needs done."""

    async def start(self) -> T:
        """Start a task and wait until it listens."""

    async def register(self, task: T) -> None:
        """Register its target and wait until it is healthy."""

    async def deregister(self, task: T) -> None:
        """Begin to take its target out."""

    def terminate(self, task: T) -> None:
        """Send SIGTERM."""

    async def cut(self, task: T) -> None:
        """Let the balancer close what is left."""

    async def exited(self, task: T, seconds: float) -> bool:
        """Wait for its end, at most so long; return whether it came."""

    async def kill(self, task: T) -> None:
        """Send SIGKILL."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A service's deployment configuration."""

    minimum_healthy_percent: int = 100
    maximum_percent: int = 200
    in_turn: bool = False

    def may_start(self, desired: int, running: int) -> int:
        """Return how many tasks may start where so many are RUNNING or PENDING; AWS rounds down."""
        return max(0, math.floor(desired * self.maximum_percent / 100) - running)

    def may_stop(self, desired: int, healthy: int) -> int:
        """Return how many tasks may go where so many are healthy; AWS rounds up."""
        return max(0, healthy - math.ceil(desired * self.minimum_healthy_percent / 100))

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
        if not self.may_start(desired, desired) and not self.may_stop(desired, desired):
            msg = f"{both} let none of {desired} tasks start and none stop: raise the maximum or lower the minimum"
            raise ValueError(msg)

    def all_at_once(self, desired: int) -> bool:
        """Tell whether all old tasks go in one moment, when as many new ones are there."""
        return self.may_start(desired, desired) >= desired and self.may_stop(desired, 2 * desired) >= desired


async def deploy(old: Sequence[T], hands: Hands[T], limits: Limits, times: Times, events: Events) -> list[T]:
    """
    Replace *old* by as many new tasks, and return those when the last of the old ones has ended.

    Raises:
        ValueError: If the limits let nothing happen at all.
    """
    limits.check(len(old))
    events.note("deployment began")
    desired, waiting = len(old), list(old)
    new: list[T] = []
    async with asyncio.TaskGroup() as retiring:
        while waiting:
            starting = min(desired - len(new), limits.may_start(desired, len(waiting) + len(new)))
            # Below 100 % some may go before their successors come.
            fresh = await asyncio.gather(*(_bring_up(hands, events) for _ in range(starting)))
            new += fresh
            stopping = min(len(waiting), limits.may_stop(desired, len(waiting) + len(new)))
            going, waiting = waiting[:stopping], waiting[stopping:]
            for task in going:
                await _take_out(task, hands, events)
            batch = [retiring.create_task(_stop(task, hands, times, events)) for task in going]
            if limits.in_turn and batch:
                await asyncio.wait(batch)
        while len(new) < desired:
            new.append(await _bring_up(hands, events))
    events.note("deployment ended")
    return new


async def _take_out(task: T, hands: Hands[T], events: Events) -> None:
    await hands.deregister(task)
    events.note("deregistered", task.name)


async def _stop(task: T, hands: Hands[T], times: Times, events: Events) -> None:
    await asyncio.sleep(times.delay)
    hands.terminate(task)
    events.note("SIGTERM", task.name)
    cutting = asyncio.create_task(_cut_later(task, hands, times, events))
    if not await hands.exited(task, times.stop_timeout):
        await hands.kill(task)
        events.note("SIGKILL", task.name)
    events.note("exited", task.name)
    await cutting


async def _cut_later(task: T, hands: Hands[T], times: Times, events: Events) -> None:
    await asyncio.sleep(times.cut)
    await hands.cut(task)
    events.note("cut", task.name)


async def _bring_up(hands: Hands[T], events: Events) -> T:
    task = await hands.start()
    events.note("started", task.name)
    await hands.register(task)
    events.note("healthy", task.name)
    return task
