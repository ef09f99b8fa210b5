"""What the doctor found, as it found it: frozen, and judged by the checks."""

from dataclasses import dataclass
from typing import Literal

from starlette_drain._core.settings import Settings
from starlette_drain.aws.errors import Trouble
from starlette_drain.planning.deployment import Deployment
from starlette_drain.planning.sums import Fleet

__all__ = ["Finding", "Group", "SetUp"]

DEFAULT_DELAY = 300.0
AFTER_THE_LAST = 11.0
"""Seconds after the last goodbye, at worst: 1 of patience, 5 for telemetry, 5 for the server to end."""


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
        task_arn: ARN, where the doctor runs inside a task.
        groups: The target groups.
        reads: The reads that were tried and allowed.
        troubles: The reads that failed.
        desired: Desired count.
        min_percent: ``minimumHealthyPercent``.
        max_percent: ``maximumPercent``.
        strategy: Of deployments, such as ``"ROLLING"`` or ``"BLUE_GREEN"``.
        is_spot: Whether tasks may run on Fargate Spot.
        stop_timeout: Of the container, in seconds, 30 where none is set; ``None`` where not told.
        command: What runs in the container.
        settings: The options of the drain there; ``None`` where they cannot work.
        settings_error: Why not.
        sessions: On each task, as whoever asked says.
        wish: Reconnects per second that the service can take, as whoever asked says.
    """

    cluster: str | None = None
    service: str | None = None
    task_arn: str | None = None
    groups: tuple[Group, ...] = ()
    reads: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    desired: int | None = None
    min_percent: int = 100
    max_percent: int = 200
    strategy: str = "ROLLING"
    is_spot: bool = False
    stop_timeout: float | None = None
    command: tuple[str, ...] | None = None
    settings: Settings | None = None
    settings_error: str | None = None
    sessions: int | None = None
    wish: float | None = None

    @property
    def options(self) -> Settings:
        """The options, or the defaults where they are not known."""
        return self.settings or Settings()

    @property
    def delay(self) -> float | None:
        """The shortest deregistration delay; ``None`` where none is known."""
        if self.options.deregistration_delay is not None:
            return self.options.deregistration_delay
        return min((each.delay for each in self.groups if each.delay is not None), default=None)

    @property
    def stopping(self) -> float:
        """Seconds from SIGTERM to the end of the process, at worst."""
        return self.options.sigterm_window + self.options.tail + AFTER_THE_LAST

    @property
    def deployment(self) -> Deployment:
        """How tasks are replaced; one task where their number is not known."""
        known = [each.targets for each in self.groups if each.targets]
        tasks = self.desired if self.desired is not None else max(known, default=1)
        whole = self.strategy in ("BLUE_GREEN", "LINEAR", "CANARY")
        return Deployment(max(1, tasks), self.min_percent, self.max_percent, whole)

    @property
    def fleet(self) -> Fleet:
        """The sums of a deployment, for the sessions given or for 1,000 on each task."""
        options = self.options
        return Fleet(
            self.deployment,
            self.sessions or 1000,
            DEFAULT_DELAY if self.delay is None else self.delay,
            options.margin,
            options.poll_interval,
            options.poll_share,
            max(1, len(self.groups)),
            options.window,
        )
