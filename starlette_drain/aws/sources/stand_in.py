# DescribeTasks has its own budget, twice as large, and ECS decides to end a task at about the time at which it
# deregisters the target. So if target health may only be polled rarely, ECS is polled in between. It is never trusted
# alone: if a task should end, only the next poll of the target is brought forward. If it should run, that counts, minus
# a few seconds, as a poll that showed the target in service, and bounds the time since when the delay may run.
"""Polls ECS in between if target health may only be polled rarely."""

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
"""The most seconds after the deregistration of a target until ECS shows that its task should end."""

TRIES, BETWEEN = 6, 10.0
"""How often target health is polled once ECS wants the task to end, and about how many seconds apart."""


class StandIn:
    """
    Polls the record of this task while its target health may be polled less often.

    Args:
        groups: The watched target groups.
        aws: The session.
        control: The control of the drain.
        rng: The source of randomness.
    """

    def __init__(self, groups: tuple[TargetGroup, ...], aws: OpenSession, control: Control, rng: Random) -> None:
        self._groups = groups
        self._aws = aws
        self._control = control
        self._rng = rng
        self.is_working = False
        """Whether ECS answered the last poll."""
        aws.begin(self._shortest, aws.tasks, longest=self._shortest)

    @property
    def _shortest(self) -> float:
        return SLOWEST * min(each.target.delay for each in self._groups)

    @property
    def interval(self) -> float:
        """Seconds between two polls."""
        return self._aws.interval(max(1.0, self._shortest), self._aws.tasks)

    async def watch(self) -> None:
        """Poll until cancelled, or until the call is denied."""
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
