"""What ECS knows of the task: its service, where the service registers it, and on which instance and ports it runs."""

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.identity.metadata import TaskMetadata

__all__ = ["EcsRecords", "Registration"]


@dataclass(frozen=True, slots=True)
class Registration:
    """A target group into which a service registers its tasks, and with which port of which container."""

    target_group_arn: str
    container: str | None = None
    port: int | None = None


class EcsRecords:
    """What ECS records of one task; asks for each record once, and only when it is needed."""

    def __init__(self, calls: AwsCalls, task: TaskMetadata) -> None:
        self.metadata = task
        """What the metadata endpoint tells."""
        self.asked = -math.inf
        """When the present record of the task was asked for, on the event loop's clock."""
        self._calls = calls
        self._record: Mapping[str, Any] | None = None
        self._services: dict[str, Mapping[str, Any]] = {}
        self._asking = asyncio.Lock()

    async def task(self, *, since: float = -math.inf) -> Mapping[str, Any]:
        """Return the task as DescribeTasks shows it; ask again where that was asked for before *since*."""
        async with self._asking:
            if self._record is None or self.asked < since:
                asked, task = asyncio.get_running_loop().time(), self.metadata
                answer = await self._calls.call("ecs", "DescribeTasks", cluster=task.cluster, tasks=[task.task_arn])
                self._record = _only(answer, "tasks", "DescribeTasks", task.task_arn)
                self.asked = asked
            return self._record

    def forget(self) -> None:
        """Ask for each record again when it is needed."""
        self._record = None
        self._services.clear()

    async def service_name(self) -> str | None:
        """Return the name of the task's service, or ``None`` for a task that was started on its own."""
        if self.metadata.service:
            return self.metadata.service
        kind, _, name = str((await self.task()).get("group") or "").partition(":")
        return name if kind == "service" else None

    async def registrations(self, service: str) -> list[Registration]:
        """
        Return where *service* registers its tasks.

        In a blue/green, linear or canary deployment an entry names a pair of target groups, and this task is in one of
        them: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AdvancedConfiguration.html. With the
        controllers CODE_DEPLOY and EXTERNAL the entries are those of the task sets.
        """
        record = await self._service(service)
        entries = [*(record.get("loadBalancers") or ())]
        for task_set in record.get("taskSets") or ():
            entries += task_set.get("loadBalancers") or ()
        return list(dict.fromkeys(each for entry in entries for each in _registrations(entry)))

    async def size(self, service: str) -> int:
        """Return how many tasks *service* has or is to have, the old and the new ones of a deployment together."""
        record = await self._service(service)
        there = (record.get("runningCount") or 0) + (record.get("pendingCount") or 0)
        return int(max(record.get("desiredCount") or 0, there))

    async def addresses(self) -> set[str]:
        """Return the addresses of the task's network interfaces."""
        record = await self.task()
        interfaces = [each for box in record.get("containers") or () for each in box.get("networkInterfaces") or ()]
        found = {each.get(key) for each in interfaces for key in ("privateIpv4Address", "ipv6Address")}
        return {address for address in found if address}

    async def host_ports(self, container: str | None, port: int | None) -> frozenset[int]:
        """
        Return the ports of the host that lead to *port* of *container*: dynamic ones, as a rule, in bridge mode.

        Raises:
            Incomplete: If there is none (yet).
        """
        boxes = [each for each in self.metadata.containers if container in (None, each.name)]
        found = {host for box in boxes for inner, host in box.host_ports if port in (None, inner)}
        if not found and port and any("host" in box.network_modes for box in boxes):
            found = {port}
        if not found:
            found = set(_bound((await self.task()).get("containers") or (), container, port))
        if len(found) == 1 or (found and port is not None):
            return frozenset(found)
        what = f"port {port} of container {container}" if port else "the container port behind the target"
        problem = f"the host ports {sorted(found)} do not tell" if found else "no host port leads to"
        raise Incomplete(problem=f"{problem} {what}", remedy="publish it in portMappings, or set DRAIN_TARGET_PORT")

    async def instance_id(self) -> str:
        """
        Return the id of the EC2 instance that the task runs on.

        Raises:
            Incomplete: If it runs on none.
        """
        instance = (await self.task()).get("containerInstanceArn")
        if not instance:
            raise Incomplete(problem="the task runs on no container instance", remedy="set DRAIN_TARGET_ID")
        answer = await self._calls.call(
            "ecs", "DescribeContainerInstances", cluster=self.metadata.cluster, containerInstances=[instance]
        )
        record = _only(answer, "containerInstances", "DescribeContainerInstances", instance)
        return str(record.get("ec2InstanceId") or "")

    async def _service(self, name: str) -> Mapping[str, Any]:
        async with self._asking:
            if name in self._services:
                return self._services[name]
            answer = await self._calls.call("ecs", "DescribeServices", cluster=self.metadata.cluster, services=[name])
            self._services[name] = _only(answer, "services", "DescribeServices", name)
            return self._services[name]


def _only(answer: Mapping[str, Any], key: str, operation: str, name: str) -> Mapping[str, Any]:
    """Return the one record that was asked for: ECS reports an unknown name in ``failures``, not as an error."""
    found: list[Mapping[str, Any]] = answer.get(key) or []
    if not found:
        why = next((each.get("reason") for each in answer.get("failures") or ()), None) or "no reason given"
        raise Incomplete(
            problem=f"ecs:{operation} does not know {name} ({why})", remedy="it is tried again; is the Region right?"
        )
    return found[0]


def _registrations(entry: Mapping[str, Any]) -> Iterable[Registration]:
    alternate = (entry.get("advancedConfiguration") or {}).get("alternateTargetGroupArn")
    for arn in (entry.get("targetGroupArn"), alternate):
        if arn:  # a Classic Load Balancer has none
            yield Registration(arn, entry.get("containerName"), entry.get("containerPort"))


def _bound(boxes: Iterable[Mapping[str, Any]], container: str | None, port: int | None) -> Iterable[int]:
    for box in boxes:
        if container in (None, box.get("name")):
            for binding in box.get("networkBindings") or ():
                if binding.get("hostPort") and port in (None, binding.get("containerPort")):
                    yield int(binding["hostPort"])
