"""One target group under watch: when to ask, what the answers said."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

from starlette_drain._core.facts import TriggerPolled
from starlette_drain.aws.backoff import Backoff
from starlette_drain.aws.calls import AwsCalls
from starlette_drain.aws.errors import AwsCallFailed, TroubleKind, classify
from starlette_drain.aws.identity import OwnTarget
from starlette_drain.aws.impairment import Impairment
from starlette_drain.aws.polling import fleet_interval, share_used
from starlette_drain.aws.verdict import Reading, Verdict, read, read_error
from starlette_drain.triggers.base import Control

__all__ = ["GroupWatch"]

LONGEST_WAIT = 60.0
"""Seconds between two polls at the most, however long AWS throttles."""

GROWN = 1.1
"""By what factor the fleet must have grown for a new phase to be drawn."""

# To ask more slowly helps the first and cannot hurt the others, which need somebody to do something. A network that
# fails is asked at the usual pace: the sooner it is back the sooner we see again.
SLOW_DOWN = frozenset(
    {TroubleKind.THROTTLED, TroubleKind.DENIED, TroubleKind.NO_CREDENTIALS, TroubleKind.NOT_INSTALLED}
)


class GroupWatch:
    """
    Polls one target group.

    Args:
        target: What this task is in the group.
        calls: The way to AWS.
        control: The drain.
        impairment: Who tells that polling fails.
        rng: The source of luck.
        trigger: The name of the trigger, for facts.
        groups: How many target groups are polled, this one included: they share one budget.
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
        groups: int,
        on_reading: "Callable[[GroupWatch], None]",
        is_inherited: Callable[[], Awaitable[bool]],
    ) -> None:
        self.target = target
        self.reading = Reading(Verdict.UNKNOWN)
        self.seen = False
        self.answered: float | None = None
        self.clear: float | None = None
        self.last_error: str | None = None
        self._calls = calls
        self._control = control
        self._impairment = impairment
        self._rng = rng
        self._trigger = trigger
        self._groups = groups
        self._on_reading = on_reading
        self._is_inherited = is_inherited
        self.lag = control.settings.poll_interval
        """Seconds between two polls that work: as late may a deregistration be noticed."""
        # A wait as long as the delay would sleep through a whole deregistration.
        self._longest_wait = min(LONGEST_WAIT, target.delay / 4)
        self._backoff = Backoff(self.lag, self._longest_wait, rng)

    @property
    def interval(self) -> float:
        """Seconds between two polls, as things stand."""
        return self._backoff.wait

    async def run(self) -> None:
        """Poll for ever: at once, after a random part of the interval, and then at that phase."""
        await self.poll()
        # The tasks of a fleet are started together; without a phase of its own each would ask in the same second.
        await asyncio.sleep(self._rng.uniform(0, self.interval))
        while True:
            asked, lag = self._control.time(), self.lag
            await self.poll()
            wait = self.interval
            if self.lag > lag * GROWN:
                # Phases drawn from a shorter interval are crowded in this one: a fleet that has just been started.
                wait *= self._rng.uniform(0.5, 1.0)
            await asyncio.sleep(max(wait / 2, asked + wait - self._control.time()))

    async def poll(self) -> None:
        """Ask once. A failure changes nothing but the interval."""
        asked = self._control.time()
        arn = self.target.target_group_arn
        try:
            # No Targets named: the same one call then also tells how many of the group are healthy and draining.
            answer = await self._calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn=arn)
            reading = read(
                answer.get("TargetHealthDescriptions") or (), self.target.ids, self.target.ports, seen=self.seen
            )
            if reading.verdict is Verdict.DRAINING and not self.seen and await self._is_inherited():
                reading = replace(reading, verdict=Verdict.NOT_YET)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read is a failure like any other
            failed = _as_failure(error)
            reading = Reading(read_error(failed.trouble.code, seen=self.seen))
            if reading.verdict is Verdict.UNKNOWN:
                self._told(asked, failed.trouble.kind.value)
                self._failed(failed)
                return
        self._told(asked, reading.verdict.value)
        self._impairment.worked(arn)
        self._share_budget(reading.targets)
        self._backoff.reset()
        self.last_error = None
        self._accept(reading, asked)

    def status(self, now: float) -> dict[str, Any]:
        """Return what ``GET /drain`` shows of the group."""
        return {
            "arn": self.target.target_group_arn,
            "target": str(self.target),
            "verdict": self.reading.verdict.value,
            "answer_age": None if self.answered is None else round(now - self.answered, 3),
            "targets": self.reading.targets,
            "healthy": self.reading.healthy,
            "draining": self.reading.draining,
            "delay": self.target.delay,
            "delay_known": self.target.delay_known,
            "interval": round(self.interval, 3),
            "budget_used": round(share_used(self.lag, self.reading.targets, self._groups), 3),
            "last_error": self.last_error,
        }

    def _share_budget(self, targets: int) -> None:
        """Ask as often as all targets together may: each of them is a task that asks too."""
        settings = self._control.settings
        self.lag = fleet_interval(settings.poll_interval, targets, self._groups, settings.poll_share)
        self._backoff.rebase(self.lag, self._longest_wait)

    def _accept(self, reading: Reading, asked: float) -> None:
        self.reading = reading
        self.answered = asked
        self.seen = self.seen or reading.verdict.registered
        if not reading.verdict.leaving and reading.verdict is not Verdict.UNKNOWN:
            self.clear = asked
        self._on_reading(self)

    def _failed(self, failed: AwsCallFailed) -> None:
        self.last_error = failed.problem
        self._impairment.failed(self.target.target_group_arn, failed.trouble)
        if failed.trouble.kind in SLOW_DOWN:
            self._backoff.grow()

    def _told(self, asked: float, outcome: str) -> None:
        now = self._control.time()
        self._control.tell(TriggerPolled(now, self._trigger, outcome, now - asked))


def _as_failure(error: Exception) -> AwsCallFailed:
    return (
        error if isinstance(error, AwsCallFailed) else AwsCallFailed(classify(error, "elbv2", "DescribeTargetHealth"))
    )
