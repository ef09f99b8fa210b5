# How many tasks drain at once, and how many can take in the clients that they shed?
#
# ECS keeps at least ceil(desired x minimumHealthyPercent / 100) tasks running and at most
# floor(desired x maximumPercent / 100):
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html. As many old tasks as the
# difference of the two are taken out together. At 100/200 these are all of them. Where the difference is 0 the
# deployment cannot begin at all. Blue/green, linear and canary deployments take the whole old fleet out together at
# their end.
#
# New tasks there are at first as many as the maximum allows above the desired count: at 100/200 all of them, at 50/100
# none. The others start when the old ones before them are gone. So while a batch drains,
#
#     healthy = tasks - at once + ahead
#
# take in the clients that it sheds, old tasks among them until the last batch.
"""How ECS replaces the tasks of a service: pure."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

__all__ = ["Deployment", "smallest_percent"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """
    How ECS replaces the tasks of a service.

    Attributes:
        tasks: The desired count.
        min_percent: ``minimumHealthyPercent``.
        max_percent: ``maximumPercent``.
        whole_fleet: Whether all old tasks go together whatever the percentages say.
    """

    tasks: int
    min_percent: int = 100
    max_percent: int = 200
    whole_fleet: bool = False

    @property
    def at_once(self) -> int:
        """How many old tasks may drain at the same time; 0 if the deployment cannot begin."""
        if self.whole_fleet:
            return self.tasks
        least = -(-self.tasks * self.min_percent // 100)
        return max(0, min(self.tasks, self._most - least))

    @property
    def ahead(self) -> int:
        """How many new tasks there are before the first old one is taken out."""
        return self.tasks if self.whole_fleet else max(0, min(self.tasks, self._most - self.tasks))

    @property
    def healthy(self) -> int:
        """How many tasks, old and new, serve while others drain."""
        return self.tasks - self.at_once + self.ahead

    @property
    def batches(self) -> int:
        """How many times tasks are taken out, one after another."""
        return math.ceil(self.tasks / self.at_once) if self.at_once else 0

    @property
    def targets(self) -> int:
        """How many targets are listed at the most, old ones that drain included."""
        return 2 * self.tasks if self.whole_fleet else max(self.tasks, self._most)

    def at(self, at_once: int) -> "Deployment":
        """
        Return the same with percentages at which *at_once* drain at a time, or a few more where percents are coarse.

        Fewer drain with a higher minimum, which leaves more tasks to take in those who are shed; only where there
        would still be too many new ones with a lower maximum. More drain with a higher maximum.
        """
        if at_once > self.at_once:
            return replace(self, max_percent=smallest_percent(self.tasks, self.min_percent, at_once))
        if self.ahead > at_once:
            return replace(self, min_percent=100, max_percent=smallest_percent(self.tasks, 100, at_once))
        return replace(self, min_percent=100 * (self._most - at_once) // self.tasks)

    def changes_to(self, other: "Deployment") -> str:
        """Return which percentages make *other* of this."""
        found = []
        if other.min_percent != self.min_percent:
            found.append(f"minimumHealthyPercent to {other.min_percent}")
        if other.max_percent != self.max_percent:
            found.append(f"maximumPercent to {other.max_percent}")
        return " and ".join(found)

    @property
    def _most(self) -> int:
        return self.tasks * self.max_percent // 100


def smallest_percent(tasks: int, min_percent: int, at_once: int) -> int:
    """Return the smallest ``maximumPercent`` with which *at_once* of *tasks* may drain at the same time."""
    return math.ceil(Fraction(100 * (at_once - (-tasks * min_percent // 100)), tasks))
