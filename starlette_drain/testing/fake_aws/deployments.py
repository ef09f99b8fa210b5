"""Deployments that shift traffic between service revisions, as ECS records them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette_drain.testing.fake_aws.cluster import ACCOUNT, REGION, FakeRevision, FakeService
from starlette_drain.testing.fake_aws.faults import ApiError

__all__ = ["FakeDeployment", "FakeHook", "answer"]

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
class FakeHook:
    """
    A PAUSE hook that holds a deployment.

    Attributes:
        expires_at: When it times out, in seconds since 1970.
        action: The action on a timeout, or the one that was requested.
        status: A ``status`` of AWS.
        id: Its id.
    """

    expires_at: float
    action: str = "ROLLBACK"
    status: str = "AWAITING_ACTION"
    id: str = "hook-1"

    @property
    def is_over(self) -> bool:
        """Whether it no longer holds the deployment."""
        return self.status != "AWAITING_ACTION"

    def record(self) -> dict[str, Any]:
        """Return the hook as DescribeServiceDeployments shows it."""
        shown = {"hookId": self.id, "targetType": "PAUSE", "status": self.status, "timeoutAction": self.action}
        return {**shown, "expiresAt": self.expires_at}


@dataclass(slots=True)
class FakeDeployment:
    """
    A deployment from one revision to another.

    One from `FakeAWS.shift` advances by itself; otherwise a test sets its `stage` and `status`.

    Attributes:
        source: The revision that serves at its beginning.
        target: The new revision.
        number: The last part of its ARN.
        strategy: ``"BLUE_GREEN"``, ``"LINEAR"``, ``"CANARY"`` or ``"ROLLING"``.
        bake: The bake time in minutes.
        stage: A ``lifecycleStage`` of AWS; ``None`` while it is pending.
        status: A ``status`` of AWS.
        steps: The steps before all traffic is shifted: the percentage of the traffic, and seconds.
        percent: The percentage of the traffic that the new revision gets; ``None`` if the stage decides.
        hook: The PAUSE hook that holds it.
    """

    source: FakeRevision
    target: FakeRevision
    number: str
    strategy: str = "BLUE_GREEN"
    bake: float | None = 60
    stage: str | None = "SCALE_UP"
    status: str = "IN_PROGRESS"
    steps: tuple[tuple[float, float], ...] = ()
    percent: float | None = None
    hook: FakeHook | None = None

    @property
    def service(self) -> FakeService:
        """The service."""
        return self.source.service

    @property
    def arn(self) -> str:
        """Its ARN."""
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
        percent = self.percent if self.percent is not None else 100.0 if shifted else 0.0
        configuration: dict[str, Any] = {
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
            "strategy": self.strategy,
        }
        if self.bake is not None:
            configuration["bakeTimeInMinutes"] = self.bake
        if self.strategy == "CANARY":
            first, seconds = self.steps[0] if self.steps else (5.0, 600.0)
            configuration["canaryConfiguration"] = {"canaryPercent": first, "canaryBakeTimeInMinutes": seconds / 60}
        if self.strategy == "LINEAR":
            first, seconds = self.steps[0] if self.steps else (10.0, 360.0)
            configuration["linearConfiguration"] = {"stepPercent": first, "stepBakeTimeInMinutes": seconds / 60}
        record |= {
            "updatedAt": record["createdAt"],
            "sourceServiceRevisions": [_summary(self.source, 100.0 - percent)],
            "targetServiceRevision": _summary(self.target, percent),
            "deploymentConfiguration": configuration,
        }
        if self.stage:
            record["lifecycleStage"] = self.stage
        if self.hook:
            record["lifecycleHookDetails"] = [self.hook.record()]
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
        case "ContinueServiceDeployment":
            return _continue(request, {each.arn: each for each in deployments})
    raise ApiError("InvalidAction", f"FakeAWS does not speak {action}")


def _continue(request: Mapping[str, Any], deployments: Mapping[str, FakeDeployment]) -> dict[str, Any]:
    deployment = deployments.get(str(request.get("serviceDeploymentArn")))
    if deployment is None:
        raise ApiError("ServiceDeploymentNotFoundException", "Service deployment not found.")
    hook, action = deployment.hook, request.get("action") or "CONTINUE"
    if hook is None or hook.is_over or request.get("hookId") != hook.id or action not in ("CONTINUE", "ROLLBACK"):
        raise ApiError("InvalidParameterException", "The lifecycle hook is not awaiting an action.")
    hook.status, hook.action = "SUCCEEDED", action
    return {"serviceDeploymentArn": deployment.arn}


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
