# Where ECS records a service's balancers, by the kind of service:
#
#   loadBalancers                       the service, its revisions, and with CODE_DEPLOY and EXTERNAL its task sets
#   blue/green, linear, canary          the same entries; advancedConfiguration names the other group of the pair
#   Express mode                        the revision: ecsManagedResources.ingressPaths[].targetGroups
#   Gateway connector                   the revision: ecsManagedResources.gatewayConnections[].resources.hostSharedAlb
#   Service Connect, VPC Lattice        no target group of ELBv2 at all
#
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceRevision.html. The record of a service shows the
# balancers of its newest revision. A task keeps those of the revision, or task set, that it was started with.
"""Finds the balancers of a service in ECS records. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Registration", "find_task_set", "guess_revision", "is_of_newest", "other_ways_in", "registrations_of"]

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Registration:
    """A target group with which a service registers its tasks, and the container and port that it registers."""

    target_group_arn: str
    container: str | None = None
    port: int | None = None


def registrations_of(*records: Record) -> list[Registration]:
    """Return the target groups with which services, task sets or service revisions register their tasks."""
    return list(dict.fromkeys(each for record in records for each in _registrations(record)))


def find_task_set(service: Record, started_by: str) -> Record | None:
    """Return the task set that started a task, by its ``startedBy``."""
    return next((each for each in service.get("taskSets") or () if started_by and each.get("id") == started_by), None)


def is_of_newest(service: Record, started_by: str) -> bool:
    """Return whether a task was started by the newest deployment, whose balancers *service* shows."""
    newest = [each for each in service.get("deployments") or () if each.get("status") == "PRIMARY"]
    return bool(started_by) and any(each.get("id") == started_by for each in newest)


def guess_revision(service: Record, started_by: str) -> str | None:
    """
    Return a guess at the ARN of a task's revision, or ``None``.

    ECS gives the deployment in ``startedBy`` and the revision the same number. That is not documented.
    """
    number = started_by.removeprefix("ecs-svc/")
    prefix, _, place = str(service.get("serviceArn") or "").partition(":service/")
    if not (number.isdigit() and place.count("/") == 1):
        return None
    return f"{prefix}:service-revision/{place}/{number}"


def other_ways_in(records: Sequence[Record]) -> list[str]:
    """Return AWS's names for other ways than ELBv2 target groups by which traffic reaches the tasks."""
    found = []
    if any((each.get("serviceConnectConfiguration") or {}).get("enabled") for each in records):
        found.append("Service Connect")
    if any(each.get("vpcLatticeConfigurations") for each in records):
        found.append("VPC Lattice")
    entries = [entry for each in records for entry in each.get("loadBalancers") or ()]
    if any(each.get("loadBalancerName") and not each.get("targetGroupArn") for each in entries):
        found.append("a Classic Load Balancer")
    return found


def _registrations(record: Record) -> Iterator[Registration]:
    for entry in record.get("loadBalancers") or ():
        alternate = (entry.get("advancedConfiguration") or {}).get("alternateTargetGroupArn")
        for arn in (entry.get("targetGroupArn"), alternate):
            if arn:  # a Classic Load Balancer has no target group
                yield Registration(arn, entry.get("containerName"), entry.get("containerPort"))
    for arn in _managed(record.get("ecsManagedResources") or {}):
        yield Registration(arn)  # only in awsvpc mode, where every port of the address belongs to the task


def _managed(resources: Record) -> Iterable[str]:
    for path in resources.get("ingressPaths") or ():
        for group in path.get("targetGroups") or ():
            if group.get("arn") and group.get("status") not in ("DEPROVISIONING", "DELETED"):
                yield group["arn"]
    for connection in resources.get("gatewayConnections") or ():
        for balancer in (connection.get("resources") or {}).get("hostSharedAlb") or ():
            for arn in (balancer.get("targetGroupArn"), balancer.get("alternateTargetGroupArn")):
                if arn:
                    yield arn
