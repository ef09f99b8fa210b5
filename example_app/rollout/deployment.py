# ECS's order, from https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html and
# https://docs.aws.amazon.com/AmazonECS/latest/bestpracticesguide/load-balancer-connection-draining.html. How many tasks
# start and stop is the scheduler's, in starlette_drain/testing/fake_aws/scheduler.py. To retire a task is to
#
#     deregister its target                                    the balancer sends it nothing new from here on
#     wait for the deregistration delay
#     SIGTERM                                                  8 s later (seen once) the balancer cuts what is left
#     wait for stopTimeout
#     SIGKILL
#
# `in_turn` waits for each batch to end before the next begins, as an operator does who deploys by hand.
"""A rolling deployment in exactly ECS's order; what really happens is done by the hands it is given."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from example_app.rollout.events import Events
from example_app.rollout.times import Times
from starlette_drain.testing.fake_aws import scheduler

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
class Limits(scheduler.Limits):
    """A service's deployment configuration; *in_turn* is the patience of somebody who deploys by hand."""

    in_turn: bool = False


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
        while waiting or len(new) < desired:
            step = limits.step(desired, old=len(waiting), new=len(new))
            going, waiting = waiting[: step.stop], waiting[step.stop :]
            for task in going:
                await _take_out(task, hands, events)
            batch = [retiring.create_task(_stop(task, hands, times, events)) for task in going]
            if limits.in_turn and batch:
                await asyncio.wait(batch)
            new += await asyncio.gather(*(_bring_up(hands, events) for _ in range(step.start)))
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
