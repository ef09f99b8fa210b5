# What DescribeServiceDeployments shows of a blue/green, linear or canary deployment, and what follows from it.
#
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceDeployment.html: traffic is shifted by weights of
# listener rules. The old ("source") revision stays registered and healthy during the whole bake time; its sessions
# stay, it gets no new ones, and at CLEAN_UP all of its tasks are deregistered at once. So the bake time, from
# POST_PRODUCTION_TRAFFIC_SHIFT on, is the time to shed: up to 24 hours, while a deregistration delay is at most one. In
# a canary or linear deployment part of the traffic shifts during PRODUCTION_TRAFFIC_SHIFT already; the old revision
# serves the rest, so sessions do not leave at that stage.
#
#   our revision  status                                       stage                               verdict
#   source        IN_PROGRESS                                  POST_PRODUCTION_TRAFFIC_SHIFT ...   leaving
#   source        SUCCESSFUL                                   any                                 leaving
#   source        PENDING, IN_PROGRESS                         earlier, or none                    serving
#   source        ROLLBACK_*, STOP_REQUESTED, STOPPED          any                                 returning
#   target        any                                          any                                 serving
#   neither       any                                          any                                 unknown
#
# In a rollback the traffic goes back to the source, and a drain that began there is withdrawn. The target revision of a
# deployment that is rolled back is deregistered like any task, which its target health shows.
"""The deployments of this task's service: the calls, and the pure verdict on a deployment."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.identity.metadata import TaskMetadata

__all__ = ["Deployments", "RevisionVerdict", "bake_time", "find_own_revision", "is_over", "judge", "revisions_of"]

SHIFTED = frozenset({"POST_PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME", "CLEAN_UP"})
"""The stages in which the source revision no longer gets production traffic."""

RETURNS = frozenset(
    {
        "ROLLBACK_REQUESTED",
        "ROLLBACK_IN_PROGRESS",
        "ROLLBACK_SUCCESSFUL",
        "ROLLBACK_FAILED",
        "STOP_REQUESTED",
        "STOPPED",
    }
)
SHIFTING = frozenset({"BLUE_GREEN", "LINEAR", "CANARY"})
"""The strategies that shift traffic."""

UNDER_WAY = ("PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS")
OVER = frozenset({"SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"})


class RevisionVerdict(Enum):
    """What a deployment means for this task's revision."""

    SERVING = "serving"
    """It gets production traffic, or will."""
    LEAVING = "leaving"
    """The traffic has shifted to another revision."""
    RETURNING = "returning"
    """The traffic shifts back to it."""
    UNKNOWN = "unknown"
    """The deployment does not involve it, or does not say."""


def judge(deployment: Mapping[str, Any], revision: str) -> RevisionVerdict:
    """Return what a ``ServiceDeployment`` means for *revision*, the ARN of this task's."""
    sources, target = revisions_of(deployment)
    status, stage = deployment.get("status"), deployment.get("lifecycleStage")
    if revision == target:
        return RevisionVerdict.SERVING
    if revision not in sources:
        return RevisionVerdict.UNKNOWN
    if status in RETURNS:
        return RevisionVerdict.RETURNING
    if status == "SUCCESSFUL" or (status == "IN_PROGRESS" and stage in SHIFTED):
        return RevisionVerdict.LEAVING
    if status in ("PENDING", "IN_PROGRESS"):
        return RevisionVerdict.SERVING
    return RevisionVerdict.UNKNOWN


def revisions_of(deployment: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """Return the ARNs of the source revisions and of the target revision, if there is one."""
    sources = tuple(str(each["arn"]) for each in deployment.get("sourceServiceRevisions") or () if each.get("arn"))
    return sources, (deployment.get("targetServiceRevision") or {}).get("arn")


def bake_time(deployment: Mapping[str, Any]) -> float:
    """
    Return the seconds for which both revisions run after all production traffic has shifted.

    The intervals between the steps of a canary or linear deployment are over by then. A rolling one shifts no traffic.
    """
    configuration = deployment.get("deploymentConfiguration") or {}
    return (
        60.0 * float(configuration.get("bakeTimeInMinutes") or 0) if configuration.get("strategy") in SHIFTING else 0.0
    )


def is_over(deployment: Mapping[str, Any]) -> bool:
    """Return whether the deployment has ended."""
    return deployment.get("status") in OVER


def find_own_revision(task: Mapping[str, Any], revisions: Iterable[Mapping[str, Any]]) -> str | None:
    """
    Return the ARN of the revision that *task* (as DescribeTasks shows it) belongs to; ``None`` if that is not certain.

    A task does not name its revision. Its ``startedBy`` names a deployment, whose number is usually that of the
    revision. That is not documented, so if no number matches, the task definition decides, provided that only one of
    the revisions has it.
    """
    known = [each for each in revisions if each.get("serviceRevisionArn")]
    number = str(task.get("startedBy") or "").removeprefix("ecs-svc/")
    found = [each for each in known if number and each["serviceRevisionArn"].rpartition("/")[2] == number]
    if not found:
        found = [each for each in known if each.get("taskDefinition") == task.get("taskDefinitionArn")]
    return str(found[0]["serviceRevisionArn"]) if len(found) == 1 else None


class Deployments:
    """The calls about the deployments of one service."""

    def __init__(self, calls: AwsCalls, task: TaskMetadata, service: str, record: Mapping[str, Any]) -> None:
        self._calls = calls
        self._task = task
        self._service = service
        self._record = record
        self._known: dict[str, Mapping[str, Any]] = {}

    async def current(self, known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """
        Return the deployment in progress, or ``None``; the one that is *known* is followed to its end.

        Raises:
            AwsCallFailed: If a call fails.
            Incomplete: If ECS does not know the deployment.
        """
        arn = known["serviceDeploymentArn"] if known and not is_over(known) else await self._newest()
        if arn is None:
            return None
        answer = await self._calls.call("ecs", "DescribeServiceDeployments", serviceDeploymentArns=[arn])
        found: list[Mapping[str, Any]] = answer.get("serviceDeployments") or []
        if not found:
            raise Incomplete(problem=f"ecs:DescribeServiceDeployments does not know {arn}", remedy="it will be retried")
        return found[0]

    async def own_revision(self, deployment: Mapping[str, Any]) -> str:
        """
        Return the ARN of this task's revision.

        Raises:
            AwsCallFailed: If the call fails.
            Incomplete: If it is not certain which revision of *deployment* it is.
        """
        sources, target = revisions_of(deployment)
        arns = [*sources, *([target] if target else [])]
        missing = [arn for arn in arns if arn not in self._known]
        if missing:
            answer = await self._calls.call("ecs", "DescribeServiceRevisions", serviceRevisionArns=missing)
            self._known |= {each["serviceRevisionArn"]: each for each in answer.get("serviceRevisions") or ()}
        revision = find_own_revision(self._record, [self._known[arn] for arn in arns if arn in self._known])
        if revision is None:
            raise Incomplete(
                problem="the deployment does not show which of its revisions this task belongs to",
                remedy="deploy with a new task definition revision; until then target health starts the drain",
            )
        return revision

    async def _newest(self) -> str | None:
        answer = await self._calls.call(
            "ecs",
            "ListServiceDeployments",
            cluster=self._task.cluster,
            service=self._service,
            status=list(UNDER_WAY),
        )
        listed = sorted(answer.get("serviceDeployments") or (), key=lambda each: each["createdAt"])
        return str(listed[-1]["serviceDeploymentArn"]) if listed else None
