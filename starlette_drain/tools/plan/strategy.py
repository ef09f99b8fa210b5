# How long does a deployment take, and how long do the old tasks stay after the traffic has gone?
#
# Rolling: until the last task that was taken out has ended. With early success criteria it is *complete* sooner.
# Blue/green, linear, canary: the new fleet starts, the traffic shifts (at once, or in steps), then the bake time, and
# then the old fleet is taken out. Behind an NLB ECS adds ten minutes to the shift of test traffic and ten to that of
# production traffic: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/nlb-resources-for-blue-green.html.
# Express mode is a canary of its own: 5 % for 3 minutes, then a bake of 3 minutes.
# A PAUSE hook after the shift of production traffic keeps the old fleet until the deployment is let go on.
"""The strategies of deployments, and the times that they take: pure."""

from dataclasses import dataclass, replace

from starlette_drain.tools.plan.deployment import Deployment

__all__ = ["STRATEGIES", "Strategy"]

MINUTE = 60.0

NLB_SHIFTS = 2 * 10 * MINUTE
"""Seconds that ECS adds behind an NLB: ten minutes for each of two shifts of traffic."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """
    How a deployment goes.

    Attributes:
        is_shifting: Whether traffic is shifted from the old fleet to the new one.
        shift: Seconds that the shift of the traffic takes.
        rest: Seconds that the old tasks then stay, without traffic: the bake time, and a pause.
    """

    is_shifting: bool = True
    shift: float = 0.0
    rest: float = 0.0

    def with_times(self, bake: float | None, pause: float, *, is_network: bool) -> "Strategy":
        """Return the same with so many minutes of bake time and pause, behind an NLB or not."""
        rest = self.rest if bake is None else bake * MINUTE
        shift = self.shift + (NLB_SHIFTS if is_network else 0.0)
        return replace(self, shift=shift, rest=rest + pause * MINUTE) if self.is_shifting else self

    def seconds(self, plan: Deployment, delay: float) -> float:
        """Return how long a deployment takes, from the start of the first new task until the last old one has gone."""
        if self.is_shifting:
            return plan.start_up + self.shift + self.rest + delay
        first = min((each.serves_from for each in plan.cohorts if each.serves_from >= 0), default=0.0)
        last = max((each.leaves_at for each in plan.leaving), default=0.0)
        return plan.start_up - first + last + delay


# The steps are those that AWS takes by default, from API_LinearConfiguration.html and API_CanaryConfiguration.html in
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/.
STRATEGIES = {
    "rolling": Strategy(is_shifting=False),
    "blue-green": Strategy(),
    "linear": Strategy(shift=9 * 6 * MINUTE),
    "canary": Strategy(shift=10 * MINUTE),
    "express": Strategy(shift=3 * MINUTE, rest=3 * MINUTE),
}
