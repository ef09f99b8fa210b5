# Names become pseudonyms. AWS's keywords, numbers and ports are kept. Nothing else of an answer is recorded.
#
# A task names its deployment, and a deployment its revisions, by a number at the end of an id or an ARN. Only that
# number gets a pseudonym, because FakeAWS must be able to tell that two of them are equal.
"""What a recording holds of AWS's answers. Pure functions."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["Fields", "deployment", "instance", "metadata", "revision", "service", "task", "word"]

WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""A keyword of AWS or of ours; other text is not written."""

Record = Mapping[str, Any]
Pseudonym = Callable[[object], str]
Fields = Callable[[Record, Pseudonym], dict[str, Any]]


def word(text: object) -> str | None:
    """Return *text* if it is a keyword of AWS or of ours; ``None`` for other text, which may be a name."""
    return text if isinstance(text, str) and WORD.fullmatch(text) else None


def metadata(answer: Record, pseudonym: Pseudonym) -> dict[str, Any]:
    """Return the fields of a task's metadata."""
    containers = []
    for each in answer.get("Containers") or ():
        networks = each.get("Networks") or ()
        shown: dict[str, Any] = {
            "name": pseudonym(each.get("Name")),
            "modes": [word(one.get("NetworkMode")) for one in networks],
            "addresses": [pseudonym(at) for one in networks for at in one.get("IPv4Addresses") or ()],
            "ipv6_addresses": [pseudonym(at) for one in networks for at in one.get("IPv6Addresses") or ()],
            "ports": [_port(one) for one in each.get("Ports") or ()],
        }
        containers.append(shown)
    return {
        "task": pseudonym(answer.get("TaskARN")),
        "cluster": pseudonym(answer.get("Cluster")),
        "launch_type": word(answer.get("LaunchType")),
        "known": word(answer.get("KnownStatus")),
        "desired": word(answer.get("DesiredStatus")),
        "containers": containers,
    }


def task(record: Record, pseudonym: Pseudonym) -> dict[str, Any]:
    """Return the fields of a task as DescribeTasks shows it."""
    last, desired, code = (word(record.get(each)) for each in ("lastStatus", "desiredStatus", "stopCode"))
    kind, _, name = str(record.get("group")).partition(":")
    named = {
        "service": pseudonym(name) if kind == "service" else None,
        "started_by": _number(record.get("startedBy"), pseudonym),
        "definition": _number(record.get("taskDefinitionArn"), pseudonym),
    }
    return {"last": last, "desired": desired, "stop_code": code, **named}


def instance(record: Record, pseudonym: Pseudonym) -> dict[str, Any]:
    """Return the fields of a container instance."""
    return {"instance": pseudonym(record["ec2InstanceId"])}


def service(record: Record, pseudonym: Pseudonym) -> dict[str, Any]:
    """Return the fields of a service."""
    newest = [each.get("id") for each in record.get("deployments") or () if each.get("status") == "PRIMARY"]
    return {
        "service": pseudonym(record.get("serviceName")),
        "balancers": _balancers(record, pseudonym),
        "controller": word((record.get("deploymentController") or {}).get("type")),
        "newest": _number(newest[0], pseudonym) if newest else None,
        "revisions": _numbers(record.get("currentServiceRevisions"), pseudonym),
        "task_sets": [
            {
                "id": _number(each.get("id"), pseudonym),
                "status": word(each.get("status")),
                "balancers": _balancers(each, pseudonym),
            }
            for each in record.get("taskSets") or ()
        ],
        **{name: record.get(f"{name}Count") for name in ("desired", "running", "pending")},
    }


def revision(record: Record, pseudonym: Pseudonym) -> dict[str, Any]:
    """Return the fields of a service revision, with the target groups that ECS manages."""
    managed = record.get("ecsManagedResources") or {}
    express = [
        pseudonym(group["arn"])
        for path in managed.get("ingressPaths") or ()
        for group in path.get("targetGroups") or ()
        if group.get("arn") and group.get("status") not in ("DEPROVISIONING", "DELETED")
    ]
    gateways = [
        _pair(each, pseudonym)
        for connection in managed.get("gatewayConnections") or ()
        for each in (connection.get("resources") or {}).get("hostSharedAlb") or ()
    ]
    return {
        "revision": _number(record["serviceRevisionArn"], pseudonym),
        "definition": _number(record.get("taskDefinition"), pseudonym),
        "balancers": None if record.get("loadBalancers") is None else _balancers(record, pseudonym),
        "express": express,
        "gateways": gateways,
    }


def deployment(record: Record, pseudonym: Pseudonym) -> dict[str, Any]:
    """Return the fields of a service deployment."""
    configuration, target = record.get("deploymentConfiguration") or {}, record.get("targetServiceRevision") or {}
    return {
        "deployment": _number(record["serviceDeploymentArn"], pseudonym),
        "status": word(record.get("status")),
        "stage": word(record.get("lifecycleStage")),
        "strategy": word(configuration.get("strategy")),
        "bake": configuration.get("bakeTimeInMinutes"),
        "sources": _numbers(record.get("sourceServiceRevisions"), pseudonym),
        "target": _number(target.get("arn"), pseudonym),
    }


def _port(port: Record) -> list[Any]:
    """Return the container port, the host port, the protocol, and whether that is of IPv6: they may differ."""
    return [port.get("ContainerPort"), port.get("HostPort"), word(port.get("Protocol")), ":" in str(port.get("HostIp"))]


def _balancers(record: Record, pseudonym: Pseudonym) -> list[dict[str, Any]]:
    found = []
    for each in record.get("loadBalancers") or ():
        pair = {**each, **(each.get("advancedConfiguration") or {})}
        named = {"container": pseudonym(each.get("containerName")), "port": each.get("containerPort")}
        found.append(_pair(pair, pseudonym) | named)
    return found


def _pair(record: Record, pseudonym: Pseudonym) -> dict[str, Any]:
    arn, alternate = record.get("targetGroupArn"), record.get("alternateTargetGroupArn")
    return {"group": pseudonym(arn) if arn else None, "alternate": pseudonym(alternate) if alternate else None}


def _numbers(records: Iterable[Record] | None, pseudonym: Pseudonym) -> list[str | None]:
    return [_number(each["arn"], pseudonym) for each in records or () if each.get("arn")]


def _number(name: object, pseudonym: Pseudonym) -> str | None:
    """Return a pseudonym for the last part of an id or ARN; ``None`` without one."""
    return pseudonym(name.rpartition("/")[2]) if isinstance(name, str) and name else None
