"""What the doctor found, as it found it: frozen, and judged by the checks."""

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
    One line of the table.

    Attributes:
        level: Whether it is well, worth knowing, or will go wrong.
        what: What was looked at.
        found: What was found.
        remedy: What to do about it; empty where nothing is to be done.
    """

    level: Level
    what: str
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """
    One target group.

    Attributes:
        arn: ARN.
        protocol: Such as ``"HTTP"`` (an ALB) or ``"TCP"`` (an NLB); empty where not told.
        target_type: Such as ``"ip"``; empty where not told.
        in_use: Whether a load balancer uses it; ``None`` where not told.
        delay: Deregistration delay in seconds; ``None`` where not told.
        termination: Whether connections are cut when the delay ends; ``None`` where not told.
        targets: How many are listed; ``None`` where not told.
        healthy: How many of them are healthy.
        listed: Id, port and state of each.
        has_optimizer: Whether an agent of the target optimizer stands between the balancer and the task.
        health_path: What its health check asks for; empty where not told.
        attributes: All of them, by their keys.
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
        """The name, as it is in the ARN."""
        return self.arn.rpartition(":targetgroup/")[2].partition("/")[0]

    @property
    def is_network(self) -> bool:
        """Whether an NLB uses it."""
        return self.protocol in ("TCP", "TLS", "UDP", "TCP_UDP", "QUIC", "TCP_QUIC")


@dataclass(frozen=True, slots=True)
class SetUp:
    """
    Everything the checks judge. What could not be found out is ``None`` or empty.

    Attributes:
        cluster: Name or ARN.
        service: Name.
        service_status: Such as ``"ACTIVE"``; ``"MISSING"`` where ECS knows no such service.
        is_tied: Whether ECS registers the service's tasks with a balancer, and so waits for it before SIGTERM.
        task_arn: ARN, where the doctor runs inside a task.
        groups: The target groups.
        reads: The reads that were tried and allowed.
        troubles: The reads that failed.
        stuck: Why the package does not find out who it is, where it was tried.
        desired: Desired count.
        min_percent: ``minimumHealthyPercent``.
        max_percent: ``maximumPercent``.
        strategy: Of deployments, such as ``"ROLLING"`` or ``"BLUE_GREEN"``.
        controller: Who deploys: ``"ECS"``, ``"CODE_DEPLOY"`` or ``"EXTERNAL"``.
        bake_time: Seconds that the old tasks run on after all traffic has shifted; 0 where none shifts.
        is_spot: Whether tasks may run on Fargate Spot.
        registered: The target groups with which ECS registers the service's tasks.
        ports: Those of the container to which they send.
        other_ways: By what else traffic reaches the tasks, in AWS's words.
        is_daemon: Whether there is one task for each instance.
        is_fargate: Whether the tasks run on Fargate alone; ``None`` where not told.
        is_windows: Whether they run on Windows.
        has_role: Whether the task definition names a task role; ``None`` where not told.
        stop_timeout: Of the container, in seconds, 30 where none is set; ``None`` where not told.
        has_stop_timeout: Whether one is set.
        is_essential: Whether the end of the container is the end of the task.
        not_looked_at: Further containers behind the target groups.
        proxies: Those that pass requests on to the container, and may be stopped before it.
        container: The container that is looked at.
        missing_container: The one that was asked for, where the task definition has none of that name.
        restarts: Whether a restart policy starts it again when it ends.
        unseen: Variables of ours that come from secrets, and files of variables: what they say cannot be seen.
        own: What the package takes for its own target in each group, where it was found out.
        answer: What the process said of itself; ``None`` where it was not asked.
        has_token: Whether the task has an admin token.
        url: Where it was to be asked, as given.
        early_success: What becomes of the old tasks where early success criteria are set.
        alarms: Whether alarms roll a deployment back.
        is_express: Whether ECS runs the service in Express mode.
        environ: The environment of the process.
        stop_signal: The image's, as given.
        is_in_image: Whether the command line stands in the image, where it cannot be seen.
        command: What runs in the container.
        is_process: Whether that is what process 1 shows, and not what a definition says.
        settings: The options of the drain there; ``None`` where they cannot work.
        settings_error: Why not.
        warnings: What works in them but was probably not meant.
        sessions: On each task, as given.
        wish: Reconnects per second that the service can take, as given.
        start_up: Seconds from the start of a new task until it is healthy, as given; ``None`` where it is not known.
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
        """What the process knows of itself; nothing where it has not told."""
        shown = self.answer.shown if self.answer is not None else None
        return (shown or {}).get("process") or {}

    @property
    def options(self) -> AwsSettings:
        """The options, or the defaults where they are not known."""
        return self.settings or AwsSettings()

    @property
    def delay(self) -> float | None:
        """The shortest deregistration delay; ``None`` where none is known."""
        if self.options.deregistration_delay is not None:
            return self.options.deregistration_delay
        return min((each.delay for each in self.groups if each.delay is not None), default=None)
