"""The trigger that watches what the load balancer does with this task's target."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import (
    DrainCancelled,
    DrainStarted,
    Event,
    TriggerImpaired,
    WindowTooLong,
)
from starlette_drain._core.settings import Settings
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind
from starlette_drain.aws.identity.ecs import EcsRecords
from starlette_drain.aws.identity.identity import TaskIdentity, discover
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE, TaskMetadata
from starlette_drain.aws.sources.deadline import deadline, effective_margin, fitting_window
from starlette_drain.aws.sources.group import GroupWatch
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.polling import (
    ADD_A_SOURCE,
    fleet_interval,
    is_too_slow,
    share_used,
    start_spread,
    tasks_listed,
)
from starlette_drain.aws.sources.source import AwsSource, Search
from starlette_drain.aws.sources.task_state import TaskVerdict, judge
from starlette_drain.aws.sources.verdict import Verdict
from starlette_drain.triggers.base import Control

__all__ = ["TargetHealthTrigger"]


class TargetHealthTrigger(AwsSource):
    """
    Asks for a drain when the balancer deregisters this task's target.

    It finds out by itself who it is, then polls each of its target groups. The first group that takes the target out
    asks for a drain; the shortest deregistration delay of all groups rules. It asks once. When the target has been seen
    back in service it takes back the drain that it alone has asked for, and may ask again. A poll that fails changes
    nothing. The more tasks there are the less often each of them asks, so that the fleet keeps to ``poll_share`` of the
    account's budget.
    """

    name = "target-health"
    subscribes = (DrainStarted, DrainCancelled)

    _control: Control | None = None
    _search: Search | None = None
    _watches: tuple[GroupWatch, ...] = ()
    _slowness: Impairment | None = None
    _advised: float | None = None
    _tasks = 0
    _lag = 0.0
    _is_draining = False
    _needed: asyncio.Event | None = None
    """Set when a drain makes it urgent to know who we are."""
    identity: TaskIdentity | None = None

    async def watch(self, control: Control) -> None:
        """Find out who we are, then poll until cancelled."""
        self._control = control
        self._leaving = set[str]()
        self._needed = asyncio.Event()
        settings = control.settings
        if not settings.target_group_arn and not self._is_on_ecs:
            self._stand_down(control, f"this is no ECS task: {METADATA_VARIABLE} is not set")
            return
        self._state = "discovering"
        self._search = search = Search(self.name, control, self._rng)
        task = await search.until_found(lambda: self._read_task_if_needed(settings))
        arn = settings.target_group_arn[0] if settings.target_group_arn else (task.task_arn if task else "")
        async with self._calls(arn) as calls:
            self.identity = await search.until_found(lambda: discover(calls, settings, task, self._wait_turn))
            if not self.identity.targets:
                self._stand_down(control, "; ".join(self.identity.notes))
                return
            await self._poll(self.identity, calls, control)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the state, and of each target group the verdict, its age, and the number of targets."""
        questions = [each.question for each in self._watches]
        ages = [now - each.answered for each in questions if each.answered is not None]
        errors = [each.last_error for each in questions if each.last_error]
        return {
            "state": self._state,
            "service": self.identity.service if self.identity else None,
            "task": self.identity.task.task_arn if self.identity and self.identity.task else None,
            "answer_age": round(max(ages), 3) if ages else None,
            "detection_lag": round(self._lag, 3) if self._watches else None,
            "budget_used": round(share_used(self._lag, self._tasks, len(self._watches)), 3) if self._watches else None,
            "last_error": next(iter(errors), self._search and self._search.last_error),
            "notes": list(self.identity.notes) if self.identity else [],
            "target_groups": [each.status(now) for each in self._watches],
        }

    def notify(self, event: Event) -> None:
        """Know whether somebody drains already."""
        match event:
            case DrainStarted():
                self._is_draining = True
                if self._needed:
                    self._needed.set()
            case DrainCancelled():
                self._is_draining = False

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    async def _wait_turn(self, tasks: int, groups: int) -> None:
        if self._control and self._needed and not self._is_draining:
            spread = start_spread(tasks, groups, self._control.settings.poll_share)
            if spread:
                await self._wait_spread(spread, self._needed)

    async def _read_task_if_needed(self, settings: Settings) -> TaskMetadata | None:
        if not self._is_on_ecs or (settings.target_group_arn and settings.target_id and settings.target_port):
            return None
        return await self._read_task()

    async def _is_inherited(self, calls: AwsCalls) -> bool:
        """
        Tell whether a target that drains when first seen was another task's, whose address this one was given.

        It was, where ECS wants this task to run: it takes a task out only after that has changed. Where ECS may not or
        cannot be asked the target is taken for our own.
        """
        if self.identity is None or self.identity.task is None:
            return False
        try:
            return judge(await EcsRecords(calls, self.identity.task).task()) is TaskVerdict.SERVING
        except AwsCallFailed as failed:
            if failed.trouble.kind in (TroubleKind.DENIED, TroubleKind.UNREACHABLE):
                return False
            raise

    async def _poll(self, identity: TaskIdentity, calls: AwsCalls, control: Control) -> None:
        for trouble, note in zip(identity.troubles, identity.notes, strict=False):
            control.emit(TriggerImpaired(control.time(), self.name, f"{trouble.problem}; {note}", trouble.remedy))
        self._lag = control.settings.poll_interval
        self._advise(identity, control, self._lag)
        impairment = Impairment(self.name, control)
        self._slowness = Impairment(self.name, control, patience=1)
        self._watches = tuple(
            GroupWatch(
                target=target,
                calls=calls,
                control=control,
                impairment=impairment,
                rng=self._rng,
                trigger=self.name,
                on_reading=self._conclude,
                is_inherited=lambda: self._is_inherited(calls),
            )
            for target in identity.targets
        )
        self._state = "watching"
        async with asyncio.TaskGroup() as polling:
            for each in self._watches:
                polling.create_task(each.question.run(), name=f"starlette_drain {self.name} {each.target.group}")

    def _advise(self, identity: TaskIdentity, control: Control, lag: float) -> None:
        """Say how long a drain may take here, and warn of a window that does not fit."""
        delay, settings = identity.shortest_delay, control.settings
        fits = fitting_window(delay, lag, settings.margin)
        # Who asks for a drain when polls come too late knows by other means, and does not lose our interval.
        advice = delay - effective_margin(settings.margin, delay) if is_too_slow(lag, delay) else fits
        if advice == self._advised:
            return
        was_told, self._advised = self._advised is not None, advice
        if advice > 0:
            control.advise(advice)
        if settings.window is not None and settings.window > fits and not was_told:
            control.emit(WindowTooLong(control.time(), settings.window, fits, delay))

    def _share_budget(self, settings: Settings) -> None:
        """Ask as often as all tasks together may: each asks about every group, whether it is in it or not."""
        targets, own = sum(each.reading.targets for each in self._watches), sum(each.entries for each in self._watches)
        self._tasks = tasks_listed(targets, own)
        self._lag = fleet_interval(settings.poll_interval, self._tasks, len(self._watches), settings.poll_share)
        for each in self._watches:
            each.question.pace(self._lag)

    def _mind_the_lag(self, identity: TaskIdentity, control: Control) -> None:
        """Follow the interval as the fleet grows and shrinks, and warn once where it has become too long."""
        lag, delay = self._lag, identity.shortest_delay
        self._advise(identity, control, lag)
        if self._slowness is None:
            return
        if delay > 0 and lag > control.settings.poll_interval and is_too_slow(lag, delay):
            where = f" in {len(self._watches)} target groups" if len(self._watches) > 1 else ""
            problem = (
                f"with {self._tasks} targets{where} it may ask once in {lag:.0f} s to keep to its share of the "
                f"Describe budget, and a deregistration with a delay of {delay:g} s is noticed as late"
            )
            self._slowness.on_error("lag", problem, ADD_A_SOURCE)
        else:
            self._slowness.worked("lag")

    def _conclude(self, watch: GroupWatch) -> None:
        """Ask for a drain when the target groups take the target out (the first, or the last); else take it back."""
        if self._control is None or self.identity is None:
            return
        self._share_budget(self._control.settings)
        self._mind_the_lag(self.identity, self._control)
        readings = [each.reading for each in self._watches]
        if watch.reading.targets:
            counted = any(each.verdict.leaving for each in readings)
            draining, healthy = max(each.draining for each in readings), max(each.healthy for each in readings)
            self._control.fleet(draining, healthy, counted=counted)
        # Of a blue/green pair the task is in one half only, and never leaves the other.
        joined = sum(each.seen for each in self._watches)
        enough = 1 if self._control.settings.target_group_policy == "any" else max(1, joined)
        was_enough = len(self._leaving) >= enough
        if watch.reading.verdict.leaving:
            self._leaving.add(watch.target.target_group_arn)
        elif watch.is_in_service:
            self._leaving.discard(watch.target.target_group_arn)
        is_enough = len(self._leaving) >= enough
        if is_enough and not was_enough:
            self._control.request(self._cause(watch, self.identity, self._control))
        elif watch.is_in_service and not is_enough:
            # Every time: the worker that asked may be another one, which has died since.
            self._control.retract(self.name)

    def _cause(self, watch: GroupWatch, identity: TaskIdentity, control: Control) -> DrainCause:
        now = control.time()
        settings = control.settings
        began = watch.clear if watch.clear is not None else now - self._lag
        verdict = watch.reading.verdict
        what = "being deregistered from" if verdict is Verdict.DRAINING else "no longer registered with"
        reason = f"the target {watch.target} is {what} the target group {watch.target.group}"
        if watch.clear is None:
            reason += "; since when is unknown, and taken to be one poll interval"
        assumed = not all(each.delay_known for each in identity.targets)
        ends = deadline(now, began, identity.shortest_delay, settings.margin)
        refuted = verdict is Verdict.GONE and assumed
        if self._is_draining and is_too_slow(now - began, identity.shortest_delay) and verdict is Verdict.DRAINING:
            # Somebody who knew sooner has set a deadline; to count from an answer that old would bring it down to now.
            return DrainCause(self.name, f"{reason}; that was noticed late", at=now, lag=now - began)
        if settings.window is not None:
            ends = min(ends, now + settings.window)
        return DrainCause(self.name, reason, at=now, deadline=now if refuted else ends, lag=now - began)
