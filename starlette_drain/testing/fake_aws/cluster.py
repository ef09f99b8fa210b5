"""Services and tasks as ECS records them, and as a task's own endpoints show them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette_drain.testing.fake_aws.definition import FakeDefinition
from starlette_drain.testing.fake_aws.target_group import FakeTargetGroup

__all__ = [
    "ACCOUNT",
    "REGION",
    "FakeGateway",
    "FakeRegistration",
    "FakeRevision",
    "FakeService",
    "FakeTask",
    "FakeTaskSet",
    "load_balancer",
]

REGION = "eu-central-1"
ACCOUNT = "123456789012"
STOP_TIMEOUT = 30.0


@dataclass(slots=True)
class FakeRegistration:
    """An entry of a service's ``loadBalancers``: a group, or for blue/green a pair of them, and a container's port."""

    group: FakeTargetGroup
    container: str
    port: int
    alternate: FakeTargetGroup | None = None


@dataclass(slots=True)
class FakeGateway:
    """A connection of a Gateway connector: the target group that ECS manages, the other of the pair, and the port."""

    group: FakeTargetGroup
    alternate: FakeTargetGroup | None = None
    port: int = 8000


@dataclass(slots=True, eq=False)
class FakeRevision:
    """
    A service revision, with which tasks are started.

    Attributes:
        service: The service.
        number: The last part of its ARN, and of the deployment that starts its tasks.
        definition: The revision of its task definition.
        registrations: Its ``loadBalancers``.
        express: The target groups that ECS manages in Express mode.
        gateways: Its connections through a Gateway connector.
    """

    service: "FakeService" = field(repr=False)
    number: str
    definition: int = 1
    registrations: tuple[FakeRegistration, ...] = ()
    express: tuple[FakeTargetGroup, ...] = ()
    gateways: tuple[FakeGateway, ...] = ()

    @property
    def arn(self) -> str:
        """Its ARN."""
        return (
            f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-revision/{self.service.cluster}/{self.service.name}/{self.number}"
        )

    @property
    def started_by(self) -> str:
        """The deployment that starts its tasks."""
        return f"ecs-svc/{self.number}"

    @property
    def all_registrations(self) -> list[FakeRegistration]:
        """All registrations of its tasks, including those that ECS manages."""
        managed = [FakeRegistration(each, "app", each.port) for each in self.express]
        managed += [FakeRegistration(each.group, "app", each.port, each.alternate) for each in self.gateways]
        return [*self.registrations, *managed]

    def record(self) -> dict[str, Any]:
        """Return the revision as DescribeServiceRevisions shows it."""
        managed: dict[str, Any] = {}
        if self.express:
            groups = [{"arn": each.arn, "status": "ACTIVE", "port": each.port} for each in self.express]
            managed["ingressPaths"] = [{"accessType": "PUBLIC", "targetGroups": groups}]
        if self.gateways:
            managed["gatewayConnections"] = [_gateway(self.service, each) for each in self.gateways]
        record: dict[str, Any] = {
            "serviceRevisionArn": self.arn,
            "serviceArn": self.service.arn,
            "clusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{self.service.cluster}",
            "taskDefinition": f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/app:{self.definition}",
            "launchType": "FARGATE",
            "platformVersion": "1.4.0",
            "platformFamily": "Linux",
            "loadBalancers": [load_balancer(each) for each in self.registrations],
            "guardDutyEnabled": False,
            "createdAt": datetime(2026, 1, 1, tzinfo=UTC).timestamp(),
        }
        return record | self.service.connections() | ({"ecsManagedResources": managed} if managed else {})


@dataclass(slots=True)
class FakeTaskSet:
    """A task set of the controllers CODE_DEPLOY and EXTERNAL: its number, registrations and status."""

    number: str
    registrations: list[FakeRegistration]
    status: str = "PRIMARY"

    @property
    def started_by(self) -> str:
        """Its id, which is the ``startedBy`` of its tasks."""
        return f"ecs-svc/{self.number}"


@dataclass(slots=True)
class FakeService:
    """
    A service: its name, its cluster, where it registers its tasks, and how it replaces them.

    Attributes:
        name: Its name.
        cluster: The name of its cluster.
        registrations: Its ``loadBalancers``.
        desired: Its desired count.
        min_percent: ``minimumHealthyPercent``.
        max_percent: ``maximumPercent``.
        strategy: The strategy of its deployments.
        bake: The bake time of its deployments, in minutes.
        controller: Its deployment controller: ``"ECS"``, ``"CODE_DEPLOY"`` or ``"EXTERNAL"``.
        status: ``"ACTIVE"``, ``"DRAINING"`` or ``"INACTIVE"``.
        spot: Whether its tasks may run on Fargate Spot.
        definition: Its task definition.
        service_connect: Whether its tasks are reached through Service Connect.
        lattice: The VPC Lattice target groups of its tasks.
        revisions: Its revisions, the newest last.
        task_sets: Its task sets.
        starts: The revision of tasks that are added without another.
        events: Its events, newest first: seconds since 1970, and the message.
        early_success: The clean-up of its early success criteria, ``"BLOCKING"`` or ``"DEFERRED"``; ``None`` for none.
        alarms: The names of the alarms that roll a deployment back.
        canary: The percent and the minutes of a canary deployment.
    """

    name: str
    cluster: str
    registrations: list[FakeRegistration]
    desired: int = 1
    min_percent: int = 100
    max_percent: int = 200
    strategy: str = "ROLLING"
    bake: int | None = None
    controller: str = "ECS"
    status: str = "ACTIVE"
    spot: bool = False
    definition: FakeDefinition = field(default_factory=FakeDefinition)
    service_connect: bool = False
    lattice: tuple[str, ...] = ()
    revisions: list[FakeRevision] = field(default_factory=list, compare=False)
    task_sets: list[FakeTaskSet] = field(default_factory=list)
    starts: FakeRevision | None = field(default=None, compare=False)
    events: list[tuple[float, str]] = field(default_factory=list)
    early_success: str | None = None
    alarms: tuple[str, ...] = ()
    canary: tuple[float, int] = (5.0, 10)

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/{self.cluster}/{self.name}"

    @property
    def is_deployed_by_ecs(self) -> bool:
        """Whether it has revisions and deployments, and no task sets."""
        return self.controller == "ECS"

    def add_revision(self, number: str, definition: int = 1, **managed: Any) -> FakeRevision:
        """Add a revision with the current registrations; see `FakeRevision` for *managed*."""
        revision = FakeRevision(self, number, definition, tuple(self.registrations), **managed)
        self.revisions.append(revision)
        return revision

    def connections(self) -> dict[str, Any]:
        """Return the fields of a revision or deployment about Service Connect and VPC Lattice."""
        shown: dict[str, Any] = {}
        if self.service_connect:
            shown["serviceConnectConfiguration"] = {"enabled": True, "namespace": "internal"}
        if self.lattice:
            role = f"arn:aws:iam::{ACCOUNT}:role/ecsInfrastructureRole"
            groups = [{"roleArn": role, "targetGroupArn": each, "portName": "http"} for each in self.lattice]
            shown["vpcLatticeConfigurations"] = groups
        return shown


@dataclass(slots=True)
class FakeTask:
    """
    A task.

    Attributes:
        id: The last part of its ARN, and of the path of its endpoints.
        cluster: The name of its cluster.
        service: Its service; ``None`` for a standalone task.
        network_mode: ``"awsvpc"``, ``"bridge"`` or ``"host"``.
        addresses: The IPv4 addresses of its network interfaces.
        ipv6_addresses: Their IPv6 addresses.
        containers: Its containers by name, with the ports that each publishes.
        host_ports: In bridge mode, the host port of a container port.
        udp_ports: The same for ports that are also published for UDP.
        ipv6_ports: The same for ports that have another number on IPv6.
        instance_id: The EC2 instance that it runs on; ``None`` on Fargate.
        last_status: ``lastStatus``.
        desired_status: ``desiredStatus``.
        started_by: ``startedBy``; by default the deployment of the revision that its service `starts`.
        definition: The revision of its task definition.
        stop_code: ``stopCode``.
        protected_until: When its scale-in protection ends, in seconds since 1970; ``None`` if it has none.
        is_alternate: Whether it is registered with the second group of each pair.
        version: ``version``, which grows with each change of a status.
    """

    id: str
    cluster: str
    service: FakeService | None
    network_mode: str = "awsvpc"
    addresses: tuple[str, ...] = ("10.0.0.5",)
    ipv6_addresses: tuple[str, ...] = ()
    containers: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"app": (8000,)})
    host_ports: Mapping[int, int] = field(default_factory=dict)
    udp_ports: Mapping[int, int] = field(default_factory=dict)
    ipv6_ports: Mapping[int, int] = field(default_factory=dict)
    instance_id: str | None = None
    last_status: str = "RUNNING"
    desired_status: str = "RUNNING"
    started_by: str | None = None
    definition: int = 1
    stop_code: str | None = None
    protected_until: float | None = None
    is_alternate: bool = False
    version: int = 3

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("last_status", "desired_status") and getattr(self, name, value) != value:
            self.version += 1
        object.__setattr__(self, name, value)

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{self.cluster}/{self.id}"

    @property
    def cluster_arn(self) -> str:
        """The ARN of the cluster."""
        return f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{self.cluster}"

    @property
    def instance_arn(self) -> str:
        """The ARN of the container instance."""
        return f"arn:aws:ecs:{REGION}:{ACCOUNT}:container-instance/{self.cluster}/{self.instance_id}"

    @property
    def launch_type(self) -> str:
        """``"EC2"`` on an instance, else ``"FARGATE"``."""
        return "EC2" if self.instance_id else "FARGATE"

    @property
    def registrations(self) -> list[FakeRegistration]:
        """Its registrations: those of its revision or task set, even if its service has changed since."""
        if self.service is None:
            return []
        for revision in self.service.revisions:
            if revision.started_by == self.started_by:
                return revision.all_registrations
        for task_set in self.service.task_sets:
            if task_set.started_by == self.started_by:
                return task_set.registrations
        return self.service.registrations

    def targets(self) -> Iterator[tuple[FakeTargetGroup, str, int]]:
        """Yield the group, the id and the port of every target that ECS registers for the task."""
        for each in self.registrations:
            group = (each.alternate if self.is_alternate else None) or each.group
            if group.target_type == "instance":
                is_udp = group.protocol in ("UDP", "QUIC")
                port = self.udp_ports.get(each.port, each.port) if is_udp else self.host_port(each.port)
                yield group, self.instance_id or "", port
            else:
                ipv6 = self.ipv6_addresses[:1] if not self.addresses else ()
                yield group, (*self.addresses[:1], *ipv6)[0], each.port

    @property
    def longest_delay(self) -> float:
        """The longest deregistration delay of its target groups, in seconds."""
        return max((group.delay for group, _, _ in self.targets()), default=0.0)

    @property
    def stop_timeout(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return (self.service.definition.stop_timeout if self.service else None) or STOP_TIMEOUT

    def host_port(self, port: int) -> int:
        """Return the host port of *port*, for TCP and IPv4."""
        return self.host_ports.get(port, port)

    def bindings(self, container: str) -> Iterator[tuple[int, int, str, str]]:
        """Yield the container port, host port, protocol and address of every port that a container publishes."""
        for port in self.containers[container]:
            yield port, self.host_port(port), "tcp", "0.0.0.0"  # noqa: S104
            if port in self.udp_ports:
                yield port, self.udp_ports[port], "udp", "0.0.0.0"  # noqa: S104
            if port in self.ipv6_ports:
                yield port, self.ipv6_ports[port], "tcp", "::"

    def record(self) -> dict[str, Any]:
        """Return the task as DescribeTasks shows it."""
        record: dict[str, Any] = {
            "attachments": [],
            "availabilityZone": f"{REGION}a",
            "clusterArn": self.cluster_arn,
            "containers": [self._container_record(name) for name in self.containers],
            "createdAt": datetime(2026, 1, 1, tzinfo=UTC).timestamp(),
            "desiredStatus": self.desired_status,
            "group": f"service:{self.service.name}" if self.service else "family:app",
            "lastStatus": self.last_status,
            "launchType": self.launch_type,
            "startedBy": self.started_by or "somebody",
            "taskArn": self.arn,
            "taskDefinitionArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/app:{self.definition}",
            "version": self.version,
        }
        if self.instance_id:
            record["containerInstanceArn"] = self.instance_arn
        if self.stop_code:
            record |= {"stopCode": self.stop_code, "stoppedReason": "Scaling activity initiated by deployment"}
        return record

    def metadata(self) -> dict[str, Any]:
        """
        Return the task as its metadata endpoint shows it.

        ``KnownStatus`` stays RUNNING while the task is being deactivated, as on AWS:
        https://github.com/aws/containers-roadmap/issues/2012.
        """
        return {
            "Cluster": self.cluster_arn if self.launch_type == "FARGATE" else self.cluster,
            "TaskARN": self.arn,
            "Family": "app",
            "Revision": "1",
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "AvailabilityZone": f"{REGION}a",
            "LaunchType": self.launch_type,
            "Containers": [self.container_metadata(name) for name in self.containers],
        }

    def container_metadata(self, name: str) -> dict[str, Any]:
        """Return a container as the metadata endpoint shows it."""
        network: dict[str, Any] = {"NetworkMode": self.network_mode}
        if self.network_mode != "host":
            network["IPv4Addresses"] = list(self.addresses)
            if self.ipv6_addresses:
                network["IPv6Addresses"] = list(self.ipv6_addresses)
        container: dict[str, Any] = {
            "DockerId": f"{self.id}-{name}",
            "Name": name,
            "Image": "app:1",
            "Labels": {"com.amazonaws.ecs.cluster": self.cluster, "com.amazonaws.ecs.task-arn": self.arn},
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "Type": "NORMAL",
            "Networks": [network],
        }
        if self.network_mode == "bridge":
            container["Ports"] = [
                {"ContainerPort": port, "Protocol": protocol, "HostPort": host_port, "HostIp": address}
                for port, host_port, protocol, address in self.bindings(name)
            ]
        return container

    def _container_record(self, name: str) -> dict[str, Any]:
        awsvpc = self.network_mode == "awsvpc"
        interface: dict[str, str] = {"attachmentId": "6f1b4c9e"}
        if self.addresses:
            interface["privateIpv4Address"] = self.addresses[0]
        if self.ipv6_addresses:
            interface["ipv6Address"] = self.ipv6_addresses[0]
        bindings = [
            {"bindIP": address, "containerPort": port, "hostPort": host_port, "protocol": protocol}
            for port, host_port, protocol, address in self.bindings(name)
        ]
        return {
            "containerArn": f"{self.arn.replace(':task/', ':container/')}/{name}",
            "taskArn": self.arn,
            "name": name,
            "image": "app:1",
            "runtimeId": f"{self.id}-{name}",
            "lastStatus": self.last_status,
            "networkBindings": [] if awsvpc else bindings,
            "networkInterfaces": [interface] if awsvpc else [],
            "healthStatus": "UNKNOWN",
            "cpu": "0",
        }


def load_balancer(registration: FakeRegistration) -> dict[str, Any]:
    """Return an entry of ``loadBalancers``."""
    entry: dict[str, Any] = {
        "targetGroupArn": registration.group.arn,
        "containerName": registration.container,
        "containerPort": registration.port,
    }
    if registration.alternate:
        entry["advancedConfiguration"] = {
            "alternateTargetGroupArn": registration.alternate.arn,
            "roleArn": f"arn:aws:iam::{ACCOUNT}:role/ecsInfrastructureRole",
        }
    return entry


def _gateway(service: FakeService, gateway: FakeGateway) -> dict[str, Any]:
    balancer = {"targetGroupArn": gateway.group.arn}
    if gateway.alternate:
        balancer["alternateTargetGroupArn"] = gateway.alternate.arn
    return {
        "gatewayArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:gateway/shared",
        "portName": "http",
        "serviceUrl": f"https://{service.name}.example",
        "accessType": "PUBLIC",
        "status": "ACTIVE",
        "resources": {"hostSharedAlb": [balancer]},
    }
