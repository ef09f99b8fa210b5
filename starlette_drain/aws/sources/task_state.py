# What DescribeTasks says of a task that ECS wants to end, and what we conclude.
#
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html: a task is RUNNING, then
# DEACTIVATING while ECS takes it out of its target groups and waits for the deregistration delay, then STOPPING, when
# it gets SIGTERM. `desiredStatus` becomes STOPPED at the beginning of that and never goes back.
#
#   desiredStatus  lastStatus                                     verdict
#   any            DEACTIVATING                                   leaving: the delay runs
#   STOPPED        PROVISIONING, PENDING, ACTIVATING, RUNNING     leaving: the delay runs, or begins in a moment
#   any            STOPPING, DEPROVISIONING, STOPPED, DELETED     stopping: SIGTERM is here or on its way
#   RUNNING        PROVISIONING, PENDING, ACTIVATING, RUNNING     serving
#   anything else                                                 unknown
#
# The time stamp `stoppingAt` is documented as the move to STOPPING, which is the end of the delay and not its
# beginning, so it is not used: as with target health, the age of the news is the age of the last answer.
"""The trigger that watches the state of this task as ECS records it."""

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
"""Seconds from the warning to the end, on Fargate Spot.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html
"""

ENOUGH_LOOKS = 2
"""Answers in a row that it takes to believe that ECS wants the task to run again: it never does, says the table above.

Its APIs are eventually consistent, so one such answer is an old one.
"""

PATIENCE = 5.0
"""Seconds that the first look waits for the deregistration delay to be found."""


class TaskVerdict(Enum):
    """What ECS wants of this task."""

    SERVING = "serving"
    """It is to run, or to go on running."""
    LEAVING = "leaving"
    """It is to end, and is being taken out of its target groups."""
    STOPPING = "stopping"
    """It is told to stop."""
    UNKNOWN = "unknown"
    """The record does not tell."""

    @property
    def ends(self) -> bool:
        """Whether ECS wants the task to end."""
        return self in (TaskVerdict.LEAVING, TaskVerdict.STOPPING)


def judge(record: Mapping[str, Any]) -> TaskVerdict:
    """Conclude from a task as DescribeTasks shows it, or as a task state change event does."""
    last, desired = record.get("lastStatus"), record.get("desiredStatus")
    if last in DOWN:
        return TaskVerdict.STOPPING
    if last == "DEACTIVATING" or (last in UP and desired == "STOPPED"):
        return TaskVerdict.LEAVING
    if last in UP and desired == "RUNNING":
        return TaskVerdict.SERVING
    return TaskVerdict.UNKNOWN


def is_spot(record: Mapping[str, Any]) -> bool:
    """Tell whether Fargate Spot wants the capacity back."""
    return record.get("stopCode") in SPOT_CODES


@dataclass(frozen=True, slots=True)
class End:
    """
    What ECS has decided about the end of this task.

    Attributes:
        verdict: How far it is.
        noticed: When that was noticed.
        began: When it may have begun, at the earliest.
        status: ECS's word for it.
        why: ECS's stop code.
        is_spot: Whether Fargate Spot wants the capacity back.
    """

    verdict: TaskVerdict
    noticed: float
    began: float
    status: str
    why: str
    is_spot: bool


def cause_of(end: End, delay: float | None, settings: AwsSettings) -> DrainCause:
    """Return why, and until when, *end* wants a drain; *delay* is ``None`` where it is not known."""
    reason = f"ECS wants the task to end ({end.status}, {end.why})"
    ends: float | None = None
    if end.verdict is TaskVerdict.STOPPING:
        ends = end.noticed + settings.sigterm_window
    else:
        if end.is_spot:
            delay = SPOT_NOTICE if delay is None else min(SPOT_NOTICE, delay)
        if delay is not None:
            ends = deadline(end.noticed, end.began, delay, settings.margin, settings.window)
    # Revocable, for only such causes are passed on to the other workers; SIGTERM is each worker's own affair.
    lag = end.noticed - end.began
    return DrainCause(EcsTaskTrigger.name, reason, at=end.noticed, deadline=ends, lag=lag, taken_out=True)


class EcsTaskTrigger(AwsSource):
    """
    Wants a drain while ECS wants this task to end.

    It needs no load balancer, and one permission: ``ecs:DescribeTasks``. The deadline is the deregistration delay,
    where it is given or can be found out, and the drain's own window where it is not. A look-up that fails changes
    nothing. The more tasks the service has the less often each of them asks, so that they keep to ``poll_share`` of the
    account's budget of DescribeTasks.
    """

    name = "task-state"

    def __init__(self, session: AWSSession | None = None, **own: Any) -> None:
        super().__init__(session, **own)
        self._verdict = TaskVerdict.UNKNOWN
        self._end: End | None = None
        """What is wanted now."""
        self._clear: float | None = None
        """When an answer last said that the task is to run."""
        self._served = 0
        """How many answers in a row said so."""
        self._delay: float | None = None
        self._polls: Polls | None = None

    async def watch(self, control: Control) -> None:
        """Find out who we are, then poll until cancelled."""
        if self._stand_down_off_ecs(control):
            return
        settings = AwsSettings.of(control.settings)
        self._state, self._verdict, self._end, self._clear = "discovering", TaskVerdict.UNKNOWN, None, None
        self._polls, self._sight = None, None
        async with self._session.open(settings) as aws:
            began = control.time()
            await self._until_found(aws.task, Impairment(self.name, control, patience=1))
            self._state = "watching"
            async with asyncio.TaskGroup() as group:
                finding = group.create_task(self._find_delay(aws, control))
                # A task that comes up while it is being taken out needs the delay at the first look.
                await asyncio.wait({finding}, timeout=PATIENCE)
                await self._poll(aws, control, began)

    async def _poll(self, aws: OpenSession, control: Control, began: float) -> None:
        settings, records = AwsSettings.of(control.settings), await aws.records()
        what = f"whether ECS wants this task to end, every {settings.poll_interval:g} s or less often in a large fleet"
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
                # What discovery has just been told need not be asked again.
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
        """Take note of an answer; one that does not tell changes nothing."""
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
                # Not worth a warning: without it the drain takes its own window.
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
        """Return the shortest delay of all groups, ``None`` where one is not known."""
        delays = [each.delay for each in identity.targets if each.delay_known]
        for each in identity.targets:
            if each.delay_pending:  # a large service: it is read when the fleet has started, or a drain needs it
                with suppress(TimeoutError):
                    async with asyncio.timeout(START + aws.interval(1.0, aws.balancers) * self._session.rng.random()):
                        await aws.needed.wait()
                with suppress(AwsCallFailed, KeyError, TypeError, ValueError):
                    attributes = await elbv2.describe_attributes(aws.calls, each.target_group_arn)
                    delays.append(float(attributes["deregistration_delay.timeout_seconds"]))
        return min(delays) if delays and len(delays) == len(identity.targets) else None

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the state, the verdict, and the deregistration delay as far as it is known."""
        return {
            "last_error": self._search_error,
            **(self._polls.status(now) if self._polls else {}),
            "state": self._state,
            **self._watch_of(self._polls, now),
            "verdict": self._verdict.value,
            "delay": self._delay,
        }
