# DescribeTasks has a budget of its own, twice as large, and ECS wants a task to end at about the moment at which it
# takes the target out. So where the balancers may be asked but seldom, ECS is asked in between. It is never believed
# alone: that a task is to end only brings the next look at the target forward. That it is to run on counts, less a few
# seconds, as a look that showed the target in service: it tells since when the delay may run.
"""Asks ECS while target health may be asked but seldom."""

import asyncio
from random import Random

from starlette_drain.aws.api.budget import SLOWEST
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, TroubleKind
from starlette_drain.aws.session import OpenSession
from starlette_drain.aws.sources.group import TargetGroup
from starlette_drain.aws.sources.task_state import TaskVerdict, judge
from starlette_drain.triggers.base import Control

__all__ = ["StandIn"]

APART = 10.0
"""Seconds by which ECS may show that a task is to end later than its target was taken out."""

TRIES, BETWEEN = 6, 10.0
"""How often the balancers are asked once ECS wants the task to end, and seconds between two tries, more or less."""


class StandIn:
    """
    The record of this task, asked for where its targets may be asked about more seldom.

    Args:
        groups: The target groups under watch.
        aws: The session.
        control: The drain.
        rng: The source of randomness.
    """

    def __init__(self, groups: tuple[TargetGroup, ...], aws: OpenSession, control: Control, rng: Random) -> None:
        self._groups = groups
        self._aws = aws
        self._control = control
        self._rng = rng
        self.is_working = False
        """Whether ECS has answered when it was asked last."""
        aws.begin(self._shortest, aws.tasks, longest=self._shortest)

    @property
    def _shortest(self) -> float:
        return SLOWEST * min(each.target.delay for each in self._groups)

    @property
    def interval(self) -> float:
        """Seconds between two questions."""
        return self._aws.interval(max(1.0, self._shortest), self._aws.tasks)

    async def watch(self) -> None:
        """Ask until cancelled, or until ECS may not be asked."""
        await asyncio.sleep(self._rng.uniform(0, self.interval))
        while True:
            if all(each.polls.interval <= self.interval for each in self._groups):
                await asyncio.sleep(self.interval)
                continue
            try:
                verdict = await self._ask()
                self.is_working = True
            except Incomplete as missing:
                self.is_working = False
                kind = missing.trouble.kind if isinstance(missing, AwsCallFailed) else None
                if kind is TroubleKind.DENIED:
                    return
                if kind is TroubleKind.THROTTLED:
                    self._aws.tasks.throttled()
            else:
                if verdict.ends:
                    await self._look_at_the_targets()
            await asyncio.sleep(self.interval)

    async def _ask(self) -> TaskVerdict:
        asked, records = self._control.time(), await self._aws.records()
        verdict = judge(await records.task(since=asked))
        self._aws.tasks.answered()
        if verdict is TaskVerdict.SERVING:
            for each in self._groups:
                each.note_serving(asked - APART)
        return verdict

    async def _look_at_the_targets(self) -> None:
        for _ in range(TRIES):
            if any(each.is_leaving for each in self._groups):
                return
            for each in self._groups:
                each.polls.wake()
            await asyncio.sleep(BETWEEN * self._rng.uniform(0.5, 1.5))
