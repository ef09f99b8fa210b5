"""The trigger that watches what the load balancer does with this task's target."""

import asyncio
import os
from collections.abc import Mapping
from random import Random
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.facts import TriggerImpaired, TriggerStoodDown, WindowTooLong
from starlette_drain._core.settings import Settings
from starlette_drain.aws.calls import AwsCalls, region_of, unobserved
from starlette_drain.aws.client import Aioboto3Clients, AwsClients
from starlette_drain.aws.deadline import deadline, fitting_window
from starlette_drain.aws.ecs import EcsRecords
from starlette_drain.aws.errors import AwsCallFailed, TroubleKind
from starlette_drain.aws.group import GroupWatch
from starlette_drain.aws.identity import TaskIdentity, discover
from starlette_drain.aws.impairment import Impairment
from starlette_drain.aws.metadata import METADATA_VARIABLE, Fetch, TaskMetadata, fetch_json, read_task
from starlette_drain.aws.source import Search
from starlette_drain.aws.task_state import TaskVerdict, judge
from starlette_drain.aws.verdict import Verdict
from starlette_drain.triggers.base import Control

__all__ = ["TargetHealthTrigger"]


class TargetHealthTrigger:
    """
    Asks for a drain when the balancer deregisters this task's target.

    It finds out by itself who it is, then polls each of its target groups. The first group that takes the target out
    asks for a drain; the shortest deregistration delay of all groups rules. It asks once, and again only after the
    target has been seen back in service. A poll that fails changes nothing.

    Args:
        clients: Who makes the AWS clients; aioboto3 by default.
        environ: The environment; the process's own by default.
        rng: The source of luck.
        fetch: Who gets a JSON document from the task metadata endpoint; a thread with urllib by default.
    """

    name = "target-health"
    once_per_task = True
    """Runs in one worker of a task: the Describe calls are budgeted for the whole account and Region."""

    def __init__(
        self,
        *,
        clients: AwsClients | None = None,
        environ: Mapping[str, str] | None = None,
        rng: Random | None = None,
        fetch: Fetch = fetch_json,
    ) -> None:
        self._clients = clients
        self._environ = os.environ if environ is None else environ
        self._rng = rng or Random()
        self._fetch = fetch
        self._control: Control | None = None
        self._state = "not started"
        self._search: Search | None = None
        self._watches: tuple[GroupWatch, ...] = ()
        self._leaving: set[str] = set()
        self.identity: TaskIdentity | None = None

    async def watch(self, control: Control) -> None:
        """Find out who we are, then poll until cancelled."""
        self._control = control
        settings = control.settings
        if not settings.target_group_arn and not self._environ.get(METADATA_VARIABLE):
            self._stand_down(f"this is no ECS task: {METADATA_VARIABLE} is not set")
            return
        self._state = "discovering"
        self._search = search = Search(self.name, control, self._rng)
        task = await search.until_found(lambda: self._read_task(settings))
        arn = settings.target_group_arn[0] if settings.target_group_arn else (task.task_arn if task else "")
        async with AwsCalls(self._clients or Aioboto3Clients(), region_of(arn)) as calls:
            self.identity = await search.until_found(lambda: discover(calls, settings, task))
            if not self.identity.targets:
                self._stand_down(*self.identity.notes)
                return
            await self._poll(self.identity, calls, control)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the state, and of each target group the verdict, its age, and the number of targets."""
        ages = [now - each.answered for each in self._watches if each.answered is not None]
        errors = [each.last_error for each in self._watches if each.last_error]
        return {
            "state": self._state,
            "service": self.identity.service if self.identity else None,
            "task": self.identity.task.task_arn if self.identity and self.identity.task else None,
            "answer_age": round(max(ages), 3) if ages else None,
            "last_error": next(iter(errors), self._search and self._search.last_error),
            "notes": list(self.identity.notes) if self.identity else [],
            "target_groups": [each.status(now) for each in self._watches],
        }

    async def _read_task(self, settings: Settings) -> TaskMetadata | None:
        uri = self._environ.get(METADATA_VARIABLE)
        if not uri or (settings.target_group_arn and settings.target_id and settings.target_port):
            return None
        with unobserved():
            return await read_task(uri, self._fetch)

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
        self._advise(identity, control)
        impairment = Impairment(self.name, control)
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
                polling.create_task(each.run(), name=f"starlette_drain {self.name} {each.target.group}")

    def _advise(self, identity: TaskIdentity, control: Control) -> None:
        """Say how long a drain may take here, and warn of a window that does not fit."""
        settings = control.settings
        for trouble, note in zip(identity.troubles, identity.notes, strict=False):
            control.tell(TriggerImpaired(control.time(), self.name, f"{trouble.problem}; {note}", trouble.remedy))
        delay = identity.shortest_delay
        fits = fitting_window(delay, settings.poll_interval, settings.margin)
        if fits > 0:
            control.advise(fits)
        if settings.window is not None and settings.window > fits:
            control.tell(WindowTooLong(control.time(), settings.window, fits, delay))

    def _conclude(self, watch: GroupWatch) -> None:
        """Ask for a drain when the target groups begin to take the target out: the first of them, or the last."""
        if self._control is None or self.identity is None:
            return
        enough = 1 if self._control.settings.target_group_policy == "any" else len(self._watches)
        was_enough = len(self._leaving) >= enough
        verdict = watch.reading.verdict
        if verdict.leaving:
            self._leaving.add(watch.target.target_group_arn)
        elif verdict is Verdict.SERVING:
            self._leaving.discard(watch.target.target_group_arn)
        if len(self._leaving) >= enough and not was_enough:
            self._control.request(self._cause(watch, self.identity, self._control))

    def _cause(self, watch: GroupWatch, identity: TaskIdentity, control: Control) -> DrainCause:
        now = control.time()
        settings = control.settings
        began = watch.clear if watch.clear is not None else now - settings.poll_interval
        verdict = watch.reading.verdict
        what = "being deregistered from" if verdict is Verdict.DRAINING else "no longer registered with"
        reason = f"the target {watch.target} is {what} the target group {watch.target.group}"
        if watch.clear is None:
            reason += "; since when is unknown, and taken to be one poll interval"
        assumed = not all(each.delay_known for each in identity.targets)
        ends = deadline(now, began, identity.shortest_delay, settings.margin)
        refuted = verdict is Verdict.GONE and assumed
        if settings.window is not None:
            ends = min(ends, now + settings.window)
        return DrainCause(self.name, reason, at=now, deadline=now if refuted else ends, lag=now - began)

    def _stand_down(self, *why: str) -> None:
        self._state = "stood down"
        if self._control:
            self._control.tell(TriggerStoodDown(self._control.time(), self.name, "; ".join(why)))
