# The life of a target, as AWS shows it.
#
#   register ──> initial ──(initial seconds)──> healthy ──> deregister ──> draining ──(delay)──> not listed any more
#
# A draining target stays listed until the whole delay has passed, even if its last connection is long gone:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html. Requested by
# id, a target that is not listed is `unused` with the reason Target.NotRegistered. A draining target that is registered
# again starts over.
"""Target groups and their targets, with the states that ELBv2 shows, on a given clock."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["FakeTarget", "FakeTargetGroup", "Health"]

NOT_REGISTERED = "Target is not registered to the target group"


@dataclass(frozen=True, slots=True)
class Health:
    """A ``TargetHealth`` of the ELBv2 API."""

    state: str
    reason: str | None = None
    description: str | None = None


@dataclass(slots=True)
class FakeTarget:
    """One target of a group; *shown* is a health that was set by hand."""

    id: str
    port: int
    registered_at: float
    deregistered_at: float | None = None
    shown: Health | None = None


@dataclass(slots=True)
class FakeTargetGroup:
    """
    A target group.

    Attributes:
        arn: Its ARN.
        clock: Returns the time in seconds.
        target_type: ``"ip"`` or ``"instance"``.
        port: The port of targets that are registered without one.
        protocol: ``"HTTP"`` for an ALB, ``"TCP"`` for an NLB.
        initial: Seconds between registration and the first passed health check.
        in_use: Whether a listener uses the group.
        control_port: The port of the target optimizer's agent; ``None`` without one.
        attributes: Its attributes, as DescribeTargetGroupAttributes shows them.
    """

    arn: str
    clock: Callable[[], float]
    target_type: str = "ip"
    port: int = 8000
    protocol: str = "HTTP"
    initial: float = 0.0
    in_use: bool = True
    control_port: int | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    _targets: dict[tuple[str, int], FakeTarget] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name, from the ARN."""
        return self.arn.split("/")[1]

    @property
    def delay(self) -> float:
        """Its deregistration delay in seconds."""
        return float(self.attributes["deregistration_delay.timeout_seconds"])

    def register(self, target_id: str, port: int | None = None) -> None:
        """Register a target; one that is draining starts over."""
        key = (target_id, port or self.port)
        listed = self._find(*key)
        if listed is None or listed.deregistered_at is not None:
            self._targets[key] = FakeTarget(*key, registered_at=self.clock())

    def deregister(self, target_id: str, port: int | None = None) -> None:
        """
        Deregister a target, or all ports of it. A target that is not registered is ignored.

        https://github.com/chaostoolkit-incubator/chaostoolkit-aws/issues/60 shows that AWS does the same.
        """
        for target in self.listed():
            if target.id == target_id and port in (None, target.port) and target.deregistered_at is None:
                target.deregistered_at = self.clock()

    def show(self, target_id: str, state: str | None, reason: str | None = None) -> None:
        """Show the target in *state*, such as ``"unhealthy"``; ``None`` shows its real state again."""
        for target in self.listed():
            if target.id == target_id:
                target.shown = None if state is None else Health(state, reason)

    def listed(self) -> list[FakeTarget]:
        """Return the targets of an answer about the whole group."""
        now = self.clock()
        for key, target in list(self._targets.items()):
            if target.deregistered_at is not None and now >= target.deregistered_at + self.delay:
                del self._targets[key]
        return list(self._targets.values())

    def health(self, target: FakeTarget) -> Health:
        """Return the health that the balancer shows for *target* now."""
        if target.shown is not None:
            return target.shown
        if target.deregistered_at is not None:
            reason = "Target.DeregistrationInProgress"
            return Health("draining", reason, "Target deregistration is in progress")
        if not self.in_use:
            description = "Target group is not configured to receive traffic from the load balancer"
            return Health("unused", "Target.NotInUse", description)
        age = self.clock() - target.registered_at
        if age < self.initial / 2:
            return Health("initial", "Elb.RegistrationInProgress", "Target registration is in progress")
        if age < self.initial:
            return Health("initial", "Elb.InitialHealthChecking", "Initial health checks in progress")
        return Health("healthy")

    def described(self, named: Iterable[tuple[str, int | None]]) -> list[tuple[str, int, Health]]:
        """Return the id, port and health of every target, or of those that are *named*, registered or not."""
        wanted = list(named)
        if not wanted:
            return [(each.id, each.port, self.health(each)) for each in self.listed()]
        found = []
        for target_id, port in wanted:
            target = self._find(target_id, port or self.port)
            health = self.health(target) if target else Health("unused", "Target.NotRegistered", NOT_REGISTERED)
            found.append((target_id, port or self.port, health))
        return found

    def _find(self, target_id: str, port: int) -> FakeTarget | None:
        return next((each for each in self.listed() if (each.id, each.port) == (target_id, port)), None)
