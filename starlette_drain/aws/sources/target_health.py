"""The trigger that watches what the load balancer does with this task's target."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.deadline import deadline, effective_margin, fitting_window
from starlette_drain._core.events import (
    DrainCancelled,
    DrainStarted,
    Event,
    TriggerImpaired,
    WindowTooLong,
)
from starlette_drain.aws.api import elbv2
from starlette_drain.aws.api.budget import ADD_A_SOURCE, is_too_slow, share_used, tasks_listed
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind
from starlette_drain.aws.identity.identity import TaskIdentity
from starlette_drain.aws.options import AwsSettings
from starlette_drain.aws.session import AWSSession, OpenSession
from starlette_drain.aws.sources.group import TargetGroup, is_wanted
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.polls import Polls
from starlette_drain.aws.sources.source import AwsSource
from starlette_drain.aws.sources.task_state import TaskVerdict, judge
from starlette_drain.aws.sources.verdict import Reading, Verdict, read, read_error
from starlette_drain.exceptions import SettingsError
from starlette_drain.triggers.base import Control

__all__ = ["TargetHealthTrigger"]

LONGEST_WAIT = 60.0
"""Seconds between two polls at the most, however long AWS throttles."""


NO_GROUP = "set DRAIN_TARGET_GROUP_ARN where it has one all the same, or DRAIN_SOURCES=task-state"


class TargetHealthTrigger(AwsSource):
    """
    Wants a drain while the balancer takes this task's target out.

    It finds out by itself who it is, then polls each of its target groups. The first group that takes the target out
    calls for a drain; the shortest deregistration delay of all groups rules. It is wanted no more when the target has
    been seen back in service twice. A poll that fails changes nothing. The more tasks there are the less often each of
    them asks, so that the fleet keeps to ``poll_share`` of the account's budget.
    """

    name = "target-health"
    subscribes = (DrainStarted, DrainCancelled)

    def __init__(self, session: AWSSession | None = None, *, policy: Literal["any", "all"] = "any", **own: Any) -> None:
        super().__init__(session, **own)
        if policy not in ("any", "all"):
            raise SettingsError("policy", policy, "use 'any' or 'all'")
        self._policy = policy
        self.identity: TaskIdentity | None = None
        self._groups: tuple[TargetGroup, ...] = ()
        self._claim: DrainCause | None = None
        """What is wanted now."""
        self._is_draining = False
        self._advised: float | None = None
        self._slowness: Impairment | None = None
        self._lag = 0.0

    async def watch(self, control: Control) -> None:
        """Find out who we are, then poll until cancelled."""
        settings = AwsSettings.of(control.settings)
        if not settings.target_group_arn and self._stand_down_off_ecs(control):
            return
        self._state, self._claim = "discovering", None
        self._groups = tuple[TargetGroup, ...]()
        async with self._session.open(settings) as aws:
            self.identity = await self._until_found(aws.identity, Impairment(self.name, control, patience=1))
            self._warn_of_gaps(self.identity, control)
            if not self.identity.targets:
                self._stand_down(control, "; ".join(self.identity.notes))
                return
            self._begin_polling(self.identity, control)
            async with asyncio.TaskGroup() as polling:
                for group in self._groups:
                    poll = self._poll(group, self.identity, aws, control)
                    polling.create_task(poll, name=f"starlette_drain {self.name} {group.target.group}")

    async def _poll(self, group: TargetGroup, identity: TaskIdentity, aws: OpenSession, control: Control) -> None:
        async for look in group.polls:
            with look:
                reading = await self._ask(group, aws)
                if not group.take(reading, look.asked):
                    continue
                look.outcome = reading.verdict.value
                self._follow_fleet(reading, identity, aws, control)
                if reading.verdict is Verdict.UNKNOWN:
                    continue
                if is_wanted(self._groups, self._policy):
                    self._claim = self._claim or self._cause(group, identity, control)
                    control.claim(self._claim)
                elif group.is_in_service:
                    self._claim = None
                    control.withdraw(self.name)

    async def _ask(self, group: TargetGroup, aws: OpenSession) -> Reading:
        """Ask once, and return what the answer says."""
        target = group.target
        try:
            listed = await elbv2.describe_health(aws.calls, target.target_group_arn)
        except AwsCallFailed as failed:
            verdict = read_error(failed.trouble.code, seen=group.seen)
            if verdict is Verdict.UNKNOWN:
                raise
            return replace(group.reading, verdict=verdict)  # it tells nothing of the others
        reading = read(listed, target.ids, target.ports, seen=group.seen)
        if reading.verdict is Verdict.DRAINING and not group.seen and await self._is_inherited(aws):
            return replace(reading, verdict=Verdict.NOT_YET)
        return reading

    async def _is_inherited(self, aws: OpenSession) -> bool:
        """
        Tell whether a target that drains when first seen was another task's, whose address this one was given.

        It was, where ECS wants this task to run: it takes a task out only after that has changed. Where ECS may not or
        cannot be asked the target is taken for our own.
        """
        if self.identity is None or self.identity.task is None:
            return False
        try:
            records = await aws.records()
            return judge(await records.task(since=aws.loop.time())) is TaskVerdict.SERVING
        except AwsCallFailed as failed:
            if failed.trouble.kind in (TroubleKind.DENIED, TroubleKind.UNREACHABLE):
                return False
            raise

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the state, and of each target group the verdict, its age, and the number of targets."""
        polls = [each.polls for each in self._groups]
        ages = [now - each.answered for each in polls if each.answered is not None]
        errors = [each.last_error for each in polls if each.last_error]
        return {
            "state": self._state,
            "service": self.identity.service if self.identity else None,
            "task": self.identity.task.task_arn if self.identity and self.identity.task else None,
            "answer_age": round(max(ages), 3) if ages else None,
            "detection_lag": round(self._lag, 3) if self._groups else None,
            "budget_used": round(share_used(self._lag, self._tasks, len(self._groups)), 3) if self._groups else None,
            "last_error": next(iter(errors), self._search_error),
            "notes": list(self.identity.notes) if self.identity else [],
            "target_groups": [each.status(now) for each in self._groups],
        }

    def notify(self, event: Event) -> None:
        """Know whether a drain is under way already."""
        match event:
            case DrainStarted():
                self._is_draining = True
                self._session.hurry()
            case DrainCancelled():
                self._is_draining = False
                self._session.take_time()

    def _warn_of_gaps(self, identity: TaskIdentity, control: Control) -> None:
        """Tell what was done without, and that a service has nothing to watch."""
        now = control.time()
        for trouble, note in zip(identity.troubles, identity.notes, strict=False):
            control.emit(TriggerImpaired(now, self.name, f"{trouble.problem}; {note}", trouble.remedy))
        if identity.service and not identity.targets:
            control.emit(TriggerImpaired(now, self.name, identity.notes[-1], NO_GROUP))

    def _begin_polling(self, identity: TaskIdentity, control: Control) -> None:
        self._lag = interval = AwsSettings.of(control.settings).poll_interval
        self._advise(identity, control)
        impairment = Impairment(self.name, control)
        self._slowness = Impairment(self.name, control, patience=1)
        self._groups = tuple(
            TargetGroup(
                target,
                Polls(
                    self.name,
                    control,
                    self._session.rng,
                    interval=interval,
                    # A wait as long as the delay would sleep through a whole deregistration.
                    longest=min(LONGEST_WAIT, target.delay / 4),
                    source=target.target_group_arn,
                    impairment=impairment,
                ),
            )
            for target in identity.targets
        )
        self._state = "watching"

    @property
    def _tasks(self) -> int:
        targets = sum(each.reading.targets for each in self._groups)
        return tasks_listed(targets, sum(each.entries for each in self._groups))

    def _follow_fleet(self, reading: Reading, identity: TaskIdentity, aws: OpenSession, control: Control) -> None:
        """Ask as often as all tasks together may, say how many there are, and warn once where that is too slow."""
        aws.listed = self._tasks
        # Each task asks about every group, whether it is in it or not.
        self._lag = aws.interval(AwsSettings.of(control.settings).poll_interval, len(self._groups))
        for each in self._groups:
            each.polls.pace(self._lag)
        self._mind_the_lag(identity, control)
        if reading.targets:
            readings = [each.reading for each in self._groups]
            counted = any(each.verdict.leaving for each in readings)
            draining, healthy = max(each.draining for each in readings), max(each.healthy for each in readings)
            control.note_fleet(draining, healthy, counted=counted)

    def _advise(self, identity: TaskIdentity, control: Control) -> None:
        """Say how long a drain may take here, and warn of a window that does not fit."""
        lag, delay, settings = self._lag, identity.shortest_delay, control.settings
        fits = fitting_window(delay, lag, settings.margin)
        # Who asks for a drain when polls come too late knows by other means, and does not lose our interval.
        advice = delay - effective_margin(settings.margin, delay) if is_too_slow(lag, delay) else fits
        if advice == self._advised:
            return
        was_told, self._advised = self._advised is not None, advice
        if advice > 0:
            control.note_window(advice)
        if settings.window is not None and settings.window > fits and not was_told:
            control.emit(WindowTooLong(control.time(), settings.window, fits, delay))

    def _mind_the_lag(self, identity: TaskIdentity, control: Control) -> None:
        """Follow the interval as the fleet grows and shrinks, and warn once where it has become too long."""
        lag, delay = self._lag, identity.shortest_delay
        self._advise(identity, control)
        if self._slowness is None:
            return
        if delay > 0 and lag > AwsSettings.of(control.settings).poll_interval and is_too_slow(lag, delay):
            where = f" in {len(self._groups)} target groups" if len(self._groups) > 1 else ""
            problem = (
                f"with {self._tasks} targets{where} it may ask once in {lag:.0f} s to keep to its share of the "
                f"Describe budget, and a deregistration with a delay of {delay:g} s is noticed as late"
            )
            self._slowness.on_error("lag", problem, ADD_A_SOURCE)
        else:
            self._slowness.worked("lag")

    def _cause(self, group: TargetGroup, identity: TaskIdentity, control: Control) -> DrainCause:
        if not group.is_leaving:
            group = next(each for each in self._groups if each.is_leaving)
        return cause_of(
            group,
            identity,
            AwsSettings.of(control.settings),
            now=control.time(),
            lag=self._lag,
            is_draining=self._is_draining,
        )


def cause_of(
    group: TargetGroup, identity: TaskIdentity, settings: AwsSettings, *, now: float, lag: float, is_draining: bool
) -> DrainCause:
    """
    Return why, and until when, a target that *group* takes out wants a drain.

    Args:
        group: The target group.
        identity: This task's targets; the shortest delay of all groups rules.
        settings: The checked options.
        now: When it is noticed.
        lag: Seconds between two polls.
        is_draining: Whether a drain is under way already.
    """
    delay, verdict = identity.shortest_delay, group.reading.verdict
    began = group.clear if group.clear is not None else now - lag
    what = "being deregistered from" if verdict is Verdict.DRAINING else "no longer registered with"
    reason = f"the target {group.target} is {what} the target group {group.target.group}"
    if group.clear is None:
        reason += "; since when is unknown, and taken to be one poll interval"
    if is_draining and is_too_slow(now - began, delay) and verdict is Verdict.DRAINING:
        # Another source that knew sooner has set a deadline; to count from an answer that old would bring it to now.
        return DrainCause(TargetHealthTrigger.name, f"{reason}; that was noticed late", at=now, lag=now - began)
    if verdict is Verdict.GONE and not all(each.delay_known for each in identity.targets):
        ends = now  # the delay that was assumed is refuted
    else:
        ends = deadline(now, began, delay, settings.margin, settings.window)
    return DrainCause(TargetHealthTrigger.name, reason, at=now, deadline=ends, lag=now - began)
