# What DescribeTasks shows of a task that ECS stops, and what follows from it.
#
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html: a task is RUNNING, then
# DEACTIVATING while ECS deregisters it from its target groups and waits for the deregistration delay, then STOPPING,
# when it gets SIGTERM. `desiredStatus` becomes STOPPED at the beginning and never changes back.
#
#   desiredStatus  lastStatus                                     verdict
#   any            DEACTIVATING                                   leaving: the delay runs
#   STOPPED        PROVISIONING, PENDING, ACTIVATING, RUNNING     leaving: the delay runs, or begins in a moment
#   any            STOPPING, DEPROVISIONING, STOPPED, DELETED     stopping: SIGTERM is here or on its way
#   RUNNING        PROVISIONING, PENDING, ACTIVATING, RUNNING     serving
#   anything else                                                 unknown
#
# The timestamp `stoppingAt` is documented as the transition to STOPPING, which is the end of the delay and not its
# beginning, so it is not used. As with target health, the delay counts from the last answer before the change.
"""The trigger that watches the state of this task in ECS."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.deadline import deadline, fitting_window
from starlette_drain.aws.api import elbv2
from starlette_drain.aws.api.budget import ADD_A_SOURCE, START, is_too_slow
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, TroubleKind
from starlette_drain.aws.identity.identity import TaskIdentity
from starlette_drain.aws.options import AwsSettings
from starlette_drain.aws.session import AWSSession, OpenSession
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.polls import Polls
from starlette_drain.aws.sources.source import AwsSource
from starlette_drain.triggers.base import Control

__all__ = ["EcsTaskTrigger", "TaskVerdict", "is_spot", "judge"]

UP = frozenset({"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"})
DOWN = frozenset({"STOPPING", "DEPROVISIONING", "STOPPED", "DELETED"})
SPOT_CODES = frozenset({"SpotInterruption", "TerminationNotice"})

SPOT_NOTICE = 120.0
"""Seconds from the warning until the task is stopped, on Fargate Spot.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html
"""

ENOUGH_LOOKS = 2
"""How many answers in a row must say that the task should run again.

By the table above that never happens. The APIs are eventually consistent, so a single such answer is an old one.
"""

DELAY_TIMEOUT = 5.0
"""Seconds for which the first poll waits for the deregistration delay."""


class TaskVerdict(Enum):
    """What ECS wants this task to do."""

    SERVING = "serving"
    """It should run."""
    LEAVING = "leaving"
    """It should end, and is being deregistered from its target groups."""
    STOPPING = "stopping"
    """It is being stopped."""
    UNKNOWN = "unknown"
    """The record does not tell."""

    @property
    def ends(self) -> bool:
        """Whether ECS wants the task to end."""
        return self in (TaskVerdict.LEAVING, TaskVerdict.STOPPING)


def judge(record: Mapping[str, Any]) -> TaskVerdict:
    """Judge a task as DescribeTasks, or a task state change event, shows it."""
    last, desired = record.get("lastStatus"), record.get("desiredStatus")
    if last in DOWN:
        return TaskVerdict.STOPPING
    if last == "DEACTIVATING" or (last in UP and desired == "STOPPED"):
        return TaskVerdict.LEAVING
    if last in UP and desired == "RUNNING":
        return TaskVerdict.SERVING
    return TaskVerdict.UNKNOWN


def is_spot(record: Mapping[str, Any]) -> bool:
    """Return whether Fargate Spot reclaims the capacity."""
    return record.get("stopCode") in SPOT_CODES


@dataclass(frozen=True, slots=True)
class End:
    """
    ECS's decision to end this task.

    Attributes:
        verdict: How far it has got.
        noticed: When it was noticed.
        began: The earliest moment at which it may have begun.
        status: The task's last status.
        why: ECS's stop code.
        is_spot: Whether Fargate Spot reclaims the capacity.
    """

    verdict: TaskVerdict
    noticed: float
    began: float
    status: str
    why: str
    is_spot: bool


def cause_of(end: End, delay: float | None, settings: AwsSettings) -> DrainCause:
    """Return the claim that follows from *end*; *delay* is the deregistration delay, or ``None`` if unknown."""
    reason = f"ECS wants the task to end ({end.status}, {end.why})"
    ends: float | None = None
    if end.verdict is TaskVerdict.STOPPING:
        ends = end.noticed + settings.sigterm_window
    else:
        if end.is_spot:
            delay = SPOT_NOTICE if delay is None else min(SPOT_NOTICE, delay)
        if delay is not None:
            ends = deadline(end.noticed, end.began, delay, settings.margin, settings.window)
    # Revocable, because only revocable claims are published to the other workers.
    lag = end.noticed - end.began
    return DrainCause(EcsTaskTrigger.name, reason, at=end.noticed, deadline=ends, lag=lag, taken_out=True)


class EcsTaskTrigger(AwsSource):
    """
    Wants a drain while ECS wants this task to end.

    It needs no load balancer, and only the permission ``ecs:DescribeTasks``. The deadline follows from the
    deregistration delay if that is given or can be looked up, and otherwise from the drain's own window. A failed call
    changes nothing. In a large service each task polls less often, so that all of them keep to ``poll_share`` of the
    account's budget for DescribeTasks.
    """

    name = "task-state"

    def __init__(self, session: AWSSession | None = None, **own: Any) -> None:
        super().__init__(session, **own)
        self._verdict = TaskVerdict.UNKNOWN
        self._end: End | None = None
        """The current decision."""
        self._clear: float | None = None
        """When an answer last said that the task should run."""
        self._served = 0
        """How many answers in a row have said so."""
        self._delay: float | None = None
        self._polls: Polls | None = None

    async def watch(self, control: Control) -> None:
        """Identify the task, then poll until cancelled."""
        if self._stand_down_off_ecs(control):
            return
        settings = AwsSettings.of(control.settings)
        self._state, self._verdict, self._end, self._clear = "discovering", TaskVerdict.UNKNOWN, None, None
        self._polls, self._sight = None, None
        async with self._session.open(settings) as aws:
            began = control.time()
            await self._until_found(aws.task, Impairment(self.name, control, patience=1), control)
            self._state = "watching"
            async with asyncio.TaskGroup() as group:
                finding = group.create_task(self._find_delay(aws, control))
                # A task that starts while it is being deregistered needs the delay at the first poll.
                await asyncio.wait({finding}, timeout=DELAY_TIMEOUT)
                await self._poll(aws, control, began)

    async def _poll(self, aws: OpenSession, control: Control, began: float) -> None:
        settings, records = AwsSettings.of(control.settings), await aws.records()
        what = f"whether ECS wants this task to end, every {settings.poll_interval:g} s, less often in a large fleet"
        self._polls = polls = Polls(
            self.name,
            control,
            self._session.rng,
            interval=settings.poll_interval,
            bucket=aws.tasks,
            after_look=lambda: self._report_sight(
                control,
                self._watch_of(self._polls, control.time()),
                what,
            ),
        )
        async for look in polls:
            with look:
                # The first poll may use the record that discovery has just read.
                record = await records.task(since=look.asked if polls.answered is not None else began)
                polls.pace(aws.interval(settings.poll_interval, aws.tasks))
                verdict = judge(record)
                look.outcome = verdict.value
                self._note(record, verdict, records.asked, control)
                if verdict is TaskVerdict.UNKNOWN:
                    continue
                if self._end:
                    self._session.hurry()
                    control.claim(cause_of(self._end, self._delay, settings))
                else:
                    control.withdraw(self.name)

    def _note(self, record: Mapping[str, Any], verdict: TaskVerdict, asked: float, control: Control) -> None:
        """Take an answer into account; one that does not tell changes nothing."""
        if verdict is TaskVerdict.UNKNOWN:
            return
        self._verdict = verdict
        self._served = self._served + 1 if verdict is TaskVerdict.SERVING else 0
        if verdict is TaskVerdict.SERVING:
            self._clear = asked
            if self._served >= ENOUGH_LOOKS:
                self._end = None
        elif self._end is None or self._end.verdict is TaskVerdict.LEAVING is not verdict:
            now = control.time()
            began = self._clear if self._clear is not None else now - (self._polls.interval if self._polls else 0.0)
            status, why = str(record.get("lastStatus")), record.get("stopCode") or "no stop code"
            self._end = End(verdict, now, began, status, why, is_spot(record))

    async def _find_delay(self, aws: OpenSession, control: Control) -> None:
        settings = AwsSettings.of(control.settings)
        self._delay = settings.deregistration_delay
        while self._delay is None:
            try:
                identity = await aws.identity.get()
            except Incomplete as missing:
                # Not worth a warning: without the delay the drain takes its own window.
                if isinstance(missing, AwsCallFailed) and missing.trouble.kind is TroubleKind.DENIED:
                    return
                continue
            self._delay = await self._delay_of(identity, aws)
            if self._delay is None:
                return
        lag = aws.interval(settings.poll_interval, aws.tasks)
        fits = fitting_window(self._delay, lag, settings.margin)
        if fits > 0:
            control.note_window(fits)
        if lag > settings.poll_interval and is_too_slow(lag, self._delay):
            problem = f"the service is so large that each task may poll once in {lag:.0f} s, with a delay of "
            Impairment(self.name, control, patience=1).on_error("lag", f"{problem}{self._delay:g} s", ADD_A_SOURCE)
        if self._end:
            control.claim(cause_of(self._end, self._delay, settings))

    async def _delay_of(self, identity: TaskIdentity, aws: OpenSession) -> float | None:
        """Return the shortest delay of all groups; ``None`` if one of them is unknown."""
        delays = [each.delay for each in identity.targets if each.delay_known]
        for each in identity.targets:
            if (
                each.delay_pending
            ):  # in a large service it is read after the fleet has started, or when a drain needs it
                with suppress(TimeoutError):
                    async with asyncio.timeout(START + aws.interval(1.0, aws.balancers) * self._session.rng.random()):
                        await aws.needed.wait()
                with suppress(AwsCallFailed, KeyError, TypeError, ValueError):
                    attributes = await elbv2.describe_attributes(aws.calls, each.target_group_arn)
                    delays.append(float(attributes["deregistration_delay.timeout_seconds"]))
        return min(delays) if delays and len(delays) == len(identity.targets) else None

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the state, the verdict, and the deregistration delay if it is known."""
        return {
            "last_error": self._search_error,
            **(self._polls.status(now) if self._polls else {}),
            "state": self._state,
            **self._watch_of(self._polls, now),
            "verdict": self._verdict.value,
            "delay": self._delay,
        }
