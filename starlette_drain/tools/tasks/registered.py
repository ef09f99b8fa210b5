# The admin token is sent only to a port that the service registers for the task: on another port a sidecar may listen.
"""Finds the container and port with which a service registers its tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette_drain.aws.api.as_sent import records_of
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.elbv2 import describe_health
from starlette_drain.aws.api.errors import AwsCallFailed
from starlette_drain.aws.identity.balancers import (
    Registration,
    find_task_set,
    guess_revision,
    is_of_newest,
    registrations_of,
)
from starlette_drain.aws.identity.identity import canonical_id

__all__ = ["Registrations", "address_of"]

Record = Mapping[str, Any]


class Registrations:
    """
    The containers and ports with which services register their tasks.

    Args:
        calls: The AWS calls.
    """

    def __init__(self, calls: AwsCalls) -> None:
        self._calls = calls
        self._by_start: dict[str, list[Registration]] = {}
        """The registrations of tasks of older revisions, by their ``startedBy``."""
        self._known: dict[str, Registration] = {}
        """The registration of a task, by ARN, once its port is known."""

    async def find(self, service: Record, tasks: Sequence[Record]) -> dict[str, Registration]:
        """
        Return the registration of each task of *service*, by ARN; none if its port is not known (yet).

        Denied calls are done without.
        """
        ports: dict[str, dict[str, int]] = {}
        for task in tasks:
            arn, address = str(task.get("taskArn")), address_of(task)
            if arn in self._known:
                continue
            for each in await self._of(service, str(task.get("startedBy") or "")):
                if each.port is None and each.target_group_arn not in ports:
                    ports[each.target_group_arn] = await self._ports_in(each.target_group_arn)
                port = each.port or ports[each.target_group_arn].get(canonical_id(address or ""))
                if port:
                    self._known[arn] = Registration(each.target_group_arn, each.container, port)
                    break
        return self._known

    async def _of(self, service: Record, started_by: str) -> list[Registration]:
        if task_sets := service.get("taskSets"):
            own = find_task_set(service, started_by)
            return registrations_of(own) if own and own.get("loadBalancers") else registrations_of(service, *task_sets)
        newest = registrations_of(service)
        if newest and is_of_newest(service, started_by):
            return newest
        if started_by not in self._by_start:
            if (found := await self._of_revisions(service, started_by)) is None:
                return newest
            self._by_start[started_by] = found
        return self._by_start[started_by] or newest

    async def _of_revisions(self, service: Record, started_by: str) -> list[Registration] | None:
        """Return the registrations of the task's revision, or of all current ones; ``None`` if no call succeeds."""
        current = [str(each["arn"]) for each in service.get("currentServiceRevisions") or () if each.get("arn")]
        guess, found = guess_revision(service, started_by), None
        for arns in ([guess] if guess else [], current):
            if arns:
                try:
                    answer = await self._calls.call("ecs", "DescribeServiceRevisions", serviceRevisionArns=arns)
                except AwsCallFailed:
                    continue
                if found := registrations_of(*records_of(answer, "serviceRevisions")):
                    break
        return found

    async def _ports_in(self, arn: str) -> dict[str, int]:
        """Return the registered port of each address in a target group."""
        try:
            targets = [each.get("Target") or {} for each in await describe_health(self._calls, arn)]
        except AwsCallFailed:
            return {}
        return {canonical_id(str(each.get("Id"))): int(each["Port"]) for each in targets if each.get("Port")}


def address_of(task: Record) -> str | None:
    """Return the private address of a task, if it has its own."""
    interfaces = (each for box in task.get("containers") or () for each in box.get("networkInterfaces") or ())
    interface: Record = next(interfaces, {})
    return interface.get("privateIpv4Address") or interface.get("ipv6Address")
