# Registering oneself: what is wished, and what the balancer shows.
#
# Where the tie between ECS and the balancer is cut (no `loadBalancers` in the service), each task registers itself. ECS
# then knows no deregistration delay, and sends SIGTERM at once; but a drain by hand, by an event or by the task's own
# state may take as long as the delay allows, because the balancer cuts nothing before.
#
# A drain, whatever started it, wishes OUT. That it is cancelled wishes IN, or for a task that ECS registered AS_WAS:
# what was taken out from here is put back, and nothing else. What is wished is compared with what DescribeTargetHealth
# shows and brought about, with back-off, for as long as it takes. Then no more calls are made, so an operator who takes
# the target out by hand is not contradicted.
#
# The order is the one in which ECS does it: deregister, shed within the delay, end. Only the end of the process waits,
# in `before_exit`, until the target is seen `draining`: before that the balancer may send more. The sheds do not:
#   - `draining` is seen with the next call, in some 0.3 s, in which an even drain asks one session in a thousand; what
#     of these comes straight back is a late arrival, answered 503, and tries again
#   - it says that AWS has taken note; the balancer's nodes follow when they do (an NLB's in up to two minutes)
#   - a drain that waited for a call would stand still where AWS does not answer, and spend a window that does not wait
#
# What wishes nothing:
#   service-deployment  the balancer sends nothing to the old revision any more, and to deregister would begin the very
#                       delay that its bake time is to outlast
#   SIGTERM of one of several workers: a restart of them in turn does not mean the task. Where ECS says that the task is
#   to end, it does. Otherwise the last of them to leave takes the task out (last_out.py), whichever it is: it finds in
#   a file what there is to take out
#
# A task that is killed takes nothing out. ECS starts another in its place, and that one looks for what was left behind:
# targets whose address was that of a task of the same service that has stopped, and is that of no running task of the
# cluster. No other proof will do, since a target group may have targets that are nothing to do with us.
"""Registering this task with its target groups by itself, and taking it out when a drain begins."""

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
"""Seconds between two attempts: at first, and at the most."""

CONFIRMED_WITHIN = 30.0
"""Seconds after which a target that was deregistered is taken for drained, where looking is not allowed."""

STOP_LIMIT = 4.5
"""Seconds that deregistering may hold up the end of the application: triggers have 5 s to end."""

ASK_AGAIN = 1.0
"""Seconds between two questions whether ECS ends the task, while a worker that was told to stop drains."""

REAP_AFTER = (0.0, 60.0)
"""Seconds between looks for what tasks that were killed have left behind: ECS may tell late that one has stopped."""


REAPED = "the next task of the service deregisters it; until then the balancer finds out by its health check"


class Wish(Enum):
    """Where this task's targets are to be."""

    AS_WAS = "as it was"
    IN = "in"
    OUT = "out"


COME_ABOUT = {Wish.AS_WAS: "watching", Wish.IN: "registered", Wish.OUT: "deregistered"}
"""What the state is called when a wish has come about."""


class SelfRegistration(AwsSource):
    """
    Registers this task with its target groups when the application has started, and takes it out when it drains.

    Pass it like a trigger: it watches, and is notified of every drain. Nothing that fails here breaks a drain.

    Args:
        registers: False for tasks that ECS registers: only a drain takes such a task out, and a cancelled one puts it
            back, exactly as it was. Meant for a drain by hand, which ECS does not expect.
        session: The session of this process; one of its own by default.
        **own: See `AWSSession`, for a session of its own.
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
        """What is wanted now: that a drain under way ends before the balancer cuts."""
        self._last_out: LastOut | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._aws: OpenSession | None = None

    @asynccontextmanager
    async def attend(self, control: Control) -> AsyncIterator[None]:
        """
        Be one of the workers of the task.

        The last one to leave takes out a task that registers itself. What was taken out of a task that ECS registers is
        remembered for the next leader.
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
        """Find the target groups, and bring about what is wished until cancelled; then take the task out."""
        if not AwsSettings.of(control.settings).target_group_arn and self._stand_down_off_ecs(control):
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
                    self._do_meanwhile(self._reap(aws, control))
                try:
                    await self._keep(control)
                finally:
                    for each in self._background:
                        each.cancel()
                    self._aws = None
                    await self._leave_at_stop(control)
        finally:
            self._control = None
            if self._last_out is None:  # otherwise another worker may lead during the same drain, and this one again
                self._wish = self._home
            self._settled.set()

    async def before_exit(self) -> None:
        """Wait while the balancer may still send to this task: the process is not to end before."""
        if self._control is not None and self._wish is Wish.OUT:
            await self._settled.wait()

    def status(self, now: float) -> Mapping[str, Any]:
        """Return what is wished, whether it has come about, and what went wrong."""
        out_since = self._out_since()
        return {
            "state": self._state,
            "wish": self._wish.value,
            "deregistered_ago": None if out_since is None else round(now - out_since, 3),
            "targets": [str(each.target) for each in self._groups],
            "last_error": next(iter(self._problems.values()), None),
        }

    def notify(self, event: Event) -> None:
        """Follow drains that begin, go on for another cause, or are cancelled."""
        match event:
            case DrainStarted(cause=cause) | DrainReplanned(cause=cause) if self._heeds(cause):
                self._session.hurry()
                self._wish_for(Wish.OUT)
            case DrainStarted(cause=cause) | DrainReplanned(cause=cause) if not cause.revocable:
                if self._aws is not None and self._session.is_on_ecs and self._wish is not Wish.OUT:
                    self._do_meanwhile(self._follow_ecs(self._aws))
            case DrainCancelled() if self._wish is Wish.OUT:
                self._wish_for(self._home)

    def _heeds(self, cause: DrainCause) -> bool:
        control = self._control
        if control is not None and control.settings.mode != "drain":
            return False  # what only observes takes nothing out
        is_of_one_worker = not cause.revocable and control is not None and control.workers > 1
        return cause.trigger != self.name and cause.trigger not in SPARED and not is_of_one_worker

    async def _follow_ecs(self, aws: OpenSession) -> None:
        """Wish the task out if ECS ends it: this worker was told to stop, and it may be the only one."""
        while self._wish is not Wish.OUT:
            with suppress(Incomplete):
                records = await aws.records()
                if judge(await records.task(since=aws.loop.time())).ends:
                    self._wish_for(Wish.OUT)
            await asyncio.sleep(ASK_AGAIN)

    def _do_meanwhile(self, work: Coroutine[Any, Any, None]) -> None:
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
                self._state = COME_ABOUT[wish]
                self._settled.set()
                backoff.reset()
                await self._news.wait()
            else:
                self._state = f"bringing it {wish.value}"
                await self._sleep(backoff.grow())

    async def _bring_about(self, wish: Wish, group: TargetEntries, control: Control) -> bool:
        """Go one step towards *wish*; return whether it has come about."""
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
        self._note_for_the_last()
        return is_done

    def _note_for_the_last(self) -> None:
        if self._last_out is not None and self._registers:
            self._last_out.note({each.arn: each.entries for each in self._groups if each.out_since is None})

    def _note_taken_out(self) -> None:
        if self._last_out is not None and not self._registers:
            out = [each for each in self._groups if each.out_since is not None]
            self._last_out.note({each.arn: [each.out_since, each.entries] for each in out})

    def _recall(self) -> None:
        """Know what a leader before this one has taken out."""
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
            # The deregistration went through; not being allowed to look must not hold up anything for ever.
            if control.time() - self._sent[group.arn] < CONFIRMED_WITHIN:
                raise
            return True
        del self._sent[group.arn]  # it is in, against our wish
        return False

    def _out_since(self) -> float | None:
        return min((each.out_since for each in self._groups if each.out_since is not None), default=None)

    def _ask(self, control: Control) -> None:
        """Let the drain under way know when the balancer will cut, if it still goes on."""
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
        """Take the task out although nothing drains, or what was begun is not done: the application ends."""
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
                # A task that registers itself knows its entries, and one just registered may not be listed yet.
                is_out = await group.take_out(control.time(), looks=not self._registers)
        except (AwsCallFailed, TimeoutError) as error:
            self._problems[group.arn] = f"could not deregister at the end ({type(error).__name__})"
            return
        if is_out and not was_out:
            self._tell(control, "deregistered", group.target)
        self._note_for_the_last()

    async def _take_back(self, last_out: LastOut, control: Control) -> None:
        """Take out what another worker has registered, if this one is the last to leave."""
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
        """Take out what tasks of this service have left behind that were killed."""
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
            deed = f"deregistered {targets} from the group {group.target.group}: left behind by tasks that have stopped"
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
