# Self-registration reconciles a wish with what the balancer shows.
#
# If ECS does not manage the balancer (no `loadBalancers` in the service), each task registers itself. ECS then knows no
# deregistration delay, and sends SIGTERM at once. But a drain by hand, by an event or by the task's own state may take
# as long as the delay allows, because the balancer cuts nothing before that.
#
# A drain, whatever started it, sets the wish OUT. When it is cancelled the wish is IN, or AS_WAS for a task that ECS
# registers: then only the entries that were deregistered here are restored. The wish is compared with
# DescribeTargetHealth and brought about, with backoff, for as long as it takes. After that no more calls are made, so
# an operator may deregister the target by hand.
#
# The order is that of ECS: deregister, shed within the delay, exit. Only the exit waits, in `before_exit`, until the
# target is seen `draining`, because until then the balancer may send more. The sheds do not wait:
#   - `draining` is seen with the next call, after about 0.3 s. In that time an even drain asks one session in a
#     thousand to leave. If one reconnects at once it is a late arrival, gets 503, and retries.
#   - `draining` only means that AWS has recorded it; the balancer's nodes follow later (an NLB's in up to two minutes).
#   - A drain that waited for a call would stall if AWS does not answer, while its window runs out.
#
# These set no wish:
#   service-deployment  the balancer sends nothing more to the old revision, and deregistering would start the delay,
#                       which is shorter than the bake time
#   SIGTERM in one of several workers: they may be restarted one after the other while the task goes on. If ECS says
#   that the task is ending, the wish is OUT. Otherwise the last worker to leave deregisters the task (last_out.py); it
#   finds the entries in a file
#
# A task that is killed deregisters nothing. ECS starts another task, which looks for leftover targets: those whose
# address belonged to a stopped task of the same service and belongs to no running task of the cluster. Nothing less is
# proof, because a target group may have targets that do not belong to the service.
"""Registers this task with its target groups, and deregisters it when a drain begins."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.deadline import deadline, fitting_window
from starlette_drain._core.events import (
    DrainCancelled,
    DrainReplanned,
    DrainStarted,
    Event,
    TriggerActed,
    TriggerImpaired,
)
from starlette_drain.aws.actions.last_out import LastOut
from starlette_drain.aws.api import elbv2
from starlette_drain.aws.api.backoff import Backoff
from starlette_drain.aws.api.calls import region_of
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, TroubleKind
from starlette_drain.aws.identity.identity import OwnTarget, TaskIdentity, canonical_id
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.aws.identity.targets import TargetEntries
from starlette_drain.aws.options import AwsSettings
from starlette_drain.aws.session import AWSSession, OpenSession
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.source import AwsSource
from starlette_drain.aws.sources.task_state import judge
from starlette_drain.triggers.base import Control

__all__ = ["SelfRegistration"]

SPARED = frozenset({"service-deployment"})

FIRST_RETRY, LAST_RETRY = 1.0, 30.0
"""Seconds between two attempts: the first and the longest pause."""

CONFIRMED_WITHIN = 30.0
"""Seconds after which a deregistered target counts as draining, if DescribeTargetHealth fails."""

STOP_LIMIT = 4.5
"""Seconds for which deregistering may delay the end of the application: triggers have 5 s to end."""

ASK_AGAIN = 1.0
"""Seconds between two checks whether ECS is stopping the task, while a worker that was told to stop drains."""

REAP_AFTER = (0.0, 60.0)
"""Seconds before each search for targets of killed tasks: ECS may report late that a task has stopped."""


REAPED = "the next task of the service deregisters it; until then the balancer relies on its health check"


class Wish(Enum):
    """The registration that this task should have."""

    AS_WAS = "as it was"
    IN = "in"
    OUT = "out"


DONE = {Wish.AS_WAS: "watching", Wish.IN: "registered", Wish.OUT: "deregistered"}
"""The state when a wish has been brought about."""


class SelfRegistration(AwsSource):
    """
    Registers this task with its target groups when the application has started, and deregisters it when it drains.

    Pass it like a trigger. Its failures never affect a drain.

    Args:
        session: The session of this process; by default a new one.
        registers: False for tasks that ECS registers. Then only a drain deregisters the task, and a cancelled drain
            restores its entries exactly. Meant for manual drains, which ECS does not know of.
        **own: The arguments of a new `AWSSession`.
    """

    name = "self-registration"
    subscribes = (DrainStarted, DrainReplanned, DrainCancelled)

    def __init__(self, session: AWSSession | None = None, *, registers: bool = True, **own: Any) -> None:
        super().__init__(session, **own)
        self._registers = registers
        self._home = Wish.IN if registers else Wish.AS_WAS
        self._wish = self._home
        self._control: Control | None = None
        self._identity: TaskIdentity | None = None
        self._groups: list[TargetEntries] = []
        self._impairment: Impairment | None = None
        self._problems: dict[str, str] = {}
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._sent: dict[str, float] = {}
        self._claim: DrainCause | None = None
        """The claim that a running drain ends before the balancer cuts."""
        self._last_out: LastOut | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._aws: OpenSession | None = None

    @asynccontextmanager
    async def attend(self, control: Control) -> AsyncIterator[None]:
        """
        Count this process among the workers of the task.

        The last worker to leave deregisters a task that registers itself. For a task that ECS registers, the
        deregistered entries are kept for the next leader.
        """
        given = AwsSettings.of(control.settings)
        who = self._session.environ.get(METADATA_VARIABLE), given.target_group_arn, given.target_id, given.target_port
        self._last_out = last_out = LastOut(f"{'registration' if self._registers else 'taken out'} {who}")
        await last_out.enter()
        try:
            yield
        finally:
            self._last_out = None
            self._wish = self._home
            try:
                if self._registers:
                    await self._take_back(last_out, control)
                elif last_out.leave():
                    last_out.note(None)
            finally:
                last_out.close()

    async def watch(self, control: Control) -> None:
        """Find the target groups, and bring about the wish until cancelled; then deregister the task."""
        if self._stand_down_off_ecs(control, works_with_group=True):
            return
        self._control = control
        self._news, self._settled = asyncio.Event(), asyncio.Event()
        self._state = "discovering"
        try:
            async with self._session.open(AwsSettings.of(control.settings)) as aws:
                identity = await self._until_found(aws.identity, Impairment(self.name, control, patience=1))
                if not identity.targets:
                    self._stand_down(control, "; ".join((*identity.notes, "set DRAIN_TARGET_GROUP_ARN")))
                    return
                self._identity = identity
                self._impairment = Impairment(self.name, control)
                control.note_window(fitting_window(identity.shortest_delay, 0.0, control.settings.margin))
                self._problems = {}
                self._groups = [
                    TargetEntries(aws.calls, each, registers=self._registers, note=self._note_taken_out)
                    for each in identity.targets
                ]
                self._recall()
                self._aws = aws
                if self._registers:
                    self._run_in_background(self._reap(aws, control))
                try:
                    await self._keep(control)
                finally:
                    for each in self._background:
                        each.cancel()
                    self._aws = None
                    await self._leave_at_stop(control)
        finally:
            self._control = None
            if self._last_out is None:  # otherwise this worker may become the leader again during the same drain
                self._wish = self._home
            self._settled.set()

    async def before_exit(self) -> None:
        """Wait while the balancer may still send to this task: the process must not end before."""
        if self._control is not None and self._wish is Wish.OUT:
            await self._settled.wait()

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the wish, whether it has been brought about, and the last error."""
        out_since = self._out_since()
        return {
            "state": self._state,
            "wish": self._wish.value,
            "deregistered_ago": None if out_since is None else round(now - out_since, 3),
            "targets": [str(each.target) for each in self._groups],
            "last_error": next(iter(self._problems.values()), None),
        }

    def notify(self, event: Event) -> None:
        """Set the wish when a drain begins, gets another cause, or is cancelled."""
        match event:
            case DrainStarted(cause=cause) | DrainReplanned(cause=cause) if self._deregisters_for(cause):
                self._session.hurry()
                self._wish_for(Wish.OUT)
            case DrainStarted(cause=cause) | DrainReplanned(cause=cause) if not cause.revocable:
                if self._aws is not None and self._session.is_on_ecs and self._wish is not Wish.OUT:
                    self._run_in_background(self._follow_ecs(self._aws))
            case DrainCancelled() if self._wish is Wish.OUT:
                self._wish_for(self._home)

    def _deregisters_for(self, cause: DrainCause) -> bool:
        control = self._control
        if control is not None and control.settings.mode != "drain":
            return False  # in observe-only mode nothing is deregistered
        is_of_one_worker = not cause.revocable and control is not None and control.workers > 1
        return cause.trigger != self.name and cause.trigger not in SPARED and not is_of_one_worker

    async def _follow_ecs(self, aws: OpenSession) -> None:
        """Set the wish OUT if ECS is stopping the task. This worker was told to stop, perhaps as the only one."""
        while self._wish is not Wish.OUT:
            with suppress(Incomplete):
                records = await aws.records()
                if judge(await records.task(since=aws.loop.time())).ends:
                    self._wish_for(Wish.OUT)
            await asyncio.sleep(ASK_AGAIN)

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _wish_for(self, wish: Wish) -> None:
        if wish is not self._wish:
            self._wish, self._claim = wish, None
            self._sent.clear()
            self._settled.clear()
            self._news.set()
            if wish is not Wish.OUT and self._control:
                self._control.withdraw(self.name)

    async def _keep(self, control: Control) -> None:
        backoff = Backoff(FIRST_RETRY, LAST_RETRY, self._session.rng)
        while True:
            self._news.clear()
            wish = self._wish
            results = await asyncio.gather(*(self._bring_about(wish, each, control) for each in self._groups))
            if wish is not self._wish:
                backoff.reset()
            elif all(results):
                self._state = DONE[wish]
                self._settled.set()
                backoff.reset()
                await self._news.wait()
            else:
                self._state = f"bringing it {wish.value}"
                await self._sleep(backoff.grow())

    async def _bring_about(self, wish: Wish, group: TargetEntries, control: Control) -> bool:
        """Go one step towards *wish*; return whether it has been brought about."""
        try:
            is_done = await (self._go_out if wish is Wish.OUT else self._go_home)(group, control)
        except AwsCallFailed as failed:
            self._problems[group.arn] = failed.problem
            if self._impairment:
                self._impairment.failed(group.arn, failed.trouble)
            return False
        self._problems.pop(group.arn, None)
        if self._impairment:
            self._impairment.worked(group.arn)
        self._note_registered()
        return is_done

    def _note_registered(self) -> None:
        """Record what the last worker to leave has to deregister."""
        if self._last_out is not None and self._registers:
            self._last_out.note({each.arn: each.entries for each in self._groups if each.out_since is None})

    def _note_taken_out(self) -> None:
        if self._last_out is not None and not self._registers:
            out = [each for each in self._groups if each.out_since is not None]
            self._last_out.note({each.arn: [each.out_since, each.entries] for each in out})

    def _recall(self) -> None:
        """Take over the entries that a previous leader has deregistered."""
        noted = self._last_out.read() if self._last_out is not None and not self._registers else None
        for each in self._groups:
            match noted:
                case {each.arn: [float(since), [*entries]]}:
                    each.recall(since, entries)

    async def _go_home(self, group: TargetEntries, control: Control) -> bool:
        if group.out_since is not None:
            if not await group.put_back(control.time()):
                return False
        elif not self._registers or not await group.put_in():
            return True
        self._tell(control, "registered", group.target)
        return True

    async def _go_out(self, group: TargetEntries, control: Control) -> bool:
        if group.arn not in self._sent:
            asked = control.time()
            if await group.take_out(asked):
                self._tell(control, "deregistered", group.target)
                self._ask(control)
            self._sent[group.arn] = asked
        try:
            if await group.is_out():
                return True
        except AwsCallFailed:
            # The deregistration succeeded. If it cannot be confirmed, do not wait for ever.
            if control.time() - self._sent[group.arn] < CONFIRMED_WITHIN:
                raise
            return True
        del self._sent[group.arn]  # it is registered, against the wish
        return False

    def _out_since(self) -> float | None:
        return min((each.out_since for each in self._groups if each.out_since is not None), default=None)

    def _ask(self, control: Control) -> None:
        """Claim that the drain ends before the balancer cuts, if it is still running."""
        out_since = self._out_since()
        if self._wish is not Wish.OUT or self._identity is None or out_since is None:
            return
        if self._claim is None:
            delay, now = self._identity.shortest_delay, control.time()
            reason = f"this task has deregistered itself, and the shortest delay is {delay:g} s"
            ends = deadline(now, out_since, delay, control.settings.margin)
            self._claim = DrainCause(
                self.name, reason, at=now, deadline=ends, lag=now - out_since, follows=True, taken_out=True
            )
        control.claim(self._claim)

    async def _leave_at_stop(self, control: Control) -> None:
        """Deregister the task because the application ends, if that is not done already."""
        if self._settled.is_set() and self._wish is Wish.OUT:
            return
        if self._wish is not Wish.OUT and (control.workers > 1 or not self._registers):
            return
        self._wish = Wish.OUT
        await asyncio.gather(*(self._leave(each, control) for each in self._groups))

    async def _leave(self, group: TargetEntries, control: Control) -> None:
        was_out = group.out_since is not None
        try:
            async with asyncio.timeout(STOP_LIMIT):
                # A task that registers itself knows its entries, and new ones may not be listed yet.
                is_out = await group.take_out(control.time(), looks=not self._registers)
        except (AwsCallFailed, TimeoutError) as error:
            self._problems[group.arn] = f"could not deregister at the end ({type(error).__name__})"
            return
        if is_out and not was_out:
            self._tell(control, "deregistered", group.target)
        self._note_registered()

    async def _take_back(self, last_out: LastOut, control: Control) -> None:
        """Deregister what another worker has registered, if this one is the last to leave."""
        left: Mapping[str, list[Mapping[str, Any]]] = last_out.leave() or {}
        if not left:
            return
        try:
            async with asyncio.timeout(STOP_LIMIT), self._session.open(AwsSettings.of(control.settings)) as aws:
                for arn in left:
                    aws.calls.regions["elbv2"] = region_of(arn)
                    await elbv2.deregister(aws.calls, arn, left[arn])
                    targets = ", ".join(str(each.get("Id")) for each in left[arn])
                    deed = f"deregistered {targets} from {arn}: the last worker has left"
                    control.emit(TriggerActed(control.time(), self.name, deed))
        except (AwsCallFailed, TimeoutError) as error:
            problem = f"the last worker could not deregister the task ({type(error).__name__})"
            control.emit(TriggerImpaired(control.time(), self.name, problem, REAPED))
        else:
            last_out.note(None)

    async def _reap(self, aws: OpenSession, control: Control) -> None:
        """Deregister the targets of killed tasks of this service."""
        if not self._session.is_on_ecs:
            return
        for pause in REAP_AFTER:
            await asyncio.sleep(pause)
            try:
                service = await aws.service.get()
                if service is not None:
                    await asyncio.gather(*(self._reap_from(each, service, aws, control) for each in self._groups))
            except AwsCallFailed as failed:
                if failed.trouble.kind is TroubleKind.DENIED:
                    problem = f"{failed.problem}; targets of killed tasks stay registered"
                    control.emit(TriggerImpaired(control.time(), self.name, problem, failed.remedy))
                    return
            except Incomplete:
                return

    async def _reap_from(self, group: TargetEntries, service: str, aws: OpenSession, control: Control) -> None:
        strangers = await group.strangers()
        if not strangers:
            return
        records = await aws.records()
        dead = await records.addresses_of_others(service) - await records.addresses_of_others(None)
        left = [each for each in strangers if canonical_id(str(each["Id"])) in dead]
        if left:
            await elbv2.deregister(aws.calls, group.arn, left)
            targets = ", ".join(str(each["Id"]) for each in left)
            deed = f"deregistered {targets} from the group {group.target.group}: left over from stopped tasks"
            control.emit(TriggerActed(control.time(), self.name, deed))

    def _tell(self, control: Control, done: str, target: OwnTarget) -> None:
        where = "from" if done == "deregistered" else "with"
        control.emit(TriggerActed(control.time(), self.name, f"{done} {target} {where} the group {target.group}"))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
