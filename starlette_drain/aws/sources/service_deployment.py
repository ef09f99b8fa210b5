"""The trigger that watches whether this task's service revision loses its production traffic."""

from collections.abc import Mapping
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.deadline import deadline
from starlette_drain.aws.identity.deployment import Deployments, RevisionVerdict, bake_time, judge
from starlette_drain.aws.options import AwsSettings
from starlette_drain.aws.session import AWSSession, OpenSession
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.polls import Polls
from starlette_drain.aws.sources.source import AwsSource
from starlette_drain.triggers.base import Control

__all__ = ["ServiceDeploymentTrigger"]

SLOW_INTERVAL = 15.0
"""The shortest interval between two polls, in seconds, without a drain for a deployment: a bake takes minutes."""


class ServiceDeploymentTrigger(AwsSource):
    """
    Wants a drain over the bake time, after the production traffic has shifted to another revision of the service.

    Behind an ALB it is the only way to take longer than a deregistration delay, at most 3,600 s. After a rollback it
    withdraws its claim.
    """

    name = "service-deployment"

    def __init__(self, session: AWSSession | None = None, **own: Any) -> None:
        super().__init__(session, **own)
        self._verdict = RevisionVerdict.UNKNOWN
        self._claim: DrainCause | None = None
        """The current claim."""
        self._clear: float | None = None
        """When an answer last said that this task's revision has the traffic."""
        self._deployment: Mapping[str, Any] | None = None
        self._revision: str | None = None
        self._polls: Polls | None = None

    async def watch(self, control: Control) -> None:
        """Identify the task, then poll until cancelled."""
        if self._stand_down_off_ecs(control):
            return
        self._state, self._verdict, self._claim, self._clear = "discovering", RevisionVerdict.UNKNOWN, None, None
        self._deployment = self._revision = self._polls = self._sight = None
        async with self._session.open(AwsSettings.of(control.settings)) as aws:
            impairment = Impairment(self.name, control, patience=1)
            service = await self._until_found(aws.service, impairment, control)
            record = await self._until_found(aws.record, impairment, control)
            if service is None:
                self._stand_down(control, "the task belongs to no service, so there are no deployments")
                return
            metadata = await self._until_found(aws.task, impairment, control)
            self._state = "watching"
            await self._poll(Deployments(aws.calls, metadata, service, record), aws, control)

    async def _poll(self, deployments: Deployments, aws: OpenSession, control: Control) -> None:
        settings = AwsSettings.of(control.settings)
        slow = max(SLOW_INTERVAL, settings.poll_interval)
        self._polls = polls = Polls(
            self.name,
            control,
            self._session.rng,
            interval=slow,
            bucket=aws.deployments,
            after_look=lambda: self._report_sight(
                control,
                self._watch_of(self._polls, control.time()),
                f"the deployments of the service, every {slow:g} s, less often in a large fleet",
            ),
        )
        async for look in polls:
            with look:
                verdict = await self._ask(deployments)
                self._verdict, look.outcome = verdict, verdict.value
                if verdict in (RevisionVerdict.SERVING, RevisionVerdict.RETURNING):
                    self._clear, self._claim = look.asked, None
                    control.withdraw(self.name)
                elif verdict is RevisionVerdict.LEAVING and self._deployment is not None:
                    self._claim = self._claim or cause_of(
                        self._deployment, settings, now=control.time(), clear=self._clear, interval=polls.interval
                    )
                    if self._claim:
                        control.claim(self._claim)
                # Poll faster during a drain: after a rollback the traffic comes back, and this task refuses it.
                polls.pace(aws.interval(settings.poll_interval if self._claim else slow, aws.deployments))

    async def _ask(self, deployments: Deployments) -> RevisionVerdict:
        """Poll once, and return what the answer means for this task's revision."""
        deployment = await deployments.current(self._deployment)
        if deployment is not None:
            self._revision = self._revision or await deployments.own_revision(deployment)
            self._deployment = deployment
        if self._deployment is None or self._revision is None:
            return RevisionVerdict.SERVING
        return judge(self._deployment, self._revision)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the verdict, this task's revision, and the deployment."""
        deployment = self._deployment or {}
        return {
            "last_error": self._search_error,
            **(self._polls.status(now) if self._polls else {}),
            "state": self._state,
            **self._watch_of(self._polls, now),
            "verdict": self._verdict.value,
            "revision": self._revision,
            "deployment": deployment.get("serviceDeploymentArn"),
            "status": deployment.get("status"),
            "stage": deployment.get("lifecycleStage"),
        }


def cause_of(
    deployment: Mapping[str, Any], settings: AwsSettings, *, now: float, clear: float | None, interval: float
) -> DrainCause | None:
    """
    Return the claim that follows from a *deployment* that has taken the traffic of this task's revision.

    It is ``None`` without a bake time: then the old revision is deregistered at once, and its target health says more.

    Args:
        deployment: The deployment.
        settings: The validated options.
        now: When it was noticed.
        clear: When an answer last said that this task's revision has the traffic.
        interval: Seconds between two polls.
    """
    bake = bake_time(deployment)
    if bake <= 0:
        return None
    began = clear if clear is not None else now - interval
    stage = deployment.get("lifecycleStage") or deployment.get("status")
    reason = f"the production traffic has gone to another revision ({stage}, {bake / 60:g} min of bake time)"
    if clear is None:
        reason += "; since when is unknown, and taken to be one interval"
    ends = deadline(now, began, bake, settings.margin, settings.window)
    return DrainCause(ServiceDeploymentTrigger.name, reason, at=now, deadline=ends, lag=now - began, taken_out=True)
