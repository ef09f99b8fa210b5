"""What the doctor found, as it found it: frozen, and judged by the checks."""

from dataclasses import dataclass
from typing import Literal

from starlette_drain.aws.api.errors import Incomplete, Trouble
from starlette_drain.aws.options import AwsSettings

__all__ = ["Finding", "Group", "SetUp"]


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

    level: Literal["fine", "note", "unsafe"]
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
    """

    arn: str
    protocol: str = ""
    target_type: str = ""
    in_use: bool | None = None
    delay: float | None = None
    termination: bool | None = None
    targets: int | None = None
    healthy: int = 0

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
        stop_timeout: Of the container, in seconds, 30 where none is set; ``None`` where not told.
        command: What runs in the container.
        is_process: Whether that is what process 1 shows, and not what a definition says.
        settings: The options of the drain there; ``None`` where they cannot work.
        settings_error: Why not.
        warnings: What works in them but was probably not meant.
        sessions: On each task, as given.
        wish: Reconnects per second that the service can take, as given.
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
    stop_timeout: float | None = None
    command: tuple[str, ...] | None = None
    is_process: bool = False
    settings: AwsSettings | None = None
    settings_error: str | None = None
    warnings: tuple[str, ...] = ()
    sessions: int | None = None
    wish: float | None = None

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
