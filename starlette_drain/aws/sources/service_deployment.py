"""The trigger that watches whether this task's service revision loses its production traffic."""

from collections.abc import Mapping
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.settings import Settings
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.identity.deployment import (
    UNDER_WAY,
    RevisionVerdict,
    bake_time,
    find_own_revision,
    is_over,
    judge,
    revisions_of,
)
from starlette_drain.aws.identity.ecs import EcsRecords
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE, TaskMetadata
from starlette_drain.aws.sources.deadline import deadline
from starlette_drain.aws.sources.source import AwsSource, Question, Search
from starlette_drain.triggers.base import Control

__all__ = ["ServiceDeploymentTrigger"]

SLOW_INTERVAL = 15.0
"""Seconds between two looks at the least, while this task does not drain for a deployment: a bake takes minutes."""


class ServiceDeploymentTrigger(AwsSource):
    """
    Asks for a drain over the bake time when the production traffic has gone to another revision of the service.

    Behind an ALB it is the only way to take longer than the 3,600 s of a deregistration delay. On a rollback it takes
    back what it, and nobody else, has asked for.
    """

    name = "service-deployment"

    _verdict = RevisionVerdict.UNKNOWN
    _deployment: Mapping[str, Any] | None = None
    _revision: str | None = None
    _has_asked = False
    _clear: float | None = None
    _question: Question | None = None
    _search: Search | None = None

    async def watch(self, control: Control) -> None:
        """Find out who we are, then poll until cancelled."""
        if not self._is_on_ecs:
            self._stand_down(control, f"this is no ECS task: {METADATA_VARIABLE} is not set")
            return
        self._state = "discovering"
        search = self._search = Search(self.name, control, self._rng)
        task = await search.until_found(self._read_task)
        async with self._calls(task.task_arn) as calls:
            records = EcsRecords(calls, task)
            service = await search.until_found(records.service_name)
            record = await search.until_found(records.task)
            if service is None:
                self._stand_down(control, "the task belongs to no service, so there are no deployments")
                return
            self._state = "watching"
            watch = _Watch(calls, task, service, record)
            self._question = Question(
                lambda: self._look(watch, control),
                trigger=self.name,
                control=control,
                rng=self._rng,
                interval=max(SLOW_INTERVAL, control.settings.poll_interval),
            )
            await self._question.run()

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the verdict, our revision, and the deployment it is about."""
        deployment = self._deployment or {}
        return {
            "last_error": self._search.last_error if self._search and not self._question else None,
            **(self._question.status(now) if self._question else {}),
            "state": self._state,
            "verdict": self._verdict.value,
            "revision": self._revision,
            "deployment": deployment.get("serviceDeploymentArn"),
            "status": deployment.get("status"),
            "stage": deployment.get("lifecycleStage"),
        }

    async def _look(self, watch: "_Watch", control: Control) -> str:
        asked = control.time()
        deployment = await watch.current(self._deployment)
        if deployment is not None:
            self._revision = self._revision or await watch.own_revision(deployment)
            self._deployment = deployment
        if self._deployment is None or self._revision is None:
            return self._conclude(RevisionVerdict.SERVING, asked, control)
        return self._conclude(judge(self._deployment, self._revision), asked, control)

    def _conclude(self, verdict: RevisionVerdict, asked: float, control: Control) -> str:
        if verdict in (RevisionVerdict.SERVING, RevisionVerdict.RETURNING):
            self._clear = asked
            if self._has_asked:
                self._has_asked = False
                self._pace(max(SLOW_INTERVAL, control.settings.poll_interval))
                control.retract(self.name)
        elif verdict is RevisionVerdict.LEAVING and self._deployment is not None and not self._has_asked:
            bake = bake_time(self._deployment)
            # Without a bake time the old revision is taken out at once, and its target health tells more.
            if bake > 0:
                self._has_asked = True
                # After a rollback the traffic comes back to tasks that turn it away: not for longer than need be.
                self._pace(control.settings.poll_interval)
                control.request(self._cause(self._deployment, bake, control))
        self._verdict = verdict
        return verdict.value

    def _pace(self, interval: float) -> None:
        if self._question:
            self._question.pace(interval)

    def _cause(self, deployment: Mapping[str, Any], bake: float, control: Control) -> DrainCause:
        now, settings = control.time(), control.settings
        interval = max(SLOW_INTERVAL, settings.poll_interval)
        began = self._clear if self._clear is not None else now - interval
        stage = deployment.get("lifecycleStage") or deployment.get("status")
        reason = f"the production traffic has gone to another revision ({stage}, {bake / 60:g} min of bake time)"
        if self._clear is None:
            reason += "; since when is unknown, and taken to be one interval"
        return DrainCause(self.name, reason, at=now, deadline=_ends(now, began, bake, settings), lag=now - began)


class _Watch:
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
            raise Incomplete(problem=f"ecs:DescribeServiceDeployments does not know {arn}", remedy="it is tried again")
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
                problem="the deployment does not tell to which of its revisions this task belongs",
                remedy="deploy with a new task definition revision; until then target health tells when to leave",
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


def _ends(now: float, began: float, bake: float, settings: Settings) -> float:
    ends = deadline(now, began, bake, settings.margin)
    return ends if settings.window is None else min(ends, now + settings.window)
