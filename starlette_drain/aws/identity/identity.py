"""Identifies this task: its service, its target groups, and its own targets in them."""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette_drain.aws.api import elbv2
from starlette_drain.aws.api.budget import FEW, PAIR
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, Trouble, TroubleKind
from starlette_drain.aws.identity.balancers import (
    Registration,
    find_task_set,
    is_of_newest,
    other_ways_in,
    registrations_of,
)
from starlette_drain.aws.identity.ecs import EcsRecords
from starlette_drain.aws.identity.metadata import TaskMetadata
from starlette_drain.aws.options import AwsSettings

__all__ = ["DEFAULT_DELAY", "OwnTarget", "TaskIdentity", "Turn", "canonical_id", "discover"]

Turn = Callable[[int, int, int, bool], Awaitable[None]]
"""Waits before the first call to ELBv2.

Its arguments are the number of tasks of the service, the number of tasks of its cluster (0 if unknown), the number of
target groups, and whether the first poll comes before all other calls.
"""

DEFAULT_DELAY = 300.0
"""Seconds: the default deregistration delay of a target group."""


def canonical_id(target_id: str) -> str:
    """Return the canonical form of *target_id*, for comparison: an IPv6 address has many forms."""
    if ":" not in target_id:
        return target_id  # an IPv4 address has only one; fast, because an answer may list thousands
    try:
        return str(ipaddress.ip_address(target_id))
    except ValueError:
        return target_id


@dataclass(frozen=True, slots=True)
class OwnTarget:
    """
    This task's target in one target group.

    Attributes:
        target_group_arn: The ARN of the group.
        ids: Its IP addresses or its instance id, in canonical form.
        ports: Its ports; empty for any port.
        delay: The deregistration delay in seconds.
        delay_known: Whether the delay was looked up or given, rather than assumed.
        delay_pending: Whether the delay is still to be looked up, after the first poll.
        target_type: ``"ip"`` or ``"instance"``; empty if it was not looked up.
        connection_termination: Whether an NLB cuts connections when the delay ends; ``None`` if it was not looked up.
    """

    target_group_arn: str
    ids: frozenset[str]
    ports: frozenset[int]
    delay: float
    delay_known: bool = True
    delay_pending: bool = False
    target_type: str = ""
    connection_termination: bool | None = None

    @property
    def group(self) -> str:
        """The name of the group."""
        return self.target_group_arn.rpartition(":targetgroup/")[2].partition("/")[0]

    def __str__(self) -> str:
        ports = ", ".join(map(str, sorted(self.ports))) or "any port"
        return f"{', '.join(sorted(self.ids))} ({ports})"


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """
    What this task knows about itself.

    Attributes:
        targets: Its targets, one for each target group; empty if there is nothing to watch: `notes` say why.
        task: Its metadata; ``None`` off ECS.
        service: The name of its service; ``None`` if there is none or it was not looked up.
        troubles: The failures of calls that were not essential.
        notes: Sentences about what was assumed instead, or why there is nothing to watch.
    """

    targets: tuple[OwnTarget, ...]
    task: TaskMetadata | None = None
    service: str | None = None
    troubles: tuple[Trouble, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def shortest_delay(self) -> float:
        """The shortest deregistration delay of all target groups, in seconds: the drain has to fit into it."""
        return min((each.delay for each in self.targets), default=DEFAULT_DELAY)


async def discover(
    calls: AwsCalls,
    settings: AwsSettings,
    task: TaskMetadata | None,
    wait_turn: Turn | None = None,
    records: EcsRecords | None = None,
) -> TaskIdentity:
    """
    Find this task's own targets. Whatever *settings* contain is not looked up.

    Args:
        calls: The AWS calls.
        settings: The validated options.
        task: The task's metadata; ``None`` off ECS.
        wait_turn: Awaited when the size of the service is known, before the first call to ELBv2. In a large service,
            calls that the first poll does not need are then postponed.
        records: The ECS records of *task*, if they are shared with others.

    Raises:
        DiscoveryError: If something is missing; it says what, and which permission or setting would help.
    """
    return await _Discovery(calls, settings, task, wait_turn, records).run()


@dataclass(slots=True)
class _Discovery:
    """One attempt to identify the task."""

    calls: AwsCalls
    settings: AwsSettings
    task: TaskMetadata | None
    wait_turn: Turn | None = None
    records: EcsRecords | None = None
    service: str | None = None
    troubles: list[Trouble] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_brief: bool = False
    """Whether only the calls for the first poll are made: the service is large, and the account's budget is shared."""

    async def run(self) -> TaskIdentity:
        if self.task and self.records is None:
            self.records = EcsRecords(self.calls, self.task)
        registrations = await self._registrations()
        if self.wait_turn and self.service and self.records:
            arns, size = {each.target_group_arn for each in registrations}, await self.records.size(self.service)
            in_awsvpc = self.task is not None and self.task.is_awsvpc
            self.is_brief = size > FEW and len(arns) == 1 and in_awsvpc and not self.settings.self_registration
            cluster = await self._cluster_size(size)
            await self.wait_turn(size, cluster, len(arns), self.is_brief)
        groups = await self._groups(registrations)
        targets: dict[str, OwnTarget] = {}
        for each in registrations:
            if each.target_group_arn not in groups:
                continue
            try:
                target = await self._target(each, groups[each.target_group_arn])
            except AwsCallFailed as failed:
                self._do_without_group(each.target_group_arn, failed, of=len(groups))
                continue
            known = targets.get(each.target_group_arn)
            targets[each.target_group_arn] = _merged(known, target) if known else target
        return TaskIdentity(tuple(targets.values()), self.task, self.service, tuple(self.troubles), tuple(self.notes))

    async def _cluster_size(self, size: int) -> int:
        """Return the number of tasks of the cluster; 0 if the service is so small that it makes no difference."""
        if self.records is None or size <= PAIR:
            return 0
        return await self.records.cluster_size()

    async def _registrations(self) -> list[Registration]:
        if self.settings.target_group_arn:
            return [Registration(arn) for arn in self.settings.target_group_arn]
        return await self._registrations_of_service()

    async def _registrations_of_service(self) -> list[Registration]:
        if self.records is None:
            raise Incomplete(problem="the target groups cannot be found off ECS", remedy="set DRAIN_TARGET_GROUP_ARN")
        self.service = name = await self.records.service_name()
        if name is None:
            self.notes.append("the task belongs to no service, so ECS registers it with no target group")
            return []
        service, started_by = await self.records.service(name), await self.records.started_by()
        if task_sets := service.get("taskSets"):
            own = find_task_set(service, started_by)
            return registrations_of(own) if own and own.get("loadBalancers") else registrations_of(service, *task_sets)
        revisions = await self._revisions(name, service, started_by)
        if len(revisions) == 1 and revisions[0].get("loadBalancers") is not None:
            found = registrations_of(*revisions)
        else:
            found = registrations_of(service, *revisions)
        if not found:
            ways = other_ways_in([service, *(service.get("deployments") or ()), *revisions])
            through = f" (traffic reaches them through {' and '.join(ways)})" if ways else ""
            self.notes.append(
                f"the service {name} registers its tasks with no target group{through}, so only SIGTERM and events can "
                "start a drain"
            )
        return found

    async def _revisions(self, name: str, service: Mapping[str, Any], started_by: str) -> list[Mapping[str, Any]]:
        """Return the revisions that this task may have; empty if ECS does not show them: then the service is used."""
        if self.records is None:
            return []
        try:
            return await self.records.revisions(name)
        except AwsCallFailed as failed:
            if registrations_of(service) and is_of_newest(service, started_by):
                return []  # the service shows what this task was started with
            self._do_without(failed, "a balancer that ECS manages, or that the service had before, is not found")
            return []

    async def _groups(self, registrations: list[Registration]) -> Mapping[str, Mapping[str, Any]]:
        """
        Return the target groups that exist, by ARN, as far as they were looked up.

        Raises:
            AwsCallFailed: If a call fails, or none of the groups exists.
        """
        arns = list(dict.fromkeys(each.target_group_arn for each in registrations))
        if not arns or (self.settings.target_id and self.settings.target_port):
            return {arn: {} for arn in arns}
        if self.is_brief:
            return {arn: {"TargetType": "ip"} for arn in arns}  # the only type for a task in awsvpc mode
        try:
            return await elbv2.describe_groups(self.calls, arns)
        except AwsCallFailed as failed:
            if failed.trouble.kind is TroubleKind.NOT_FOUND and len(arns) > 1:
                return await self._living(arns, failed)
            # ECS requires "ip" for a service in awsvpc mode, and "instance" for all others.
            # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/alb.html
            self._do_without(failed, "the target type is taken from the network mode")
            kind = "ip" if not self.task or self.task.is_awsvpc else "instance"
            return {arn: {"TargetType": kind} for arn in arns}

    async def _living(self, arns: list[str], failed: AwsCallFailed) -> Mapping[str, Mapping[str, Any]]:
        """Return those of several groups that exist, after one was not found."""
        living: dict[str, Mapping[str, Any]] = {}
        for arn in arns:
            try:
                living |= await elbv2.describe_groups(self.calls, [arn])
            except AwsCallFailed as gone:
                self._do_without_group(arn, gone, of=len(arns))
        if not living:
            raise failed
        return living

    async def _target(self, registration: Registration, group: Mapping[str, Any]) -> OwnTarget:
        target_type, protocol = str(group.get("TargetType") or ""), str(group.get("Protocol") or "")
        if target_type in ("lambda", "alb"):
            arn = registration.target_group_arn
            raise Incomplete(
                problem=f"{arn} has targets of type {target_type}", remedy="give target groups of type ip or instance"
            )
        ids = await self._ids(target_type)
        ports = await self._ports(registration, target_type, protocol)
        if is_pending := self.is_brief and self.settings.deregistration_delay is None:
            delay, known, termination = DEFAULT_DELAY, False, None
        else:
            delay, known, termination = await self._delay(registration.target_group_arn)
        arn = registration.target_group_arn
        return OwnTarget(arn, ids, ports, delay, known, is_pending, target_type, termination)

    async def _ids(self, target_type: str) -> frozenset[str]:
        if self.settings.target_id:
            return frozenset({canonical_id(self.settings.target_id)})
        if self.records is None or self.task is None:
            raise Incomplete(problem="the target id cannot be found off ECS", remedy="set DRAIN_TARGET_ID")
        if target_type == "instance":
            found: Iterable[str] = [await self.records.instance_id()]
        else:
            found = self.task.addresses or await self.records.addresses()
        ids = frozenset(canonical_id(each) for each in found if each)
        if not ids:
            raise Incomplete(
                problem="neither the metadata endpoint nor ECS shows the target id", remedy="set DRAIN_TARGET_ID"
            )
        return ids

    async def _ports(self, registration: Registration, target_type: str, protocol: str) -> frozenset[int]:
        if self.settings.target_port:
            return frozenset({self.settings.target_port})
        if target_type != "instance":
            # The address belongs only to this task, so without a port all of its ports are ours.
            return frozenset({registration.port} if registration.port else ())
        if self.records is None:
            raise Incomplete(problem="the target port cannot be found off ECS", remedy="set DRAIN_TARGET_PORT")
        if registration.port is None:
            registration = await self._completed(registration)
        return await self.records.host_ports(registration.container, registration.port, protocol)

    async def _completed(self, registration: Registration) -> Registration:
        """Add the container and port to a target group from the options, if the service registers with it."""
        arn = registration.target_group_arn
        try:
            found = await self._registrations_of_service()
        except AwsCallFailed as failed:
            self._do_without(failed, f"the only published port is taken for the target port in {arn}")
            return registration
        return next((each for each in found if each.target_group_arn == arn), registration)

    async def _delay(self, arn: str) -> tuple[float, bool, bool | None]:
        if self.settings.deregistration_delay is not None:
            return self.settings.deregistration_delay, True, None
        try:
            attributes = await elbv2.describe_attributes(self.calls, arn)
        except AwsCallFailed as failed:
            self._do_without(failed, f"a deregistration delay of {DEFAULT_DELAY:g} s is assumed, the default")
            return DEFAULT_DELAY, False, None
        delay = float(attributes.get("deregistration_delay.timeout_seconds") or 0)
        termination = attributes.get("deregistration_delay.connection_termination.enabled")
        return delay, True, None if termination is None else termination == "true"

    def _do_without_group(self, arn: str, failed: AwsCallFailed, *, of: int) -> None:
        """Ignore a group that does not exist, if it is one *of* several; otherwise raise."""
        if failed.trouble.kind is not TroubleKind.NOT_FOUND or of == 1:
            raise failed
        self.troubles.append(failed.trouble)
        self.notes.append(f"{arn} does not exist, and is not watched")

    def _do_without(self, failed: AwsCallFailed, note: str) -> None:
        """Go on if only a permission is missing; otherwise raise, since the next attempt may succeed."""
        if failed.trouble.kind is not TroubleKind.DENIED:
            raise failed
        self.troubles.append(failed.trouble)
        self.notes.append(note)


def _merged(one: OwnTarget, other: OwnTarget) -> OwnTarget:
    """Merge two targets in one group: a service may register two ports of a task."""
    ports = one.ports | other.ports if one.ports and other.ports else frozenset[int]()
    return OwnTarget(
        one.target_group_arn,
        one.ids | other.ids,
        ports,
        one.delay,
        one.delay_known,
        one.delay_pending,
        one.target_type,
        one.connection_termination,
    )
