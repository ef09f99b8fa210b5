"""Makes the calls that the package makes with these options, to see which are allowed."""

from contextlib import suppress

from starlette_drain.aws.api.budget import PAIR
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.identity.deployment import revisions_of
from starlette_drain.aws.identity.ecs import EcsRecords
from starlette_drain.aws.identity.identity import TaskIdentity, discover
from starlette_drain.aws.identity.metadata import TaskMetadata
from starlette_drain.aws.options import AwsSettings
from starlette_drain.tools.doctor.needs import finds_targets
from starlette_drain.tools.doctor.recorded import RecordedCalls

__all__ = ["find_out", "try_deployments"]


async def find_out(calls: RecordedCalls, options: AwsSettings, task: TaskMetadata) -> TaskIdentity | Incomplete | None:
    """Find the task's identity as the package does; return it, or the error."""
    identity, records = None, EcsRecords(calls, task)
    try:
        if finds_targets(options):
            identity = await discover(calls, options, task, records=records)
            # The package asks this at the start, unless the service is too small for a difference.
            if identity.service and await records.size(identity.service) > PAIR:
                await records.cluster_size()
        if "task-state" in options.sources or "service-deployment" in options.sources:
            await records.task()
    except Incomplete as missing:
        return missing
    if options.has_stand_in:
        with suppress(Incomplete):
            await records.task()
    return identity


async def try_deployments(calls: RecordedCalls, cluster: str | None, service: str) -> None:
    """Ask for the newest deployment of *service* and its revisions, if there is one."""
    where = {"cluster": cluster} if cluster else {}
    listed = await calls.ask("ecs", "ListServiceDeployments", service=service, **where)
    if not (briefs := listed.get("serviceDeployments")):
        return
    arn = max(briefs, key=lambda each: each["createdAt"])["serviceDeploymentArn"]
    answer = await calls.ask("ecs", "DescribeServiceDeployments", serviceDeploymentArns=[arn])
    for deployment in answer.get("serviceDeployments") or ():
        sources, target = revisions_of(deployment)
        await calls.ask("ecs", "DescribeServiceRevisions", serviceRevisionArns=[*sources, *filter(None, [target])])
