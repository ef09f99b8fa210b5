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
from dataclasses import replace
from enum import Enum
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.settings import Settings
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, TroubleKind
from starlette_drain.aws.identity.ecs import EcsRecords
from starlette_drain.aws.identity.identity import discover
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE, TaskMetadata
from starlette_drain.aws.sources.deadline import deadline, fitting_window
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.polling import ADD_A_SOURCE, ECS_REFILL, fleet_interval, is_too_slow, start_spread
from starlette_drain.aws.sources.source import AwsSource, Question, Retries, Search
from starlette_drain.triggers.base import Control

__all__ = ["EcsTaskTrigger", "TaskVerdict", "is_spot", "judge"]

UP = frozenset({"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"})
DOWN = frozenset({"STOPPING", "DEPROVISIONING", "STOPPED", "DELETED"})
SPOT_CODES = frozenset({"SpotInterruption", "TerminationNotice"})

SPOT_NOTICE = 120.0
"""Seconds from the warning to the end, on Fargate Spot.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html
"""

PATIENCE = 5.0
"""Seconds that the first look waits for the deregistration delay to be found."""


class TaskVerdict(Enum):
    """What ECS wants of this task."""

    SERVING = "serving"
    """It shall run, or go on running."""
    LEAVING = "leaving"
    """It shall end, and is being taken out of its target groups."""
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


class EcsTaskTrigger(AwsSource):
    """
    Asks for a drain when ECS wants this task to end.

    It needs no load balancer, and one permission: ``ecs:DescribeTasks``. The deadline is the deregistration delay,
    where it is given or can be found out, and the drain's own window where it is not. A look-up that fails changes
    nothing. The more tasks the service has the less often each of them asks, so that they keep to ``poll_share`` of the
    account's budget of DescribeTasks.
    """

    name = "task-state"

    _verdict = TaskVerdict.UNKNOWN
    _delay: float | None = None
    _clear: float | None = None
    _undated: DrainCause | None = None
    """What was asked for without a deadline, because the delay was not known."""
    _question: Question | None = None
    _search: Search | None = None

    async def watch(self, control: Control) -> None:
        """Find out who we are, then poll until cancelled."""
        if not self._is_on_ecs:
            self._stand_down(control, f"this is no ECS task: {METADATA_VARIABLE} is not set")
            return
        self._control, self._ends, self._undated = control, asyncio.Event(), None
        self._lag = control.settings.poll_interval
        self._state = "discovering"
        self._search = Search(self.name, control, self._rng)
        task = await self._search.until_found(self._read_task)
        async with self._calls(task.task_arn) as calls:
            self._question = Question(
                lambda: self._look(calls, task, control),
                trigger=self.name,
                control=control,
                rng=self._rng,
                interval=control.settings.poll_interval,
            )
            self._state = "watching"
            async with asyncio.TaskGroup() as group:
                finding = group.create_task(self._find_delay(calls, task, control))
                # A task that comes up while it is being taken out needs the delay at the first look.
                await asyncio.wait({finding}, timeout=PATIENCE)
                await self._question.run()

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the state, the verdict, and the deregistration delay as far as it is known."""
        asked = self._question.status(now) if self._question else {}
        error = self._search.last_error if self._search and not self._question else None
        return {
            "last_error": error,
            **asked,
            "state": self._state,
            "verdict": self._verdict.value,
            "delay": self._delay,
        }

    async def _find_delay(self, calls: AwsCalls, task: TaskMetadata, control: Control) -> None:
        settings = control.settings
        self._delay = settings.deregistration_delay
        retries = Retries(self._rng)
        while self._delay is None:
            try:
                identity = await discover(calls, settings, task, self._wait_turn)
            except Incomplete as missing:
                # Not worth a warning: without it the drain takes its own window.
                if isinstance(missing, AwsCallFailed) and missing.trouble.kind is TroubleKind.DENIED:
                    return
                await retries.wait(missing)
                continue
            if not identity.targets or not all(each.delay_known for each in identity.targets):
                return
            self._delay = identity.shortest_delay
        fits = fitting_window(self._delay, self._lag, settings.margin)
        if fits > 0:
            control.advise(fits)
        if self._lag > settings.poll_interval and is_too_slow(self._lag, self._delay):
            problem = f"the service has so many tasks that each may ask once in {self._lag:.0f} s, with a delay of "
            Impairment(self.name, control, patience=1).on_error("lag", f"{problem}{self._delay:g} s", ADD_A_SOURCE)
        if (cause := self._undated) is not None:
            now, ends = control.time(), self._ends_at(cause, self._delay, settings)
            control.request(replace(cause, at=now, deadline=ends, lag=now - cause.at + cause.lag))

    async def _wait_turn(self, tasks: int, groups: int) -> None:
        """Ask as often as all tasks together may; and ELBv2, for the delay, not all at once."""
        settings = self._control.settings
        self._lag = fleet_interval(settings.poll_interval, tasks, 1, settings.poll_share, refill=ECS_REFILL)
        if self._question:
            self._question.pace(self._lag)
        await self._wait_spread(start_spread(tasks, groups, settings.poll_share), self._ends)

    async def _look(self, calls: AwsCalls, task: TaskMetadata, control: Control) -> str:
        asked = control.time()
        record = await EcsRecords(calls, task).task()
        verdict = judge(record)
        if verdict.ends and verdict is not self._verdict:
            self._ends.set()
            control.request(self._cause(record, verdict, control))
        if verdict is TaskVerdict.SERVING:
            self._clear = asked
        if verdict is not TaskVerdict.UNKNOWN:
            self._verdict = verdict
        return verdict.value

    def _cause(self, record: Mapping[str, Any], verdict: TaskVerdict, control: Control) -> DrainCause:
        now, settings = control.time(), control.settings
        began = self._clear if self._clear is not None else now - self._lag
        why = record.get("stopCode") or "no stop code"
        reason = f"ECS wants the task to end ({record.get('lastStatus')}, {why})"
        # Revocable, for only such causes are passed on to the other workers; SIGTERM is each worker's own affair.
        cause = DrainCause(self.name, reason, at=now, lag=now - began)
        self._undated = None
        if verdict is TaskVerdict.STOPPING:
            return replace(cause, deadline=now + settings.sigterm_window)
        delay = self._delay
        if is_spot(record):
            delay = min(SPOT_NOTICE, delay) if delay is not None else SPOT_NOTICE
        if delay is None:
            self._undated = cause
            return cause
        return replace(cause, deadline=self._ends_at(cause, delay, settings))

    def _ends_at(self, cause: DrainCause, delay: float, settings: Settings) -> float:
        ends = deadline(self._control.time(), cause.at - cause.lag, delay, settings.margin)
        return ends if settings.window is None else min(ends, cause.at + settings.window)
