# How many sessions are asked to leave in a second, all tasks together?
#
# A task that is taken out with n sessions sheds n / fits a second, evenly. It notices up to a lag late, so it may do so
# at any time between its deregistration and the end of its delay less the margin: `fits` seconds out of `busy`.
#
# Those who are shed come back to whatever serves then, old tasks that are to go later among them, which have the more
# to shed. They spread evenly, so every task that serves gets the same share of each second's sheds: one running sum of
# shares tells the sessions of every task. Sessions that come back while no task serves wait for the first one.
#
# The peak is an upper bound: each task is counted for all of its busy time, and takes its sessions in as if those
# before had begun at once.
"""The sheds of a fleet as a flow: pure."""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from starlette_drain.testing.fake_aws.scheduler import Cohort

__all__ = ["Flow", "flow"]


@dataclass(frozen=True, slots=True)
class Flow:
    """
    What a deployment makes of the sessions.

    Attributes:
        rate: Sheds per second over the fleet, in the busiest moment.
        heaviest: Sessions of the tasks that leave in one moment, where those are most.
    """

    rate: float
    heaviest: float


def flow(cohorts: Iterable[Cohort], sessions: int, fits: float, busy: float) -> Flow:
    """
    Return the flow of the sheds.

    Args:
        cohorts: The tasks.
        sessions: On each task at the beginning.
        fits: Seconds over which a task sheds, more than 0.
        busy: Seconds from its deregistration until it has shed, at the latest.
    """
    course = _Course(sessions, fits, busy)
    for each in cohorts:
        course.put(max(0.0, each.serves_from), _SERVES, each)
        if each.leaves_at < math.inf:
            course.put(each.leaves_at, _LEAVES, each)
    return course.run()


_EBBS, _ENDS, _SERVES, _LEAVES = range(4)
"""What happens at a moment, in this order."""


class _Course:
    def __init__(self, sessions: int, fits: float, busy: float) -> None:
        self.sessions, self.fits, self.busy = sessions, fits, busy
        self.events: list[tuple[float, int, int, Cohort, float]] = []
        self.order = count()
        self.tasks = 0
        self.share = 0.0
        """Sessions that came to each task which has served all the time."""
        self.homeless = 0.0
        self.shedding = self.counted = 0.0
        self.base: dict[int, float] = {}

    def put(self, at: float, kind: int, cohort: Cohort, rate: float = 0.0) -> None:
        heapq.heappush(self.events, (at, kind, next(self.order), cohort, rate))

    def run(self) -> Flow:
        now = highest = heaviest = 0.0
        leaving: dict[float, float] = {}
        while self.events:
            at, kind, _, cohort, rate = heapq.heappop(self.events)
            self._come_back((at - now) * self.shedding)
            now = at
            match kind:
                case 0:
                    self.shedding = max(0.0, self.shedding - rate)
                case 1:
                    self.counted -= rate
                case 2:
                    self.tasks += cohort.tasks
                    at_first = self.sessions if cohort.serves_from < 0 else 0
                    self.base[id(cohort)] = at_first - self.share
                    self._come_back(0.0)
                case _:
                    self.tasks -= cohort.tasks
                    held = cohort.tasks * (self.base[id(cohort)] + self.share)
                    self.shedding += held / self.fits
                    self.counted += held / self.fits
                    self.put(now + self.fits, _EBBS, cohort, held / self.fits)
                    self.put(now + self.busy, _ENDS, cohort, held / self.fits)
                    leaving[now] = leaving.get(now, 0.0) + held
                    highest, heaviest = max(highest, self.counted), max(heaviest, leaving[now])
        return Flow(highest, heaviest)

    def _come_back(self, sessions: float) -> None:
        self.homeless += sessions
        if self.tasks:
            self.share += self.homeless / self.tasks
            self.homeless = 0.0
