"""Looks: asks AWS, the task's own endpoint and the process table, and writes down what they say."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette_drain._core.settings import Settings
from starlette_drain.aws.calls import AwsCalls, region_of
from starlette_drain.aws.client import AwsClients
from starlette_drain.aws.ecs import EcsRecords
from starlette_drain.aws.errors import AwsCallFailed, Incomplete, Trouble
from starlette_drain.aws.metadata import METADATA_VARIABLE, Fetch, TaskMetadata, fetch_json, read_task
from starlette_drain.doctor.record import Group, SetUp
from starlette_drain.exceptions import SettingsError

__all__ = ["Given", "look"]

STOP_TIMEOUT = 30.0
"""Seconds: a container's stopTimeout where none is set."""

PROCESS_1 = Path("/proc/1/cmdline")


@dataclass(frozen=True, slots=True)
class Given:
    """What whoever asks says by hand; empty where it shall be found out."""

    target_groups: tuple[str, ...] = ()
    cluster: str | None = None
    service: str | None = None
    container: str | None = None
    command: tuple[str, ...] | None = None
    sessions: int | None = None
    wish: float | None = None


async def look(given: Given, clients: AwsClients, environ: Mapping[str, str], fetch: Fetch = fetch_json) -> SetUp:
    """
    Find out everything that can be. What fails is written down, and ends nothing.

    Args:
        given: What is given by hand.
        clients: Who makes the AWS clients.
        environ: The environment.
        fetch: Who gets a JSON document from the task metadata endpoint.
    """
    uri = environ.get(METADATA_VARIABLE)
    task = None
    if uri and not given.service and not given.target_groups:
        with suppress(Incomplete):
            task = await read_task(uri, fetch)
    arn = given.target_groups[0] if given.target_groups else task.task_arn if task else given.cluster or ""
    async with AwsCalls(clients, region_of(arn)) as calls:
        return await _Look(given, calls, environ, task).run()


@dataclass(slots=True)
class _Look:
    given: Given
    calls: AwsCalls
    environ: Mapping[str, str]
    task: TaskMetadata | None
    found: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, None] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)

    async def run(self) -> SetUp:
        given = self.given
        cluster = given.cluster or (self.task.cluster if self.task else None)
        service = given.service or await self._own_service()
        record = await self._service(cluster, service) if service else {}
        container = await self._container(record) if record else {}
        groups = [await self._group(arn) for arn in given.target_groups or _groups_of(record)]
        self._options(container)
        return SetUp(
            cluster=cluster,
            service=service,
            task_arn=self.task.task_arn if self.task else None,
            groups=tuple(groups),
            reads=tuple(self.reads),
            troubles=tuple(self.troubles),
            command=given.command or self._command(container),
            sessions=given.sessions,
            wish=given.wish,
            **self.found,
        )

    async def _ask(self, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """Return the answer, or nothing where there is none."""
        try:
            answer = await self.calls.call(service, operation, **parameters)
        except AwsCallFailed as failed:
            if failed.trouble not in self.troubles:
                self.troubles.append(failed.trouble)
            return {}
        self.reads[operation] = None
        return answer

    async def _own_service(self) -> str | None:
        if self.task is None:
            return None
        try:
            name = await EcsRecords(self.calls, self.task).service_name()
        except AwsCallFailed as failed:
            self.troubles.append(failed.trouble)
            return None
        except Incomplete:
            return None
        self.reads["DescribeTasks"] = None
        return name

    async def _service(self, cluster: str | None, service: str) -> Mapping[str, Any]:
        where = {"cluster": cluster} if cluster else {}
        answer = await self._ask("ecs", "DescribeServices", services=[service], **where)
        record: Mapping[str, Any] = next(iter(answer.get("services") or ()), {})
        if not record:
            return {}
        deploying = record.get("deploymentConfiguration") or {}
        providers = [each.get("capacityProvider") for each in record.get("capacityProviderStrategy") or ()]
        self.found |= {
            "desired": record.get("desiredCount"),
            "min_percent": deploying.get("minimumHealthyPercent", 100),
            "max_percent": deploying.get("maximumPercent", 200),
            "strategy": deploying.get("strategy") or "ROLLING",
            "is_spot": "FARGATE_SPOT" in providers,
        }
        return record

    async def _container(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = await self._ask("ecs", "DescribeTaskDefinition", taskDefinition=record.get("taskDefinition", ""))
        boxes = (answer.get("taskDefinition") or {}).get("containerDefinitions") or ()
        names = [each.get("containerName") for each in record.get("loadBalancers") or ()]
        wanted = self.given.container or next(iter(names), None)
        container: Mapping[str, Any] = next((each for each in boxes if wanted in (None, each.get("name"))), {})
        if container:
            self.found["stop_timeout"] = float(container.get("stopTimeout") or STOP_TIMEOUT)
        return container

    async def _group(self, arn: str) -> Group:
        answer = await self._ask("elbv2", "DescribeTargetGroups", TargetGroupArns=[arn])
        record: Mapping[str, Any] = next(iter(answer.get("TargetGroups") or ()), {})
        answer = await self._ask("elbv2", "DescribeTargetGroupAttributes", TargetGroupArn=arn)
        attributes = {each["Key"]: each.get("Value") for each in answer.get("Attributes") or ()}
        health = await self._ask("elbv2", "DescribeTargetHealth", TargetGroupArn=arn)
        states = [each["TargetHealth"].get("State") for each in health.get("TargetHealthDescriptions") or ()]
        delay = attributes.get("deregistration_delay.timeout_seconds")
        termination = attributes.get("deregistration_delay.connection_termination.enabled")
        return Group(
            arn=arn,
            protocol=record.get("Protocol") or "",
            target_type=record.get("TargetType") or "",
            in_use=bool(record.get("LoadBalancerArns")) if record else None,
            delay=None if delay is None else float(delay),
            termination=None if termination is None else termination == "true",
            targets=len(states) if health else None,
            healthy=states.count("healthy"),
        )

    def _options(self, container: Mapping[str, Any]) -> None:
        """Read the options: the task's own, or those in its definition."""
        environ = self.environ
        if self.task is None:
            environ = {each["name"]: each.get("value") or "" for each in container.get("environment") or ()}
        try:
            self.found["settings"] = Settings.load({}, environ)
        except SettingsError as error:
            self.found["settings_error"] = str(error)

    def _command(self, container: Mapping[str, Any]) -> tuple[str, ...] | None:
        if self.task is not None:
            with suppress(OSError):
                words = PROCESS_1.read_bytes().decode(errors="replace").split("\0")
                return tuple(each for each in words if each) or None
        return (*(container.get("entryPoint") or ()), *(container.get("command") or ())) or None


def _groups_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    entries = [*(record.get("loadBalancers") or ())]
    for task_set in record.get("taskSets") or ():
        entries += task_set.get("loadBalancers") or ()
    found: dict[str, None] = {}
    for entry in entries:
        alternate = (entry.get("advancedConfiguration") or {}).get("alternateTargetGroupArn")
        found |= dict.fromkeys(arn for arn in (entry.get("targetGroupArn"), alternate) if arn)
    return tuple(found)
