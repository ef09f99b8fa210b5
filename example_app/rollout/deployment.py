# ECS's order, from https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-ecs.html and
# https://docs.aws.amazon.com/AmazonECS/latest/bestpracticesguide/load-balancer-connection-draining.html. How many tasks
# start and stop, and the stages of shifted traffic, are those of starlette_drain/testing/fake_aws/scheduler.py and
# strategy.py. To retire a task is to
#
#     deregister its target                                    the balancer sends it nothing new from here on
#     wait for the deregistration delay
#     SIGTERM                                                  8 s later (seen once) the balancer cuts what is left
#     wait for stopTimeout
#     SIGKILL
#
# `in_turn` waits for each batch to end before the next begins, as an operator does who deploys by hand. With
# `next_after` the deployment is complete when the new tasks are healthy, and the next one begins so much later.
"""A deployment in exactly ECS's order; what really happens is done by the hands it is given."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from example_app.rollout.events import Events
from example_app.rollout.times import Times
from starlette_drain.testing.fake_aws import scheduler
from starlette_drain.testing.fake_aws.strategy import PAUSED, STRATEGIES, Stage, Strategy

__all__ = ["Configuration", "Hands", "deploy"]


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

    async def begin_shift(self, strategy: Strategy) -> None:
        """Begin a deployment that shifts traffic."""

    async def enter(self, stage: Stage, old: Sequence[T]) -> None:
        """Let new connections follow the weights of the stage."""

    async def pause(self, old: Sequence[T], seconds: float) -> None:
        """Return when the PAUSE hook lets the deployment go on."""


@dataclass(frozen=True, slots=True)
class Configuration(scheduler.Limits):
    """
    A service's deployment configuration.

    Attributes:
        in_turn: Whether each batch ends before the next begins.
        strategy: How traffic goes to the new tasks.
        next_after: Seconds of ECS until the next deployment begins, from when the new tasks are healthy.
    """

    in_turn: bool = False
    strategy: Strategy = STRATEGIES["rolling"]
    next_after: float | None = None


async def deploy(
    old: Sequence[T], hands: Hands[T], configuration: Configuration, times: Times, events: Events
) -> list[T]:
    """
    Replace *old* by as many new tasks, and return those when the last of the old ones has ended.

    Raises:
        ValueError: If the limits let nothing happen at all.
    """
    if not configuration.strategy.is_shifting:
        configuration.check(len(old))
    async with asyncio.TaskGroup() as retiring:
        deployment = _Deployment(hands, configuration, times, events, retiring)
        new = await deployment.replace(old)
        if configuration.next_after is not None:
            await asyncio.sleep(configuration.next_after * times.scale)
            new = await deployment.replace(new)
    events.note("deployment ended")
    return new


class _Deployment(Generic[T]):
    def __init__(
        self,
        hands: Hands[T],
        configuration: Configuration,
        times: Times,
        events: Events,
        retiring: asyncio.TaskGroup,
    ) -> None:
        self._hands, self._configuration = hands, configuration
        self._times, self._events = times, events
        self._retiring = retiring

    async def replace(self, old: Sequence[T]) -> list[T]:
        """Return the new tasks when all are healthy and all old ones taken out."""
        self._events.note("deployment began")
        return await (self._shift(old) if self._configuration.strategy.is_shifting else self._roll(old))

    async def _roll(self, old: Sequence[T]) -> list[T]:
        limits = self._configuration
        desired, waiting = len(old), list(old)
        new: list[T] = []
        while waiting or len(new) < desired:
            step = limits.step(desired, old=len(waiting), new=len(new))
            going, waiting = waiting[: step.stop], waiting[step.stop :]
            batch = [await self._take_out(task) for task in going]
            if limits.in_turn and batch:
                await asyncio.wait(batch)
            new += await asyncio.gather(*(self._bring_up() for _ in range(step.start)))
        return new

    async def _shift(self, old: Sequence[T]) -> list[T]:
        strategy = self._configuration.strategy
        await self._hands.begin_shift(strategy)
        new = await asyncio.gather(*(self._bring_up() for _ in old))
        for stage in strategy.stages():
            self._events.note("stage", f"{stage.name}, {stage.percent:g} %")
            await self._hands.enter(stage, old)
            seconds = stage.seconds * self._times.scale
            await (self._hands.pause(old, seconds) if stage.name == PAUSED and seconds else asyncio.sleep(seconds))
        for task in old:
            await self._take_out(task)
        return new

    async def _take_out(self, task: T) -> asyncio.Task[None]:
        await self._hands.deregister(task)
        self._events.note("deregistered", task.name)
        return self._retiring.create_task(self._stop(task))

    async def _stop(self, task: T) -> None:
        await asyncio.sleep(self._times.delay)
        self._hands.terminate(task)
        self._events.note("SIGTERM", task.name)
        cutting = asyncio.create_task(self._cut_later(task))
        if not await self._hands.exited(task, self._times.stop_timeout):
            await self._hands.kill(task)
            self._events.note("SIGKILL", task.name)
        self._events.note("exited", task.name)
        await cutting

    async def _cut_later(self, task: T) -> None:
        await asyncio.sleep(self._times.cut)
        await self._hands.cut(task)
        self._events.note("cut", task.name)

    async def _bring_up(self) -> T:
        task = await self._hands.start()
        self._events.note("started", task.name)
        await self._hands.register(task)
        self._events.note("healthy", task.name)
        return task
