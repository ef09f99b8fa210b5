"""The ECS records of the task: its service, where that registers it, and on which instance and ports it runs."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from starlette_drain.aws.api.as_sent import records_of
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, TroubleKind
from starlette_drain.aws.identity.balancers import guess_revision
from starlette_drain.aws.identity.metadata import HostPort, TaskMetadata

__all__ = ["EcsRecords"]


class EcsRecords:
    """The ECS records of one task. Each is requested once, when it is needed."""

    def __init__(self, calls: AwsCalls, task: TaskMetadata) -> None:
        self.metadata = task
        """The task's metadata."""
        self.asked = -math.inf
        """When the current record of the task was requested, on the event loop's clock."""
        self.is_denied = False
        """Whether the role may not call DescribeTasks."""
        self._calls = calls
        self._record: Mapping[str, Any] | None = None
        self._services: dict[str, Mapping[str, Any]] = {}
        self._asking = asyncio.Lock()

    async def task(self, *, since: float = -math.inf) -> Mapping[str, Any]:
        """Return the task as DescribeTasks shows it, requested no earlier than *since*."""
        async with self._asking:
            if self._record is None or self.asked < since:
                asked, task = asyncio.get_running_loop().time(), self.metadata
                answer = await self._calls.call("ecs", "DescribeTasks", cluster=task.cluster, tasks=[task.task_arn])
                self._record = _only(answer, "tasks", "DescribeTasks", task.task_arn)
                self.asked = asked
            return self._record

    def forget(self) -> None:
        """Drop all records, so that they are requested again."""
        self._record = None
        self._services.clear()

    async def service_name(self) -> str | None:
        """Return the name of the task's service, or ``None`` for a task that was started on its own."""
        if self.metadata.service:
            return self.metadata.service
        kind, _, name = str((await self.task()).get("group") or "").partition(":")
        return name if kind == "service" else None

    async def started_by(self) -> str:
        """Return the deployment or task set that started the task; empty if the call is denied or it is unknown."""
        try:
            return str((await self.task()).get("startedBy") or "")
        except AwsCallFailed as failed:
            if failed.trouble.kind is TroubleKind.DENIED:
                self.is_denied = True
                return ""
            raise

    async def revisions(self, service: str) -> list[Mapping[str, Any]]:
        """
        Return the revision of *service* that the task was started with; if that is not certain, all current ones.

        Raises:
            AwsCallFailed: If a call fails.
        """
        record, started_by = await self.service(service), await self.started_by()
        current = [str(each["arn"]) for each in record.get("currentServiceRevisions") or () if each.get("arn")]
        guess = guess_revision(record, started_by)
        if guess and (found := await self._revisions(guess, is_guess=guess not in current)):
            return found
        return await self._revisions(*current)

    async def size(self, service: str) -> int:
        """Return how many tasks *service* has or should have, including old and new ones during a deployment."""
        record = await self.service(service)
        current = (record.get("runningCount") or 0) + (record.get("pendingCount") or 0)
        return int(max(record.get("desiredCount") or 0, current))

    async def cluster_size(self) -> int:
        """Return the number of running and pending tasks of the cluster; 0 if ECS does not tell."""
        cluster = self.metadata.cluster
        try:
            found = _only(
                await self._calls.call("ecs", "DescribeClusters", clusters=[cluster]),
                "clusters",
                "DescribeClusters",
                cluster,
            )
        except Incomplete:
            return 0  # not essential: it only spreads the first calls
        counts = (found.get(each) for each in ("runningTasksCount", "pendingTasksCount"))
        return sum(each for each in counts if isinstance(each, int))

    async def addresses(self) -> set[str]:
        """Return the addresses of the task's network interfaces."""
        return _addresses(await self.task())

    async def addresses_of_others(self, stopped_of: str | None) -> set[str]:
        """
        Return the addresses of running tasks of the cluster, or of stopped tasks of the service *stopped_of*.

        Raises:
            AwsCallFailed: If a call fails.
        """
        which = {"desiredStatus": "RUNNING"}
        if stopped_of is not None:
            which = {"desiredStatus": "STOPPED", "serviceName": stopped_of}
        found: set[str] = set()
        async for record in self._others(**which):
            if stopped_of is None or record.get("lastStatus") == "STOPPED":
                found |= _addresses(record)
        return found

    async def _others(self, **which: str) -> AsyncIterator[Mapping[str, Any]]:
        cluster, more = self.metadata.cluster, dict[str, str]()
        while True:
            listed = await self._calls.call("ecs", "ListTasks", cluster=cluster, **which, **more)
            if arns := list(listed.get("taskArns") or ()):
                answer = await self._calls.call("ecs", "DescribeTasks", cluster=cluster, tasks=arns)
                for record in answer.get("tasks") or ():
                    yield record
            if not listed.get("nextToken"):
                return
            more = {"nextToken": listed["nextToken"]}

    async def host_ports(self, container: str | None, port: int | None, protocol: str) -> frozenset[int]:
        """
        Return the host ports that are mapped to *port* of *container*. In bridge mode they are usually dynamic.

        Args:
            container: The name of a container; ``None`` for any.
            port: A port of the container; ``None`` for the only one.
            protocol: The protocol of the target group; empty if unknown.

        Raises:
            Incomplete: If there is none (yet), or it is ambiguous.
        """
        boxes = [each for each in self.metadata.containers if container in (None, each.name)]
        bound = [each for box in boxes for each in box.host_ports if port in (None, each.container_port)]
        found = registered(bound, protocol)
        if not found and port and any("host" in box.network_modes for box in boxes):
            found = {port}
        if not found:
            found = registered(list(_bound((await self.task()).get("containers") or (), container, port)), protocol)
        if len(found) == 1 or (found and port is not None):
            return frozenset(found)
        what = f"port {port} of container {container}" if port else "the container port behind the target"
        problem = f"the host ports {sorted(found)} are ambiguous for" if found else "no host port leads to"
        raise Incomplete(problem=f"{problem} {what}", remedy="publish it in portMappings, or set DRAIN_TARGET_PORT")

    async def instance_id(self) -> str:
        """
        Return the id of the EC2 instance that the task runs on.

        Raises:
            Incomplete: If it does not run on one.
        """
        instance = (await self.task()).get("containerInstanceArn")
        if not instance:
            raise Incomplete(problem="the task runs on no container instance", remedy="set DRAIN_TARGET_ID")
        answer = await self._calls.call(
            "ecs", "DescribeContainerInstances", cluster=self.metadata.cluster, containerInstances=[instance]
        )
        record = _only(answer, "containerInstances", "DescribeContainerInstances", instance)
        return str(record.get("ec2InstanceId") or "")

    async def service(self, name: str, *, refresh: bool = False) -> Mapping[str, Any]:
        """Return the service with that *name* as DescribeServices shows it; *refresh* requests it again."""
        async with self._asking:
            if name in self._services and not refresh:
                return self._services[name]
            answer = await self._calls.call("ecs", "DescribeServices", cluster=self.metadata.cluster, services=[name])
            self._services[name] = _only(answer, "services", "DescribeServices", name)
            return self._services[name]

    async def _revisions(self, *arns: str, is_guess: bool = False) -> list[Mapping[str, Any]]:
        if not arns:
            return []
        try:
            answer = await self._calls.call("ecs", "DescribeServiceRevisions", serviceRevisionArns=list(arns))
        except AwsCallFailed as failed:
            if is_guess and failed.trouble.kind in (TroubleKind.NOT_FOUND, TroubleKind.OTHER):
                return []
            raise
        return [each for each in records_of(answer, "serviceRevisions") if each.get("serviceRevisionArn") in arns]


def _only(answer: Mapping[str, Any], key: str, operation: str, name: str) -> Mapping[str, Any]:
    """
    Return the one record that was requested.

    Raises:
        Incomplete: If there is none: ECS reports an unknown name in ``failures``, not as an error.
    """
    found = records_of(answer, key)
    if not found:
        why = next((each.get("reason") for each in answer.get("failures") or ()), None) or "no reason given"
        raise Incomplete(
            problem=f"ecs:{operation} does not know {name} ({why})", remedy="it will be retried; check the Region"
        )
    return found[0]


def _addresses(record: Mapping[str, Any]) -> set[str]:
    interfaces = [each for box in record.get("containers") or () for each in box.get("networkInterfaces") or ()]
    found = {each.get(key) for each in interfaces for key in ("privateIpv4Address", "ipv6Address")}
    # A stopped task may no longer list its interfaces, but its attachments still have the addresses.
    for attachment in record.get("attachments") or ():
        details = {each.get("name"): each.get("value") for each in attachment.get("details") or ()}
        found |= {details.get("privateIPv4Address"), details.get("ipv6Address")}
    return {address for address in found if address}


def registered(bound: list[HostPort], protocol: str) -> set[int]:
    """
    Return the host ports that ECS registers with a target group of that *protocol*.

    Docker assigns host ports separately for each protocol, and for IPv4 and IPv6, so one number may belong to two
    containers. ECS registers the IPv4 one: https://github.com/aws/amazon-ecs-agent/issues/3096. For TCP_UDP and
    TCP_QUIC both protocols have the same number.
    """
    bound = [each for each in bound if not each.is_ipv6] or bound
    tcp, udp = ({each.host_port for each in bound if each.protocol == kind} for kind in ("tcp", "udp"))
    match protocol:
        case "UDP" | "QUIC":
            return udp
        case "TCP_UDP" | "TCP_QUIC":
            return tcp & udp or tcp
        case "GENEVE" | "":
            return tcp or udp
    return tcp


def _bound(boxes: Iterable[Mapping[str, Any]], container: str | None, port: int | None) -> Iterator[HostPort]:
    for box in boxes:
        if container in (None, box.get("name")):
            for binding in box.get("networkBindings") or ():
                if binding.get("hostPort") and port in (None, binding.get("containerPort")):
                    yield HostPort.read(binding, "containerPort", "hostPort", "protocol", "bindIP")
