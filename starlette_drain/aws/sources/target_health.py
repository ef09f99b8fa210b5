"""The trigger that watches what the load balancer does with this task's target."""

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
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
from starlette_drain.aws.api.budget import ADD_A_SOURCE, START, is_too_slow, share_used, tasks_listed
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, Trouble, TroubleKind
from starlette_drain.aws.identity.identity import TaskIdentity
from starlette_drain.aws.options import AwsSettings
from starlette_drain.aws.session import AWSSession, OpenSession
from starlette_drain.aws.sources.group import TargetGroup, is_wanted
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.polls import Polls
from starlette_drain.aws.sources.rebalance import Rebalance
from starlette_drain.aws.sources.service_events import deregistrations
from starlette_drain.aws.sources.source import AwsSource
from starlette_drain.aws.sources.stand_in import StandIn
from starlette_drain.aws.sources.task_state import judge
from starlette_drain.aws.sources.verdict import Reading, Verdict, read, read_error
from starlette_drain.exceptions import SettingsError
from starlette_drain.triggers.base import Control

__all__ = ["GUESS", "TargetHealthTrigger", "longest_wait"]

LONGEST_WAIT = 60.0
"""The longest interval between two polls, in seconds, however long AWS throttles."""

ABSENT_AFTER, ABSENT_LOOKS = 180.0, 3
"""After how many seconds and polls to warn that the target is in none of its groups.

ECS registers it seconds after the task is running. A warning before that would come at every start.
"""

OUT_OF_LINE = 4
"""By what factor a group must list more tasks than ECS counts for that to need confirmation."""

TIMEOUT = 3.0
"""The most seconds for which a drain waits for the current delay, and for the service's events."""

GUESS = 4.0
"""The factor by which the interval is longer at the start, if ECS is polled in between and its cluster is unknown."""

FLOOR = 0.25
"""The smallest part of the delay that a drain gets while the balancer shows that the delay is not over."""

NO_GROUP = "set DRAIN_TARGET_GROUP_ARN if it has a target group anyway, or DRAIN_SOURCES=task-state"


class TargetHealthTrigger(AwsSource):
    """
    Wants a drain while this task's target is being deregistered.

    It identifies the task, then polls each of its target groups. A drain is wanted when the first group deregisters the
    target, within the shortest deregistration delay of all groups, until the target has been seen in service twice. A
    failed poll changes nothing. In a large fleet each task polls less often, so that the fleet keeps to ``poll_share``
    of the account's budget.

    Args:
        session: The session of this process; by default a new one.
        policy: Whether ``"any"`` target group that deregisters the target is enough, or ``"all"`` must.
        **own: The arguments of a new `AWSSession`.

    Raises:
        SettingsError: If *policy* has another value.
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
        """The current claim."""
        self._is_draining = False
        self._advised: float | None = None
        self._slowness: Impairment | None = None
        self._absence: Impairment | None = None
        self._rebalance: Rebalance | None = None
        self._began = 0.0
        self._lag = 0.0
        self._may_not_ask_ecs = False
        """Whether DescribeTasks is denied, which tells whose target it is if the first poll finds it draining."""
        self._claim_delay = 0.0
        """The delay from which the deadline of the current claim was computed."""
        self._stand_in: StandIn | None = None

    async def watch(self, control: Control) -> None:
        """Identify the task, then poll until cancelled."""
        settings = AwsSettings.of(control.settings)
        if self._stand_down_off_ecs(control, works_with_group=True):
            return
        self._state, self._claim, self._sight = "discovering", None, None
        self._groups, self._began = tuple[TargetGroup, ...](), control.time()
        async with self._session.open(settings) as aws:
            self.identity = await self._until_found(aws.identity, Impairment(self.name, control, patience=1), control)
            self._may_not_ask_ecs = self._session.is_on_ecs and (await aws.records()).is_denied
            self._warn_of_gaps(self.identity, control)
            if not self.identity.targets:
                self._stand_down(control, "; ".join(self.identity.notes), is_alarm=self.identity.service is not None)
                return
            self._begin_polling(self.identity, aws, control)
            async with asyncio.TaskGroup() as polling:
                if self._stand_in is not None:
                    polling.create_task(self._stand_in.watch(), name=f"starlette_drain {self.name} task record")
                for group in self._groups:
                    poll = self._poll(group, aws, control)
                    polling.create_task(poll, name=f"starlette_drain {self.name} {group.target.group}")

    async def _poll(self, group: TargetGroup, aws: OpenSession, control: Control) -> None:
        async for look in group.polls:
            with look:
                reading = await self._ask(group, aws)
                if not group.take(reading, look.asked):
                    continue
                look.outcome = reading.verdict.value
                self._follow_fleet(reading, aws, control)
                if control.time() >= group.delay_due:
                    await self._follow_delay(group, aws, control)
                if reading.verdict is Verdict.UNKNOWN:
                    continue
                self._check_absence(control)
                if is_wanted(self._groups, self._policy):
                    self._claim = self._claim or await self._cause(group, aws, control)
                    control.claim(self._claim)
                elif group.is_in_service:
                    self._claim = None
                    control.withdraw(self.name)
                    await self._check_balance(group, aws)

    async def _ask(self, group: TargetGroup, aws: OpenSession) -> Reading:
        """Poll once, and return what the answer says."""
        target = group.target
        try:
            listed = await elbv2.describe_health(aws.calls, target.target_group_arn)
        except AwsCallFailed as failed:
            verdict = read_error(failed.trouble.code, seen=group.seen)
            if verdict is Verdict.UNKNOWN:
                raise
            return replace(group.reading, verdict=verdict)  # the error says nothing about other targets
        reading = read(listed, target.ids, target.ports, seen=group.seen)
        if reading.verdict is Verdict.DRAINING and not group.seen and not await self._is_told_to_end(aws):
            # The entry of an earlier task with the same address. It says nothing about this task.
            return replace(reading, verdict=Verdict.NOT_YET, others=(f"{target}, draining for an earlier task",))
        return reading

    async def _is_told_to_end(self, aws: OpenSession) -> bool:
        """
        Return whether ECS wants this task to end, which it decides before it deregisters the target.

        If the call fails this is False, except that throttling is raised.

        Raises:
            AwsCallFailed: If AWS throttles the call.
        """
        if not self._session.is_on_ecs:
            return False
        try:
            records = await aws.records()
            return judge(await records.task(since=aws.loop.time())).ends
        except Incomplete as missing:
            if isinstance(missing, AwsCallFailed) and missing.trouble.kind is TroubleKind.THROTTLED:
                raise
            return False

    async def _follow_delay(self, group: TargetGroup, aws: OpenSession, control: Control) -> None:
        """Read the delay again; if that fails, keep the known one."""
        delay: float | None = None
        try:
            async with asyncio.timeout(TIMEOUT):
                attributes = await elbv2.describe_attributes(aws.calls, group.target.target_group_arn)
                delay = float(attributes["deregistration_delay.timeout_seconds"])
        except AwsCallFailed as failed:
            if group.target.delay_pending and failed.trouble.kind is TroubleKind.DENIED:
                self._do_without_delay(group, failed.trouble, control)
                return
        except (KeyError, TimeoutError, TypeError, ValueError):
            pass
        if not group.take_delay(delay, control.time(), self._lag):
            return
        if self._claim and self._claim.deadline is not None:
            ends = self._claim.deadline + group.target.delay - self._claim_delay
            self._claim = replace(self._claim, deadline=max(control.time(), ends))
        self._pace_polls()
        self._advise(control)
        self._report(control)

    def _do_without_delay(self, group: TargetGroup, trouble: Trouble, control: Control) -> None:
        """Keep the assumed delay, and report that the call is denied."""
        group.give_up_delay()
        note = f"a deregistration delay of {group.target.delay:g} s is assumed, the default"
        control.emit(TriggerImpaired(control.time(), self.name, f"{trouble.problem}; {note}", trouble.remedy))
        if self.identity:
            troubles, notes = (*self.identity.troubles, trouble), (*self.identity.notes, note)
            self.identity = replace(self.identity, troubles=troubles, notes=notes)
        self._report(control)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the state, and for each target group the verdict, its age, and the number of targets."""
        polls = [each.polls for each in self._groups]
        ages = [now - each.answered for each in polls if each.answered is not None]
        errors = [each.last_error for each in polls if each.last_error]
        return {
            "state": self._state,
            **self._watch(now),
            "service": self.identity.service if self.identity else None,
            "task": self.identity.task.task_arn if self.identity and self.identity.task else None,
            "answer_age": round(max(ages), 3) if ages else None,
            "detection_lag": round(self._detection, 3) if self._groups else None,
            "budget_used": round(share_used(self._lag, self._tasks, len(self._groups)), 3) if self._groups else None,
            "last_error": next(iter(errors), self._search_error),
            "notes": list(self.identity.notes) if self.identity else [],
            "target_groups": [each.status(now) for each in self._groups],
        }

    def notify(self, event: Event) -> None:
        """Record whether a drain is running."""
        match event:
            case DrainStarted():
                self._is_draining = True
                self._session.hurry()
            case DrainCancelled():
                self._is_draining = False
                self._session.take_time()

    def _warn_of_gaps(self, identity: TaskIdentity, control: Control) -> None:
        """Report calls that failed in discovery, and a service with nothing to watch."""
        now = control.time()
        for trouble, note in zip(identity.troubles, identity.notes, strict=False):
            control.emit(TriggerImpaired(now, self.name, f"{trouble.problem}; {note}", trouble.remedy))
        if identity.service and not identity.targets:
            control.emit(TriggerImpaired(now, self.name, identity.notes[-1], NO_GROUP))

    def _begin_polling(self, identity: TaskIdentity, aws: OpenSession, control: Control) -> None:
        settings = AwsSettings.of(control.settings)
        covers = self._session.is_on_ecs and not self._may_not_ask_ecs and settings.has_stand_in
        things, longest = len(identity.targets), longest_wait(identity.shortest_delay)
        guess = GUESS if covers else 1.0
        aws.begin(settings.poll_interval, aws.balancers, things, longest=longest, guess=guess)
        self._lag = aws.interval(settings.poll_interval, aws.balancers, things, longest=longest)
        impairment = Impairment(self.name, control)
        self._slowness, self._absence = (Impairment(self.name, control, patience=1) for _ in range(2))
        self._groups = tuple(
            TargetGroup(
                target,
                Polls(
                    self.name,
                    control,
                    self._session.rng,
                    interval=self._lag,
                    longest=longest_wait(target.delay),
                    bucket=aws.balancers,
                    source=target.target_group_arn,
                    impairment=impairment,
                    after_look=partial(self._report, control),
                ),
                self._session.rng,
                follows_delay=settings.deregistration_delay is None and (target.delay_known or target.delay_pending),
            )
            for target in identity.targets
        )
        self._stand_in = StandIn(self._groups, aws, control, self._session.rng) if covers else None
        self._rebalance = None
        if settings.rebalance:
            voice = Impairment(self.name, control, patience=1)
            self._rebalance = Rebalance(control, voice, is_on_ecs=self._session.is_on_ecs)
        for each in self._groups:
            if each.target.delay_pending:
                # After the first polls of the whole fleet, spread over one interval.
                wait = aws.interval(self._lag, aws.balancers)
                each.delay_due = control.time() + START + wait * self._session.rng.random()
        self._advise(control)
        self._state = "watching"

    @property
    def _tasks(self) -> int:
        targets = sum(each.targets for each in self._groups)
        return tasks_listed(targets, sum(each.entries for each in self._groups))

    @property
    def _detection(self) -> float:
        """The longest time in seconds until a deregistration is noticed, if no call fails."""
        return min(self._lag, self._stand_in.interval) if self._stand_in and self._stand_in.is_working else self._lag

    @property
    def _shortest_delay(self) -> float:
        return min(each.target.delay for each in self._groups)

    def _follow_fleet(self, reading: Reading, aws: OpenSession, control: Control) -> None:
        """Adjust the interval to the size of the fleet, and report that size; warn once if polling is too slow."""
        settings = AwsSettings.of(control.settings)
        aws.listed = self._tasks
        # Each task polls every group, even those in which it is not registered.
        longest = longest_wait(self._shortest_delay)
        self._lag = aws.interval(settings.poll_interval, aws.balancers, len(self._groups), longest=longest)
        if self._tasks > OUT_OF_LINE * max(1, aws.size) and not all(each.is_confirmed for each in self._groups):
            # ECS counts far fewer tasks: one answer alone must not delay the next poll for long.
            self._lag = min(self._lag, max(settings.poll_interval, FLOOR * self._shortest_delay))
        self._pace_polls()
        self._check_lag(control)
        if reading.targets:
            readings = [each.reading for each in self._groups]
            counted = any(each.verdict.leaving for each in readings)
            draining, healthy = max(each.draining for each in readings), max(each.healthy for each in readings)
            control.note_fleet(draining, healthy, counted=counted)

    def _pace_polls(self) -> None:
        for each in self._groups:
            each.polls.pace(self._lag, longest_wait(each.target.delay))

    def _advise(self, control: Control) -> None:
        """Report how long a drain may take here, and warn of a window that does not fit."""
        lag, delay, settings = self._detection, self._shortest_delay, control.settings
        fits = fitting_window(delay, lag, settings.margin)
        # If polls are too slow, another source starts the drain, and the interval is not lost.
        advice = delay - effective_margin(settings.margin, delay) if is_too_slow(lag, delay) else fits
        if advice == self._advised or any(each.target.delay_pending for each in self._groups):
            return
        was_told, self._advised = self._advised is not None, advice
        if advice > 0:
            control.note_window(advice)
        if settings.window is not None and settings.window > fits and not was_told:
            control.emit(WindowTooLong(control.time(), settings.window, fits, delay))

    def _check_lag(self, control: Control) -> None:
        """Report how long a drain may take with the current interval; warn once if the interval is too long."""
        lag, delay = self._detection, self._shortest_delay
        self._advise(control)
        if self._slowness is None:
            return
        fits = fitting_window(delay, AwsSettings.of(control.settings).poll_interval, control.settings.margin)
        if fits > 0:
            self._slowness.worked("delay")
        else:
            problem = f"the deregistration delay of {delay:g} s leaves no time to drain"
            self._slowness.on_error("delay", problem, "raise deregistration_delay.timeout_seconds")
        if delay > 0 and lag > AwsSettings.of(control.settings).poll_interval and is_too_slow(lag, delay):
            where = f" in {len(self._groups)} target groups" if len(self._groups) > 1 else ""
            problem = (
                f"with {self._tasks} targets{where} each task may poll only once in {lag:.0f} s to keep to its share "
                f"of the Describe budget, so a deregistration with a delay of {delay:g} s may be noticed that late"
            )
            self._slowness.on_error("lag", problem, ADD_A_SOURCE)
        else:
            self._slowness.worked("lag")

    def _check_absence(self, control: Control) -> None:
        """Warn once if the target is in none of its groups, long after it should be."""
        if self._absence is None:
            return
        if any(each.seen for each in self._groups):
            self._absence.worked("absence")
            self._search_error = None
            return
        passed = control.time() - self._began
        if passed < ABSENT_AFTER or any(each.looks < ABSENT_LOOKS for each in self._groups):
            return
        where = "; ".join(absent(each) for each in self._groups)
        problem = f"{passed / 60:.0f} min after the start the target is not registered: {where}"
        self._search_error = problem
        self._absence.on_error("absence", problem, REGISTER)

    async def _check_balance(self, group: TargetGroup, aws: OpenSession) -> None:
        """Check for a scale-out, once for all groups in which the task serves."""
        serving = [each for each in self._groups if each.is_in_service]
        if self._rebalance is not None and group is serving[0]:
            await self._rebalance.look(serving, aws)

    # Watch state

    def _watch(self, now: float) -> dict[str, Any]:
        """Return the watch state of the source, and why it is not watching."""
        if not self._groups:
            return self._watch_of(None, now)
        state, because, since = "watching", "", None
        asked = [each for each in self._groups if each.seen] or list(self._groups)
        blind = [each for each in asked if each.polls.blind_since(now) is not None]
        if blind:
            state, since = "blind", min(each.polls.blind_since(now) or now for each in blind)
            because = next((each.polls.last_error for each in blind if each.polls.last_error), "no answer has come")
        elif not any(each.seen for each in self._groups):
            state = "not yet"
            because = self._search_error or "the target is not registered"
        return {
            "watch": state,
            "blind_for": None if since is None else round(now - since, 3),
            "because": because or None,
        }

    def _report(self, control: Control) -> None:
        """Emit the watch state if it, or what is watched, has changed."""
        watch = self._watch(control.time())
        if watch["watch"] == "not yet" and not all(each.looks for each in self._groups):
            return  # not every group has answered yet
        self._report_sight(control, watch, self._what(control))

    def _what(self, control: Control) -> str:
        groups = ", ".join(f"{each.target} in {each.target.group}" for each in self._groups)
        delays = sorted({each.target.delay for each in self._groups})
        settings = AwsSettings.of(control.settings)
        window = max(0.0, self._shortest_delay - settings.poll_interval - effective_margin(settings.margin, delays[0]))
        if settings.window is not None:
            window = min(window, settings.window)
        pending = " until it is read" if any(each.target.delay_pending for each in self._groups) else ""
        missing = [each.action for each in self.identity.troubles] if self.identity else []
        if self._may_not_ask_ecs:
            missing.append("ecs:DescribeTasks (a deregistration before the first poll is left to SIGTERM)")
        return ", ".join(
            (
                groups,
                f"delay {' and '.join(f'{each:g}' for each in delays)} s{pending}",
                f"window {window:g} s",
                f"every {settings.poll_interval:g} s, less often in a large fleet",
                *((f"without {' and '.join(missing)}",) if missing else ()),
            )
        )

    async def _cause(self, group: TargetGroup, aws: OpenSession, control: Control) -> DrainCause:
        if not group.is_leaving:
            group = next(each for each in self._groups if each.is_leaving)
        now, delay, assumed = control.time(), self._shortest_delay, not all(g.target.delay_known for g in self._groups)
        self._claim_delay = delay
        told: tuple[float, ...] = ()
        if group.clear is not None and is_too_slow(now - group.clear, delay) and not self._is_draining:
            told = await self._ask_events(group, aws, now)
        return cause_of(
            group,
            AwsSettings.of(control.settings),
            now=control.time(),
            lag=self._lag,
            delay=delay,
            is_assumed=assumed,
            is_draining=self._is_draining,
            told=told,
            started=self._began,
        )

    async def _ask_events(self, group: TargetGroup, aws: OpenSession, now: float) -> tuple[float, ...]:
        """Return when the service deregistered targets from *group* since this one was last seen in service."""
        if not self._session.is_on_ecs:
            return ()
        with suppress(Incomplete, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                ages = await deregistrations(aws, group.target.target_group_arn, self._session.wall_clock)
                return events_between(ages, now, group.clear, group.target.delay)
        return ()


REGISTER = (
    "check that DRAIN_TARGET_PORT, DRAIN_TARGET_ID and DRAIN_TARGET_GROUP_ARN are right if they are set, and that the "
    "load balancer of the service names this container and port"
)
"""What to do if a target is not in its group."""


def longest_wait(delay: float) -> float:
    """Return the longest interval between two polls, in seconds: one as long as the delay would miss it."""
    return min(LONGEST_WAIT, delay / 4)


def absent(group: TargetGroup) -> str:
    """Return a clause that says that the target is not in *group*, and what is."""
    reading, target = group.reading, group.target
    others = ", ".join(reading.others) or "nothing"
    more = reading.targets - len(reading.others)
    rest = f" and {more} more" if reading.others and more > 0 else ""
    return f"{target.group} does not list {target}, but {others}{rest}"


def events_between(ages: list[float], now: float, clear: float | None, delay: float) -> tuple[float, ...]:
    """Return the times of events that may be about this task's target: after it was last clear, within the delay."""
    earliest = now - delay if clear is None else max(clear, now - delay)
    return tuple(sorted(now - age for age in ages if earliest - CLOCKS <= now - age <= now + CLOCKS))


CLOCKS = 2.0
"""Seconds by which AWS's clock and this host's may differ."""


def cause_of(
    group: TargetGroup,
    settings: AwsSettings,
    *,
    now: float,
    lag: float,
    delay: float,
    is_assumed: bool = False,
    is_draining: bool = False,
    told: tuple[float, ...] = (),
    started: float = -math.inf,
) -> DrainCause:
    """
    Return the claim that follows from the deregistration of the target from *group*.

    Args:
        group: The target group.
        settings: The validated options.
        now: When it was noticed.
        lag: Seconds between two polls.
        delay: The shortest delay of all groups.
        is_assumed: Whether that delay was assumed.
        is_draining: Whether a drain is running already.
        told: When the service deregistered targets, by its events; they are read if polls have failed for long.
        started: When the watch began: the earliest beginning for a target that has not been seen in service.
    """
    verdict = group.reading.verdict
    if group.clear is not None:
        began = group.clear
    else:
        # Not before the watch began, unless the container was restarted during the deregistration.
        began = max(min(started, now - settings.poll_interval), now - max(lag, FLOOR * delay))
    what = "being deregistered from" if verdict is Verdict.DRAINING else "no longer registered with"
    reason = f"the target {group.target} is {what} the target group {group.target.group}"
    if group.clear is None:
        reason += f"; since when is unknown, and taken to be {now - began:.0f} s"
    is_late = is_too_slow(now - began, delay) and verdict is Verdict.DRAINING
    cause_here = partial(DrainCause, TargetHealthTrigger.name, at=now, lag=now - began, taken_out=True)
    if is_draining and is_late:
        # Another source knew earlier and has set a deadline; counting from so old an answer would bring it to now.
        return cause_here(f"{reason}; that was noticed late")
    if verdict is Verdict.GONE and is_assumed:
        return cause_here(reason, deadline=now)  # the assumed delay was wrong
    least = 0.0
    if is_late:
        reason += f"; the last answer before is {now - began:.0f} s old"
        if told:
            began = max(began, min(told))
            reason += f", and by the service's events it began {now - began:.0f} s ago"
        # A single event is about this task's target. Of several, any may be.
        least = effective_margin(settings.margin, delay) / 2 if len(told) == 1 else FLOOR * delay
    ends = deadline(now, began, delay, settings.margin, settings.window, least)
    return cause_here(reason, deadline=ends, lag=now - began)
