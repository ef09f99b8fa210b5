# The life of a target, as AWS shows it.
#
#   register ──> initial ──(initial seconds)──> healthy ──> deregister ──> draining ──(delay)──> not listed any more
#
# A draining target stays in the listing until the whole delay has passed, also when its last connection is long gone:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html. Asked for by
# name, a target that is not listed is `unused` with the reason Target.NotRegistered. To register a draining target
# again is to begin anew.
"""Target groups and their targets, with the states that ELBv2 shows, on a clock that is handed in."""

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
        arn: ARN.
        clock: Seconds.
        target_type: ``"ip"`` or ``"instance"``.
        port: Of targets that are registered without one.
        protocol: ``"HTTP"`` for an ALB, ``"TCP"`` for an NLB.
        initial: Seconds between registration and the first passed health check.
        in_use: Whether a listener uses the group.
        control_port: Where an agent of the target optimizer listens; ``None`` without one.
        attributes: As DescribeTargetGroupAttributes shows them.
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
        """The name, as it is in the ARN."""
        return self.arn.split("/")[1]

    @property
    def delay(self) -> float:
        """Deregistration delay in seconds."""
        return float(self.attributes["deregistration_delay.timeout_seconds"])

    def register(self, target_id: str, port: int | None = None) -> None:
        """Begin to send to a target; one that is draining begins anew."""
        key = (target_id, port or self.port)
        listed = self._find(*key)
        if listed is None or listed.deregistered_at is not None:
            self._targets[key] = FakeTarget(*key, registered_at=self.clock())

    def deregister(self, target_id: str, port: int | None = None) -> None:
        """
        Stop sending to a target, or to all ports of it. One that is not registered is passed over in silence.

        https://github.com/chaostoolkit-incubator/chaostoolkit-aws/issues/60 shows that AWS does so.
        """
        for target in self.listed():
            if target.id == target_id and port in (None, target.port) and target.deregistered_at is None:
                target.deregistered_at = self.clock()

    def show(self, target_id: str, state: str | None, reason: str | None = None) -> None:
        """Show another health for the target until *state* is ``None``: unhealthy, unavailable, ..."""
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
        """Return what the balancer shows of *target* now."""
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
        """Return id, port and health of every target, or of those that are named, registered or not."""
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
