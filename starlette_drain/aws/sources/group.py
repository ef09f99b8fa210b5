"""One target group under watch: what the answers about it said."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import AwsCallFailed
from starlette_drain.aws.identity.identity import OwnTarget
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.source import Question
from starlette_drain.aws.sources.verdict import Reading, Verdict, read, read_error
from starlette_drain.triggers.base import Control

__all__ = ["GroupWatch"]

LONGEST_WAIT = 60.0
"""Seconds between two polls at the most, however long AWS throttles."""

ENOUGH_LOOKS = 2
"""Answers in a row that it takes to believe that the target is gone, or back: AWS's APIs are eventually consistent."""


class GroupWatch:
    """
    Polls one target group. A poll that fails changes nothing but the interval.

    An answer that does not list our target changes nothing either, until the next one says the same.

    Args:
        target: What this task is in the group.
        calls: The way to AWS.
        control: The drain.
        impairment: Who tells that polling fails.
        rng: The source of luck.
        trigger: The name of the trigger, for facts.
        on_reading: Called after every answer that tells something.
        is_inherited: Asked when the first thing seen of the target is that it drains: whether that was another task,
            whose address this one was given.
    """

    def __init__(
        self,
        *,
        target: OwnTarget,
        calls: AwsCalls,
        control: Control,
        impairment: Impairment,
        rng: Random,
        trigger: str,
        on_reading: "Callable[[GroupWatch], None]",
        is_inherited: Callable[[], Awaitable[bool]],
    ) -> None:
        self.target = target
        self.reading = Reading(Verdict.UNKNOWN)
        self.seen = False
        """Whether the target was ever seen registered in this group."""
        self.entries = 0
        """How often this task is listed in this group, as last seen."""
        self.clear: float | None = None
        """When an answer last said that the target is not being taken out."""
        self._missed = 0
        """How many answers in a row did not list the target."""
        self._served = 0
        """How many answers in a row showed the target in service."""
        self._calls = calls
        self._control = control
        self._on_reading = on_reading
        self._is_inherited = is_inherited
        self.question = Question(
            self._look,
            trigger=trigger,
            control=control,
            rng=rng,
            interval=control.settings.poll_interval,
            # A wait as long as the delay would sleep through a whole deregistration.
            longest=min(LONGEST_WAIT, target.delay / 4),
            source=target.target_group_arn,
            impairment=impairment,
        )

    @property
    def is_in_service(self) -> bool:
        """Whether enough answers in a row showed the target in service."""
        return self._served >= ENOUGH_LOOKS

    def status(self, now: float) -> dict[str, Any]:
        """Return what ``GET /drain`` shows of the group."""
        return {
            "arn": self.target.target_group_arn,
            "target": str(self.target),
            "verdict": self.reading.verdict.value,
            "targets": self.reading.targets,
            "healthy": self.reading.healthy,
            "draining": self.reading.draining,
            "delay": self.target.delay,
            "delay_known": self.target.delay_known,
            **self.question.status(now),
        }

    async def _look(self) -> str:
        """Ask once, and return the verdict."""
        asked = self._control.time()
        arn = self.target.target_group_arn
        try:
            # No Targets named: the same one call then also tells how many of the group are healthy and draining.
            answer = await self._calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn=arn)
        except AwsCallFailed as failed:
            verdict = read_error(failed.trouble.code, seen=self.seen)
            if verdict is Verdict.UNKNOWN:
                raise
            reading = replace(self.reading, verdict=verdict)  # it tells nothing of the others
        else:
            listed = answer.get("TargetHealthDescriptions") or ()
            reading = read(listed, self.target.ids, self.target.ports, seen=self.seen)
            if reading.verdict is Verdict.DRAINING and not self.seen and await self._is_inherited():
                reading = replace(reading, verdict=Verdict.NOT_YET)
        self._missed = self._missed + 1 if reading.verdict is Verdict.GONE else 0
        self._served = self._served + 1 if reading.verdict is Verdict.SERVING else 0
        if 0 < self._missed < ENOUGH_LOOKS and not self.reading.verdict.leaving:
            return Verdict.UNKNOWN.value  # nor is what it says of the others to be trusted
        self._accept(reading, asked)
        return reading.verdict.value

    def _accept(self, reading: Reading, asked: float) -> None:
        self.reading = reading
        self.seen = self.seen or reading.verdict.registered
        self.entries = reading.own or self.entries
        if not reading.verdict.leaving and reading.verdict is not Verdict.UNKNOWN:
            self.clear = asked
        self._on_reading(self)
