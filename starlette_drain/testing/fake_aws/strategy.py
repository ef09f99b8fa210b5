# How long do the old tasks stay, and which part of the new connections do they get?
#
# Rolling: see scheduler.py. Blue/green, linear, canary: the new fleet starts, the traffic shifts (at once, or in
# steps), then a PAUSE hook may hold the deployment, then comes the bake time, and then the old fleet is taken out at
# once. New connections follow the weights; those that are open stay where they are. Behind an NLB ECS adds ten minutes
# to the shift of test traffic and ten to that of production traffic:
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/nlb-resources-for-blue-green.html.
# Express mode is a canary of its own: 5 % for 3 minutes, then a bake of 3 minutes.
"""The strategies of deployments, stage by stage, as FakeAWS, `starlette-drain plan` and the rollout lab play them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["PAUSED", "STRATEGIES", "Stage", "Strategy"]

MINUTE = 60.0

NLB_SHIFT = 10 * MINUTE
"""Seconds that ECS adds to each shift of traffic behind an NLB."""

PAUSED = "POST_PRODUCTION_TRAFFIC_SHIFT"
"""The stage that the PAUSE hook holds."""


@dataclass(frozen=True, slots=True)
class Stage:
    """
    A part of a deployment.

    Attributes:
        name: A ``lifecycleStage`` of AWS.
        seconds: How long it takes; that of the hook, at most.
        percent: Part of the new connections that the new fleet gets.
    """

    name: str
    seconds: float
    percent: float


@dataclass(frozen=True, slots=True)
class Strategy:
    """
    How a deployment goes.

    Attributes:
        name: A ``strategy`` of AWS.
        steps: Before all traffic is shifted: percent of it that the new fleet gets, and for how many seconds.
        bake: Seconds that both fleets then run.
        pause: Seconds that a PAUSE hook holds the deployment before that, at most.
        is_network: Whether it is behind an NLB.
    """

    name: str
    steps: tuple[tuple[float, float], ...] = ()
    bake: float = 0.0
    pause: float = 0.0
    is_network: bool = False

    @property
    def is_shifting(self) -> bool:
        """Whether traffic is shifted from the old fleet to the new one."""
        return self.name != "ROLLING"

    def with_times(self, bake: float | None, pause: float, *, is_network: bool) -> "Strategy":
        """Return the same with so many minutes of bake time and pause, behind an NLB or not."""
        if not self.is_shifting:
            return self
        seconds = self.bake if bake is None else bake * MINUTE
        return replace(self, bake=seconds, pause=pause * MINUTE, is_network=is_network)

    def stages(self) -> Iterator[Stage]:
        """Yield the stages of shifted traffic, from healthy new tasks until the old ones are taken out."""
        if not self.is_shifting:
            return
        nlb = NLB_SHIFT if self.is_network else 0.0
        yield Stage("TEST_TRAFFIC_SHIFT", nlb, 0.0)
        for percent, seconds in self.steps:
            yield Stage("PRODUCTION_TRAFFIC_SHIFT", seconds, percent)
        yield Stage("PRODUCTION_TRAFFIC_SHIFT", nlb, 100.0)
        yield Stage(PAUSED, self.pause, 100.0)
        yield Stage("BAKE_TIME", self.bake, 100.0)

    @property
    def seconds(self) -> float:
        """How long the stages take."""
        return sum(each.seconds for each in self.stages())


# The steps are those that AWS takes by default, from API_LinearConfiguration.html and API_CanaryConfiguration.html in
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/.
STRATEGIES = {
    "rolling": Strategy("ROLLING"),
    "blue-green": Strategy("BLUE_GREEN"),
    "linear": Strategy("LINEAR", tuple((10.0 * step, 6 * MINUTE) for step in range(1, 10))),
    "canary": Strategy("CANARY", ((5.0, 10 * MINUTE),)),
    "express": Strategy("CANARY", ((5.0, 3 * MINUTE),), bake=3 * MINUTE),
}
