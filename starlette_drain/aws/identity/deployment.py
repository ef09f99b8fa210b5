# What DescribeServiceDeployments says of a blue/green, linear or canary deployment, and what we conclude.
#
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ServiceDeployment.html: traffic is shifted by weights of
# listener rules. The old ("source") revision stays registered and healthy during the whole bake time; its sessions
# stay, it gets no new ones, and at CLEAN_UP all of its tasks are deregistered at once. So from
# POST_PRODUCTION_TRAFFIC_SHIFT on, the bake time is for shedding: up to 24 hours, where a deregistration delay ends at
# one. In a canary or linear deployment part of the traffic moves during PRODUCTION_TRAFFIC_SHIFT already; the old
# revision serves the rest, so that stage is none of leaving.
#
#   our revision  status                                       stage                               verdict
#   source        IN_PROGRESS                                  POST_PRODUCTION_TRAFFIC_SHIFT ...   leaving
#   source        SUCCESSFUL                                   any                                 leaving
#   source        PENDING, IN_PROGRESS                         earlier, or none                    serving
#   source        ROLLBACK_*, STOP_REQUESTED, STOPPED          any                                 returning
#   target        any                                          any                                 serving
#   neither       any                                          any                                 unknown
#
# In a rollback the traffic goes back to the source, and a drain that was begun for it is withdrawn. The target of a
# deployment that is rolled back is taken out like any task: its target health tells.
"""The deployments of this task's service: what is asked of them, and the pure verdict on one."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.identity.metadata import TaskMetadata

__all__ = ["Deployments", "RevisionVerdict", "bake_time", "find_own_revision", "is_over", "judge", "revisions_of"]

SHIFTED = frozenset({"POST_PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME", "CLEAN_UP"})
"""The stages in which the source revision gets no production traffic any more."""

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
    """What a deployment means for our revision."""

    SERVING = "serving"
    """It gets production traffic, or will."""
    LEAVING = "leaving"
    """The traffic has gone to another revision."""
    RETURNING = "returning"
    """The traffic comes back."""
    UNKNOWN = "unknown"
    """The deployment is not about our revision, or does not tell."""


def judge(deployment: Mapping[str, Any], revision: str) -> RevisionVerdict:
    """Conclude from a ``ServiceDeployment`` about the *revision* (ARN) of this task."""
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
    """Return the ARNs of the source revisions, and of the target revision."""
    sources = tuple(str(each["arn"]) for each in deployment.get("sourceServiceRevisions") or () if each.get("arn"))
    return sources, (deployment.get("targetServiceRevision") or {}).get("arn")


def bake_time(deployment: Mapping[str, Any]) -> float:
    """
    Return for how many seconds both revisions run after all production traffic has shifted.

    The times between the steps of a canary or linear deployment are over by then; a rolling one shifts no traffic.
    """
    configuration = deployment.get("deploymentConfiguration") or {}
    return (
        60.0 * float(configuration.get("bakeTimeInMinutes") or 0) if configuration.get("strategy") in SHIFTING else 0.0
    )


def is_over(deployment: Mapping[str, Any]) -> bool:
    """Tell whether nothing changes any more."""
    return deployment.get("status") in OVER


def find_own_revision(task: Mapping[str, Any], revisions: Iterable[Mapping[str, Any]]) -> str | None:
    """
    Return the ARN of the revision that *task* (as DescribeTasks shows it) belongs to; ``None`` if that is not certain.

    A task does not name its revision. Its ``startedBy`` names a deployment, whose number is that of the revision where
    ECS numbers them alike; that is not documented, so the task definition serves where no number fits: it is certain
    when only one of the revisions has it.
    """
    known = [each for each in revisions if each.get("serviceRevisionArn")]
    number = str(task.get("startedBy") or "").removeprefix("ecs-svc/")
    found = [each for each in known if number and each["serviceRevisionArn"].rpartition("/")[2] == number]
    if not found:
        found = [each for each in known if each.get("taskDefinition") == task.get("taskDefinitionArn")]
    return str(found[0]["serviceRevisionArn"]) if len(found) == 1 else None


class Deployments:
    """What is asked about the deployments of one service."""

    def __init__(self, calls: AwsCalls, task: TaskMetadata, service: str, record: Mapping[str, Any]) -> None:
        self._calls = calls
        self._task = task
        self._service = service
        self._record = record
        self._known: dict[str, Mapping[str, Any]] = {}

    async def current(self, known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the deployment under way; ``None`` if there is none. Follow the one that is *known* to its end."""
        arn = known["serviceDeploymentArn"] if known and not is_over(known) else await self._newest()
        if arn is None:
            return None
        answer = await self._calls.call("ecs", "DescribeServiceDeployments", serviceDeploymentArns=[arn])
        found: list[Mapping[str, Any]] = answer.get("serviceDeployments") or []
        if not found:
            raise Incomplete(problem=f"ecs:DescribeServiceDeployments does not know {arn}", remedy="it will be retried")
        return found[0]

    async def own_revision(self, deployment: Mapping[str, Any]) -> str:
        """Return the revision of this task, if it is one of those in the deployment."""
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
