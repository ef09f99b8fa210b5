"""The JSON protocol of Elastic Container Service."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette_drain.testing.fake_aws.cluster import ACCOUNT, REGION, FakeService, FakeTask, load_balancer
from starlette_drain.testing.fake_aws.definition import describe
from starlette_drain.testing.fake_aws.faults import ApiError

__all__ = ["answer", "error_json"]


def answer(action: str, request: Mapping[str, Any], services: Iterable[FakeService], tasks: Iterable[FakeTask]) -> Any:
    """
    Return the JSON object that answers *action*.

    Raises:
        ApiError: If the API would answer with an error.
    """
    if action == "DescribeTaskDefinition":  # which has no cluster
        return describe(str(request.get("taskDefinition") or ""), [_definition(each) for each in services])
    named = request.get("cluster") or next(iter(request.get("clusters") or ()), None) or "default"
    cluster = str(named).rpartition("/")[2]
    services = [each for each in services if each.cluster == cluster]
    tasks = [each for each in tasks if each.cluster == cluster]
    if not services and not tasks:
        raise ApiError("ClusterNotFoundException", "Cluster not found.")
    match action:
        case "DescribeTasks":
            known = {name: each.record() for each in tasks for name in (each.id, each.arn)}
            return _found(request.get("tasks") or (), known, "tasks", f"task/{cluster}")
        case "ListTasks":
            wanted = request.get("desiredStatus", "RUNNING")
            found = [each for each in tasks if each.desired_status == wanted]
            if starter := request.get("startedBy"):
                found = [each for each in found if each.started_by == starter]
            if name := request.get("serviceName"):
                found = [each for each in found if each.service and name in (each.service.name, each.service.arn)]
            return {"taskArns": [each.arn for each in found]}
        case "DescribeClusters":
            return {"clusters": [_cluster(cluster, services, tasks)], "failures": []}
        case "DescribeServices":
            known = {name: _service(each, tasks) for each in services for name in (each.name, each.arn)}
            return _found(request.get("services") or (), known, "services", f"service/{cluster}")
        case "DescribeContainerInstances":
            known = {each.instance_arn: _instance(each) for each in tasks if each.instance_id}
            wanted = request.get("containerInstances") or ()
            return _found(wanted, known, "containerInstances", f"container-instance/{cluster}")
    raise ApiError("InvalidAction", f"FakeAWS does not speak {action}")


def error_json(error: ApiError) -> dict[str, str]:
    """Return the JSON object of an error."""
    return {"__type": error.code, "message": error.message}


def _found(wanted: Iterable[str], known: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    """Return the records that exist; ECS reports the others as failures and not as an error."""
    wanted = list(wanted)
    missing = [name for name in wanted if name not in known]
    failures = [{"arn": _arn(name, path), "reason": "MISSING"} for name in missing]
    return {key: [known[name] for name in wanted if name in known], "failures": failures}


def _arn(name: str, path: str) -> str:
    return name if name.startswith("arn:") else f"arn:aws:ecs:{REGION}:{ACCOUNT}:{path}/{name}"


def _cluster(name: str, services: Iterable[FakeService], tasks: Iterable[FakeTask]) -> dict[str, Any]:
    running = sum(each.last_status != "STOPPED" for each in tasks)
    return {
        "clusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{name}",
        "clusterName": name,
        "status": "ACTIVE",
        "runningTasksCount": running,
        "pendingTasksCount": max(0, sum(each.desired for each in services) - running),
    }


def _service(service: FakeService, tasks: Iterable[FakeTask]) -> dict[str, Any]:
    running = [each for each in tasks if each.service is service and each.last_status != "STOPPED"]
    record: dict[str, Any] = {
        "serviceArn": service.arn,
        "serviceName": service.name,
        "clusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{service.cluster}",
        "loadBalancers": [load_balancer(each) for each in service.registrations],
        "serviceRegistries": [],
        "status": service.status,
        "desiredCount": service.desired,
        "runningCount": len(running),
        "pendingCount": 0,
        "taskDefinition": _definition(service)["taskDefinitionArn"],
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": False, "rollback": False},
            "maximumPercent": service.max_percent,
            "minimumHealthyPercent": service.min_percent,
            "strategy": service.strategy,
        },
        "capacityProviderStrategy": [
            {"capacityProvider": "FARGATE_SPOT" if service.spot else "FARGATE", "weight": 1, "base": 0}
        ],
        "deployments": [],
        "events": [
            {
                "id": f"{number:08x}-0000-4000-8000-000000000000",
                "createdAt": at,
                "message": f"(service {service.name}) {message}.",
            }
            for number, (at, message) in enumerate(service.events[:100])
        ],
        "schedulingStrategy": "REPLICA",
        "deploymentController": {"type": service.controller},
    }
    if service.is_deployed_by_ecs:
        record |= _revisions(service, running)
    elif service.task_sets:
        record["taskSets"] = [
            {
                "id": each.started_by,
                "serviceArn": service.arn,
                "status": each.status,
                "loadBalancers": [load_balancer(one) for one in each.registrations],
            }
            for each in service.task_sets
        ]
    if service.bake is not None:
        record["deploymentConfiguration"]["bakeTimeInMinutes"] = service.bake
    configuration = record["deploymentConfiguration"]
    if service.strategy == "CANARY":
        percent, minutes = service.canary
        configuration["canaryConfiguration"] = {"canaryPercent": percent, "canaryBakeTimeInMinutes": minutes}
    if service.alarms:
        configuration["alarms"] = {"alarmNames": list(service.alarms), "rollback": True, "enable": True}
    if service.early_success:
        configuration["earlySuccessCriteria"] = {
            "enable": True,
            "healthyPercent": 100,
            "sourceServiceRevisionCleanup": service.early_success,
        }
    return record


def _revisions(service: FakeService, running: list[FakeTask]) -> dict[str, Any]:
    """Return the fields of a service's record about the revisions that have tasks, and about the newest."""
    deployments, current = [], []
    for revision in reversed(service.revisions):
        count = sum(each.started_by == revision.started_by for each in running)
        is_newest = revision is service.revisions[-1]
        if not count and not is_newest:
            continue
        wanted = service.desired if is_newest else 0
        current.append(
            {
                "arn": revision.arn,
                "requestedTaskCount": wanted,
                "runningTaskCount": count,
                "pendingTaskCount": 0,
            }
        )
        deployments.append(
            {
                "id": revision.started_by,
                "status": "PRIMARY" if is_newest else "ACTIVE",
                "taskDefinition": f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/app:{revision.definition}",
                "desiredCount": wanted,
                "pendingCount": 0,
                "runningCount": count,
                "failedTasks": 0,
                "createdAt": datetime(2026, 1, 1, tzinfo=UTC).timestamp(),
                "rolloutState": "COMPLETED" if len(service.revisions) == 1 else "IN_PROGRESS",
                **service.connections(),
            }
        )
    managed = any(each.express for each in service.revisions)
    kind = "ECS" if managed else "CUSTOMER"
    return {"deployments": deployments, "currentServiceRevisions": current, "resourceManagementType": kind}


def _definition(service: FakeService) -> dict[str, Any]:
    containers = dict.fromkeys(each.container for each in service.registrations) or {"app": None}
    return service.definition.record(f"arn:aws:ecs:{REGION}:{ACCOUNT}", containers)


def _instance(task: FakeTask) -> dict[str, Any]:
    return {
        "containerInstanceArn": task.instance_arn,
        "ec2InstanceId": task.instance_id,
        "status": "ACTIVE",
        "agentConnected": True,
        "runningTasksCount": 1,
        "pendingTasksCount": 0,
    }
