"""The deployments that shift traffic between service revisions, as ECS records them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette_drain.testing.fake_aws.cluster import ACCOUNT, REGION, FakeRevision, FakeService
from starlette_drain.testing.fake_aws.faults import ApiError

__all__ = ["FakeDeployment", "answer"]

STAGES = (
    "RECONCILE_SERVICE",
    "PRE_SCALE_UP",
    "SCALE_UP",
    "POST_SCALE_UP",
    "TEST_TRAFFIC_SHIFT",
    "POST_TEST_TRAFFIC_SHIFT",
    "PRODUCTION_TRAFFIC_SHIFT",
    "POST_PRODUCTION_TRAFFIC_SHIFT",
    "BAKE_TIME",
    "CLEAN_UP",
)


@dataclass(slots=True)
class FakeDeployment:
    """
    A deployment from one revision to another. A test sets its `stage` and `status`.

    Attributes:
        source: The revision that serves at its beginning.
        target: The new one.
        number: The last part of its ARN.
        strategy: ``"BLUE_GREEN"``, ``"LINEAR"``, ``"CANARY"`` or ``"ROLLING"``.
        bake: Minutes.
        stage: One of the stages of AWS; ``None`` while it is pending.
        status: One of the statuses of AWS.
    """

    source: FakeRevision
    target: FakeRevision
    number: str
    strategy: str = "BLUE_GREEN"
    bake: int | None = 60
    stage: str | None = "SCALE_UP"
    status: str = "IN_PROGRESS"

    @property
    def service(self) -> FakeService:
        """The service."""
        return self.source.service

    @property
    def arn(self) -> str:
        """ARN."""
        where = f"{self.service.cluster}/{self.service.name}/{self.number}"
        return f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-deployment/{where}"

    def brief(self) -> dict[str, Any]:
        """Return the deployment as ListServiceDeployments shows it."""
        return {
            "serviceDeploymentArn": self.arn,
            "serviceArn": self.service.arn,
            "clusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{self.service.cluster}",
            "startedAt": datetime(2026, 1, 2, tzinfo=UTC).timestamp(),
            "createdAt": datetime(2026, 1, 2, tzinfo=UTC).timestamp() + int(self.number),
            "targetServiceRevisionArn": self.target.arn,
            "status": self.status,
        }

    def record(self) -> dict[str, Any]:
        """Return the deployment as DescribeServiceDeployments shows it."""
        record = self.brief()
        del record["targetServiceRevisionArn"]
        shifted = self.stage in STAGES[STAGES.index("POST_PRODUCTION_TRAFFIC_SHIFT") :] and self.status == "IN_PROGRESS"
        configuration: dict[str, Any] = {
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
            "strategy": self.strategy,
        }
        if self.bake is not None:
            configuration["bakeTimeInMinutes"] = self.bake
        if self.strategy == "CANARY":
            configuration["canaryConfiguration"] = {"canaryPercent": 5.0, "canaryBakeTimeInMinutes": 10}
        if self.strategy == "LINEAR":
            configuration["linearConfiguration"] = {"stepPercent": 10.0, "stepBakeTimeInMinutes": 6}
        record |= {
            "updatedAt": record["createdAt"],
            "sourceServiceRevisions": [_summary(self.source, 0.0 if shifted else 100.0)],
            "targetServiceRevision": _summary(self.target, 100.0 if shifted else 0.0),
            "deploymentConfiguration": configuration,
        }
        if self.stage:
            record["lifecycleStage"] = self.stage
        if self.status.startswith("ROLLBACK"):
            record["rollback"] = {"reason": "asked for", "serviceRevisionArn": self.source.arn}
        return record


def answer(
    action: str, request: Mapping[str, Any], deployments: Iterable[FakeDeployment], services: Iterable[FakeService]
) -> Any:
    """
    Return the JSON object that answers *action*, one of those about service deployments and revisions.

    Raises:
        ApiError: If the API would answer with an error.
    """
    deployments = list(deployments)
    match action:
        case "ListServiceDeployments":
            wanted = str(request.get("service"))
            found = [each for each in deployments if wanted in (each.service.name, each.service.arn)]
            statuses = request.get("status")
            return {"serviceDeployments": [each.brief() for each in found if not statuses or each.status in statuses]}
        case "DescribeServiceDeployments":
            known = {each.arn: each.record() for each in deployments}
            return _found(request.get("serviceDeploymentArns") or (), known, "serviceDeployments")
        case "DescribeServiceRevisions":
            known = {each.arn: each.record() for service in services for each in service.revisions}
            return _found(request.get("serviceRevisionArns") or (), known, "serviceRevisions")
    raise ApiError("InvalidAction", f"FakeAWS does not speak {action}")


def _found(wanted: Iterable[str], known: Mapping[str, Any], key: str) -> dict[str, Any]:
    wanted = list(wanted)
    if not wanted:
        raise ApiError("InvalidParameterException", f"{key} must not be empty")
    failures = [{"arn": arn, "reason": "MISSING"} for arn in wanted if arn not in known]
    return {key: [known[arn] for arn in wanted if arn in known], "failures": failures}


def _summary(revision: FakeRevision, weight: float) -> dict[str, Any]:
    return {
        "arn": revision.arn,
        "requestedTaskCount": 1,
        "runningTaskCount": 1,
        "pendingTaskCount": 0,
        "requestedTestTrafficWeight": weight,
        "requestedProductionTrafficWeight": weight,
    }
