"""The times of a deployment, scaled by one factor."""

from dataclasses import dataclass

__all__ = ["Times"]

SHORTEST_POLL = 1.0
"""Seconds; the package refuses to ask AWS more often."""

GRACE = 5.0
"""Seconds; the package's default."""

HEALTH_CHECKS = 10.0
"""Seconds a new target is ``initial``: two checks, five seconds apart."""


@dataclass(frozen=True, slots=True)
class Times:
    """
    How long things take, in real seconds, made from what they take on ECS.

    Attributes:
        scale: How many real seconds a second of ECS takes.
        ecs_delay: The deregistration delay on ECS, in seconds; so are the following.
        ecs_cut: Between SIGTERM and the moment at which the balancer closes what is left: 8 s on an ALB, seen once.
        ecs_stop_timeout: Between SIGTERM and SIGKILL.
        ecs_margin: What a drain keeps free at the end of the delay.
        ecs_sigterm_window: Over which a drain spreads its sessions that begins with SIGTERM.
        ecs_rest: Between the shift of the traffic and the deregistration, where the sessions leave then; 0 otherwise.
    """

    scale: float = 0.1
    ecs_delay: float = 300.0
    ecs_cut: float = 8.0
    ecs_stop_timeout: float = 30.0
    ecs_margin: float = 15.0
    ecs_sigterm_window: float = 6.0
    ecs_rest: float = 0.0

    @property
    def delay(self) -> float:
        """The deregistration delay; AWS knows whole seconds only."""
        return max(1.0, float(round(self.ecs_delay * self.scale)))

    @property
    def leaving(self) -> float:
        """What sessions have to leave, the margin included."""
        return self.ecs_rest * self.scale or self.delay

    @property
    def cut(self) -> float:
        """Between SIGTERM and the balancer's cut."""
        return self.ecs_cut * self.scale

    @property
    def stop_timeout(self) -> float:
        """Between SIGTERM and SIGKILL."""
        return self.ecs_stop_timeout * self.scale

    @property
    def margin(self) -> float:
        """What a drain keeps free at the end of the delay."""
        return self.ecs_margin * self.scale

    @property
    def poll_interval(self) -> float:
        """Between two looks at the target's health: 5 s, as far as they can be scaled."""
        return max(SHORTEST_POLL, 5.0 * self.scale)

    @property
    def poll_share(self) -> float:
        """The fleet's share of the account's calls per second, which are more where a second is shorter."""
        return min(1.0, 0.2 / self.scale)

    @property
    def initial(self) -> float:
        """Between registration and health."""
        return HEALTH_CHECKS * self.scale

    def environment(self) -> dict[str, str]:
        """Return what a task is told: the package's options where the scale concerns them."""
        return {
            "DRAIN_MARGIN": f"{self.margin:g}",
            "DRAIN_POLL_INTERVAL": f"{self.poll_interval:g}",
            "DRAIN_POLL_SHARE": f"{self.poll_share:g}",
            "DRAIN_START_DELAY": f"{10 * self.scale:g}",
            "DRAIN_SIGTERM_WINDOW": f"{self.ecs_sigterm_window * self.scale:g}",
            "DRAIN_GRACE": f"{GRACE * self.scale:g}",
            "ROLLOUT_STOP_TIMEOUT": f"{self.stop_timeout:g}",
        }
