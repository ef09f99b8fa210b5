"""Collects the set-up from AWS, the task metadata endpoint, the process and the process table."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette_drain.aws.api.calls import region_of
from starlette_drain.aws.api.client import AwsClients
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.identity.balancers import other_ways_in, registrations_of
from starlette_drain.aws.identity.deployment import bake_time
from starlette_drain.aws.identity.ecs import EcsRecords
from starlette_drain.aws.identity.identity import TaskIdentity
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE, Fetch, TaskMetadata, fetch_json, read_task
from starlette_drain.aws.options import AwsSettings
from starlette_drain.exceptions import SettingsError
from starlette_drain.tools.doctor.attempts import find_out, try_deployments
from starlette_drain.tools.doctor.containers import Container, choose, others_behind
from starlette_drain.tools.doctor.inside import ask_own_process, ask_process, command_of_server
from starlette_drain.tools.doctor.record import Group, SetUp
from starlette_drain.tools.doctor.recorded import RecordedCalls
from starlette_drain.tools.doctor.server_command import ServerCommand
from starlette_drain.tools.doctor.watching import as_running
from starlette_drain.tools.tasks.channel import TOKEN

__all__ = ["Given", "look", "urls_of"]

DEFAULT_PORT = 8000
"""The default port of a server."""


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of the command; empty ones are detected."""

    target_groups: tuple[str, ...] = ()
    cluster: str | None = None
    service: str | None = None
    container: str | None = None
    command: tuple[str, ...] | None = None
    stop_signal: str | None = None
    sessions: int | None = None
    wish: float | None = None
    start_up: float | None = None
    url: str | None = None

    @property
    def place(self) -> tuple[str | None, str | None]:
        """The cluster and the name of the service; an ARN includes both."""
        kind, _, path = (self.service or "").rpartition(":service/") if self.service else ("", "", "")
        if not kind:
            return self.cluster, self.service
        cluster, _, name = path.rpartition("/")  # ARNs from before 2018 do not include the cluster
        return self.cluster or cluster or None, name

    @property
    def region(self) -> str | None:
        """The Region in an ARN."""
        arns = (*self.target_groups, self.service or "", self.cluster or "")
        return next(filter(None, map(region_of, arns)), None)


async def look(given: Given, clients: AwsClients, environ: Mapping[str, str], fetch: Fetch = fetch_json) -> SetUp:
    """
    Collect everything that can be found; failures are recorded and do not raise.

    Args:
        given: The arguments of the command.
        clients: Creates the AWS clients.
        environ: The environment.
        fetch: Gets a JSON document from the task metadata endpoint.
    """
    uri = environ.get(METADATA_VARIABLE)
    task = None
    if uri and not given.service and not given.target_groups:
        with suppress(Incomplete):
            task = await read_task(uri, fetch)
    own = given.container
    if uri and task and own is None:
        with suppress(OSError, ValueError):
            own = (await fetch(uri)).get("Name")
    region = given.region or (region_of(task.task_arn) if task else None)
    async with RecordedCalls(clients, region) as calls:
        return await _Look(given, calls, environ, task, own).run()


@dataclass(slots=True)
class _Look:
    given: Given
    calls: RecordedCalls
    environ: Mapping[str, str]
    task: TaskMetadata | None
    container: str | None = None
    """The name of the container: as given, or the one in which the doctor runs."""
    found: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> SetUp:
        given = self.given
        cluster, service = given.place
        cluster = cluster or (self.task.cluster if self.task else None)
        service = service or await self._own_service()
        record = await self._service(cluster, service) if service else {}
        container = await self._container(record) if record else None
        options = self._options(container)
        groups = given.target_groups or options.target_group_arn or self.found.get("registered", ())
        self.found["groups"] = tuple([await self._group(arn) for arn in groups])
        if service and "service-deployment" in options.sources:
            await try_deployments(self.calls, cluster, service)
        self._command(container)
        if self.task is not None:
            await self._find_out(options, [int(each.get("containerPort") or 0) for each in _entries_of(record)])
        return SetUp(
            cluster=cluster,
            service=service,
            task_arn=self.task.task_arn if self.task else None,
            reads=tuple(self.calls.allowed),
            troubles=tuple(self.calls.troubles),
            stop_signal=given.stop_signal,
            url=given.url,
            sessions=given.sessions,
            wish=given.wish,
            start_up=given.start_up,
            **self.found,
        )

    async def _find_out(self, options: AwsSettings, behind: Iterable[int]) -> None:
        """Find the task's identity as the package does, and ask the process."""
        assert self.task is not None  # noqa: S101 - for the type checker
        found = await find_out(self.calls, options, self.task)
        self.found["stuck"] = found if isinstance(found, Incomplete) else None
        ports = [*behind]
        if isinstance(found, TaskIdentity):
            self.found["own"] = found.targets
            ports += [port for each in found.targets for port in sorted(each.ports)]
        urls = urls_of(self.given, self.environ, options, ports)
        answer = None if self.given.url else await ask_own_process(self.environ)
        answer = answer or await ask_process(urls, self.environ.get(TOKEN))
        self.found["answer"] = answer
        if "settings" in self.found:
            self.found["settings"] = as_running(options, answer.shown, self.environ)

    async def _own_service(self) -> str | None:
        if self.task is not None:
            with suppress(Incomplete):
                return await EcsRecords(self.calls, self.task).service_name()
        return None

    async def _service(self, cluster: str | None, service: str) -> Mapping[str, Any]:
        where = {"cluster": cluster} if cluster else {}
        answer = await self.calls.ask("ecs", "DescribeServices", services=[service], **where)
        record: Mapping[str, Any] = next(iter(answer.get("services") or ()), {})
        if answer:  # an unknown name is not an error, but a failure inside the answer
            self.found["service_status"] = record.get("status") or ("ACTIVE" if record else "MISSING")
        if not record:
            return {}
        deploying = record.get("deploymentConfiguration") or {}
        providers = [each.get("capacityProvider") for each in record.get("capacityProviderStrategy") or ()]
        self.found |= {
            "desired": record.get("desiredCount"),
            "min_percent": deploying.get("minimumHealthyPercent", 100),
            "max_percent": deploying.get("maximumPercent", 200),
            "strategy": deploying.get("strategy") or "ROLLING",
            "early_success": _early_success(deploying),
            "alarms": _alarms(deploying),
            "is_express": _is_express(record),
            "controller": (record.get("deploymentController") or {}).get("type") or "ECS",
            "bake_time": bake_time(record),
            "is_spot": "FARGATE_SPOT" in providers,
            "is_daemon": record.get("schedulingStrategy") == "DAEMON",
            "is_fargate": _is_fargate(record.get("launchType"), providers),
        }
        revisions = await self._revisions(record)
        registered = registrations_of(record, *(record.get("taskSets") or ()), *revisions)
        self.found |= {
            "is_tied": bool(registered or _entries_of(record)),
            "registered": tuple(dict.fromkeys(each.target_group_arn for each in registered)),
            "other_ways": tuple(other_ways_in([record, *(record.get("deployments") or ()), *revisions])),
        }
        return record

    async def _revisions(self, record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the current revisions of a service without balancers in its record: ECS may manage them."""
        arns = [str(each["arn"]) for each in record.get("currentServiceRevisions") or () if each.get("arn")]
        if _entries_of(record) or not arns:
            return []
        answer = await self.calls.ask("ecs", "DescribeServiceRevisions", serviceRevisionArns=arns)
        return [*(answer.get("serviceRevisions") or ())]

    async def _container(self, record: Mapping[str, Any]) -> Container | None:
        answer = await self.calls.ask("ecs", "DescribeTaskDefinition", taskDefinition=record.get("taskDefinition", ""))
        definition = answer.get("taskDefinition") or {}
        records = definition.get("containerDefinitions") or ()
        behind = [str(each.get("containerName")) for each in _entries_of(record)]
        container = choose(records, self.container, behind)
        if records and container is None:
            self.found["missing_container"] = self.container
        elif container is not None:
            servers, proxies = others_behind(records, container, behind)
            family = str((definition.get("runtimePlatform") or {}).get("operatingSystemFamily") or "")
            entries = [each for each in _entries_of(record) if each.get("containerName") == container.name]
            self.found |= {
                "container": container.name,
                "stop_timeout": container.stop_timeout,
                "has_stop_timeout": container.has_stop_timeout,
                "restarts": container.restarts,
                "is_essential": container.is_essential,
                "health_command": container.health_command,
                "not_looked_at": tuple(servers),
                "proxies": tuple(proxies),
                "has_role": bool(definition.get("taskRoleArn") or "AWS_ACCESS_KEY_ID" in container.names),
                "is_windows": family.startswith("WINDOWS"),
                "ports": tuple(int(each.get("containerPort") or 0) for each in entries),
            }
            if self.task is None:
                self.found["unseen"] = container.unseen
        return container

    async def _group(self, arn: str) -> Group:
        answer = await self.calls.ask("elbv2", "DescribeTargetGroups", TargetGroupArns=[arn])
        record: Mapping[str, Any] = next(iter(answer.get("TargetGroups") or ()), {})
        answer = await self.calls.ask("elbv2", "DescribeTargetGroupAttributes", TargetGroupArn=arn)
        attributes = {each["Key"]: each.get("Value") for each in answer.get("Attributes") or ()}
        health = await self.calls.ask("elbv2", "DescribeTargetHealth", TargetGroupArn=arn)
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
            listed=tuple(_listed(each) for each in health.get("TargetHealthDescriptions") or ()),
            health_path=record.get("HealthCheckPath") or "",
            attributes={key: str(value) for key, value in attributes.items()},
            has_optimizer=bool(record.get("TargetControlPort")),
            healthy=states.count("healthy"),
        )

    def _options(self, container: Container | None) -> AwsSettings:
        """Read the options: from the task's environment, or from its definition."""
        environ = self.environ if self.task is not None else container.environment if container else {}
        self.found["environ"] = environ
        self.found["has_token"] = TOKEN in environ or (container is not None and TOKEN in container.names)
        try:
            options = self.found["settings"] = AwsSettings.load({}, environ)
            self.found["warnings"] = tuple(options.warnings(environ))
        except SettingsError as error:
            self.found["settings_error"] = str(error)
            return AwsSettings()
        return options

    def _command(self, container: Container | None) -> None:
        words = container.command if container else ()
        if self.task is not None:
            words = command_of_server(self.environ) or words
            self.found["is_process"] = not self.given.command
        elif container is not None and not self.given.command and not words:
            self.found["is_in_image"] = True
        self.found["command"] = self.given.command or words or None


def urls_of(given: Given, environ: Mapping[str, str], options: AwsSettings, ports: Iterable[int] = ()) -> list[str]:
    """Return the URLs at which the process in this container may answer."""
    if given.url:
        return [given.url]
    command = ServerCommand(given.command or command_of_server(environ), environ)
    known = [port for port in (command.number("--port"), *ports, options.target_port) if port]
    # On a port that is only guessed another process may get the token.
    return [f"http://127.0.0.1:{int(port)}/drain" for port in dict.fromkeys(known or (DEFAULT_PORT,))]


def _early_success(deploying: Mapping[str, Any]) -> str | None:
    criteria = deploying.get("earlySuccessCriteria") or {}
    return str(criteria.get("sourceServiceRevisionCleanup") or "BLOCKING") if criteria.get("enable") else None


def _alarms(deploying: Mapping[str, Any]) -> bool:
    alarms = deploying.get("alarms") or {}
    return bool(alarms.get("enable") and alarms.get("alarmNames"))


def _is_express(record: Mapping[str, Any]) -> bool:
    """Return whether ECS runs the service in Express mode: by its record, or by the canary steps of that mode."""
    deploying = record.get("deploymentConfiguration") or {}
    canary = deploying.get("canaryConfiguration") or {}
    steps = (canary.get("canaryPercent"), canary.get("canaryBakeTimeInMinutes"), deploying.get("bakeTimeInMinutes"))
    return record.get("resourceManagementType") == "ECS" or steps == (5.0, 3, 3)


def _is_fargate(launch_type: str | None, providers: Sequence[str | None]) -> bool | None:
    """Return whether tasks run only on Fargate; a custom capacity provider may have instances."""
    if providers:
        return all(each in ("FARGATE", "FARGATE_SPOT") for each in providers)
    return None if launch_type is None else launch_type == "FARGATE"


def _listed(description: Mapping[str, Any]) -> tuple[str, int, str]:
    target = description.get("Target") or {}
    health = description.get("TargetHealth") or {}
    return str(target.get("Id") or ""), int(target.get("Port") or 0), str(health.get("State") or "")


def _entries_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = [*(record.get("loadBalancers") or ())]
    for task_set in record.get("taskSets") or ():
        entries += task_set.get("loadBalancers") or ()
    return entries
