# Rolling: see scheduler.py. Blue/green, linear, canary: the new tasks start, the traffic is shifted (at once, or in
# steps), a PAUSE hook may hold the deployment, the bake time passes, and then all old tasks are deregistered together.
# New connections follow the weights; open ones stay where they are. Behind an NLB ECS adds ten minutes to the shift of
# test traffic, and ten to that of production traffic:
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/nlb-resources-for-blue-green.html.
# Express mode is a canary with its own times: 5 % for 3 minutes, then a bake time of 3 minutes.
"""The stages of deployment strategies, for FakeAWS, `starlette-drain plan` and the rollout lab."""

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
    A stage of a deployment.

    Attributes:
        name: A ``lifecycleStage`` of AWS.
        seconds: Its duration; for the stage with the hook, its longest.
        percent: The percentage of new connections that the new tasks get.
    """

    name: str
    seconds: float
    percent: float


@dataclass(frozen=True, slots=True)
class Strategy:
    """
    A deployment strategy with its times.

    Attributes:
        name: A ``strategy`` of AWS.
        steps: The steps before all traffic is shifted: the percentage for the new tasks, and seconds.
        bake: Seconds for which all tasks run after the shift.
        pause: The most seconds that a PAUSE hook holds the deployment before the bake time.
        is_network: Whether the service is behind an NLB.
    """

    name: str
    steps: tuple[tuple[float, float], ...] = ()
    bake: float = 0.0
    pause: float = 0.0
    is_network: bool = False

    @property
    def is_shifting(self) -> bool:
        """Whether traffic is shifted from the old tasks to the new ones."""
        return self.name != "ROLLING"

    def with_times(self, bake: float | None, pause: float, *, is_network: bool) -> "Strategy":
        """Return a copy with these minutes of bake time and pause, behind an NLB or not."""
        if not self.is_shifting:
            return self
        seconds = self.bake if bake is None else bake * MINUTE
        return replace(self, bake=seconds, pause=pause * MINUTE, is_network=is_network)

    def stages(self) -> Iterator[Stage]:
        """Yield the stages from healthy new tasks until the old ones are deregistered."""
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
        """The duration of all stages."""
        return sum(each.seconds for each in self.stages())


# The steps are the defaults of AWS, from API_LinearConfiguration.html and API_CanaryConfiguration.html in
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/.
STRATEGIES = {
    "rolling": Strategy("ROLLING"),
    "blue-green": Strategy("BLUE_GREEN"),
    "linear": Strategy("LINEAR", tuple((10.0 * step, 6 * MINUTE) for step in range(1, 10))),
    "canary": Strategy("CANARY", ((5.0, 10 * MINUTE),)),
    "express": Strategy("CANARY", ((5.0, 3 * MINUTE),), bake=3 * MINUTE),
}
