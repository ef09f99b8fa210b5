"""The set-up that the doctor found, and the findings of its checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette_drain.aws.api.errors import Incomplete, Trouble
from starlette_drain.aws.identity.identity import OwnTarget
from starlette_drain.aws.options import AwsSettings
from starlette_drain.tools.doctor.inside import Answer

__all__ = ["Finding", "Group", "Level", "SetUp"]

Level = Literal["fine", "note", "unsafe"]


@dataclass(frozen=True, slots=True)
class Finding:
    """
    A row of the table.

    Attributes:
        level: Whether it is right, worth knowing, or wrong.
        what: What was checked.
        found: What was found.
        remedy: What to do; empty if nothing.
    """

    level: Level
    what: str
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """
    A target group.

    Attributes:
        arn: Its ARN.
        protocol: For example ``"HTTP"`` (an ALB) or ``"TCP"`` (an NLB); empty if unknown.
        target_type: For example ``"ip"``; empty if unknown.
        in_use: Whether a load balancer uses it; ``None`` if unknown.
        delay: The deregistration delay in seconds; ``None`` if unknown.
        termination: Whether connections are cut at the end of the delay; ``None`` if unknown.
        targets: The number of its targets; ``None`` if unknown.
        healthy: The number of healthy targets.
        listed: The id, port and state of each target.
        has_optimizer: Whether a target optimizer agent runs in front of the task.
        health_path: The path of the health check; empty if unknown.
        attributes: All its attributes, by key.
    """

    arn: str
    protocol: str = ""
    target_type: str = ""
    in_use: bool | None = None
    delay: float | None = None
    termination: bool | None = None
    targets: int | None = None
    healthy: int = 0
    listed: tuple[tuple[str, int, str], ...] = ()
    has_optimizer: bool = False
    health_path: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in the ARN."""
        return self.arn.rpartition(":targetgroup/")[2].partition("/")[0]

    @property
    def is_network(self) -> bool:
        """Whether an NLB uses it."""
        return self.protocol in ("TCP", "TLS", "UDP", "TCP_UDP", "QUIC", "TCP_QUIC")


@dataclass(frozen=True, slots=True)
class SetUp:
    """
    The set-up that the checks examine. What could not be found is ``None`` or empty.

    Attributes:
        cluster: Name or ARN of the cluster.
        service: Name of the service.
        service_status: For example ``"ACTIVE"``; ``"MISSING"`` if ECS does not know the service.
        is_tied: Whether ECS registers the tasks with a balancer, and so waits for the delay before SIGTERM.
        task_arn: ARN of the task in which the doctor runs.
        groups: The target groups.
        reads: The reads that were tried and allowed.
        troubles: The reads that failed.
        stuck: The error if the package cannot find its identity.
        desired: The desired count.
        min_percent: ``minimumHealthyPercent``.
        max_percent: ``maximumPercent``.
        strategy: The deployment strategy, for example ``"ROLLING"`` or ``"BLUE_GREEN"``.
        controller: The deployment controller: ``"ECS"``, ``"CODE_DEPLOY"`` or ``"EXTERNAL"``.
        bake_time: The bake time in seconds; 0 if traffic is not shifted.
        is_spot: Whether tasks may run on Fargate Spot.
        registered: The target groups with which ECS registers the tasks.
        ports: The ports of the container in these groups.
        other_ways: Other ways for traffic to reach the tasks, by their names on AWS.
        is_daemon: Whether the service runs one task per instance.
        is_fargate: Whether the tasks run only on Fargate; ``None`` if unknown.
        is_windows: Whether the tasks run on Windows.
        has_role: Whether the task definition has a task role; ``None`` if unknown.
        stop_timeout: The container's ``stopTimeout`` in seconds, 30 by default; ``None`` if unknown.
        has_stop_timeout: Whether ``stopTimeout`` is set.
        is_essential: Whether the task ends with the container.
        health_command: The command of the container's health check; empty if there is none.
        not_looked_at: Other containers behind the target groups.
        proxies: Containers that forward requests to the container, and may be stopped before it.
        container: The container that is checked.
        missing_container: The requested container, if the task definition does not have it.
        restarts: Whether a restart policy restarts the container.
        unseen: Our variables that are secrets, and environment files: their values are unknown.
        own: The targets that the package takes for its own, one per group.
        answer: The answer of the process; ``None`` if it was not asked.
        has_token: Whether the task has an admin token.
        url: The URL of the process, as given.
        early_success: How old tasks are cleaned up, if early success criteria are set.
        alarms: Whether alarms roll back deployments.
        is_express: Whether ECS runs the service in Express mode.
        environ: The environment of the process.
        stop_signal: The image's STOPSIGNAL, as given.
        is_in_image: Whether the command line is in the image, and so unknown.
        command: The command line in the container.
        is_process: Whether that is from a process, and not from a definition.
        settings: The options of the drain; ``None`` if they are invalid.
        settings_error: Why they are invalid.
        warnings: The warnings of the options.
        sessions: The sessions per task, as given.
        wish: The reconnects per second that the service can take, as given.
        start_up: Seconds from the start of a new task until it is healthy, as given; ``None`` if unknown.
    """

    cluster: str | None = None
    service: str | None = None
    service_status: str | None = None
    is_tied: bool | None = None
    task_arn: str | None = None
    groups: tuple[Group, ...] = ()
    reads: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    stuck: Incomplete | None = None
    desired: int | None = None
    min_percent: int = 100
    max_percent: int = 200
    strategy: str = "ROLLING"
    controller: str = "ECS"
    bake_time: float = 0.0
    is_spot: bool = False
    registered: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    other_ways: tuple[str, ...] = ()
    is_daemon: bool = False
    is_fargate: bool | None = None
    is_windows: bool = False
    has_role: bool | None = None
    stop_timeout: float | None = None
    has_stop_timeout: bool = True
    is_essential: bool = True
    health_command: str = ""
    not_looked_at: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    container: str | None = None
    missing_container: str | None = None
    restarts: bool = False
    unseen: tuple[str, ...] = ()
    own: tuple[OwnTarget, ...] = ()
    answer: Answer | None = None
    has_token: bool = False
    url: str | None = None
    early_success: str | None = None
    alarms: bool = False
    is_express: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str | None = None
    is_in_image: bool = False
    command: tuple[str, ...] | None = None
    is_process: bool = False
    settings: AwsSettings | None = None
    settings_error: str | None = None
    warnings: tuple[str, ...] = ()
    sessions: int | None = None
    wish: float | None = None
    start_up: float | None = None

    @property
    def process(self) -> Mapping[str, Any]:
        """The answer of the process about itself; empty if there is none."""
        shown = self.answer.shown if self.answer is not None else None
        return (shown or {}).get("process") or {}

    @property
    def options(self) -> AwsSettings:
        """The options, or the defaults if they are unknown."""
        return self.settings or AwsSettings()

    @property
    def delay(self) -> float | None:
        """The shortest deregistration delay; ``None`` if none is known."""
        if self.options.deregistration_delay is not None:
            return self.options.deregistration_delay
        return min((each.delay for each in self.groups if each.delay is not None), default=None)
