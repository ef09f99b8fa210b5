# How many sessions are asked to leave per second, over all tasks?
#
# A task that is deregistered with n sessions sheds n / fits per second, evenly. It notices the deregistration up to a
# lag late, so it sheds at some time between the deregistration and the end of its delay less the margin: for `fits`
# seconds out of `busy`.
#
# These clients reconnect to the tasks that serve then, including old tasks that leave later, which then have more to
# shed. They spread evenly, so each serving task gets the same share of each second's sheds, and one running sum of
# shares gives the sessions of every task. Clients that reconnect while no task serves wait for the first one.
#
# The peak is an upper bound: each task counts for its whole busy time, and gets its sessions as if earlier tasks had
# begun to shed at once.
"""Computes the rate of sheds over a fleet. Pure."""

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
    The sheds of a deployment.

    Attributes:
        rate: The highest rate of sheds over the fleet, per second.
        heaviest: The most sessions of tasks that leave at one moment.
    """

    rate: float
    heaviest: float


def flow(cohorts: Iterable[Cohort], sessions: int, fits: float, busy: float) -> Flow:
    """
    Return the sheds of a deployment.

    Args:
        cohorts: The tasks.
        sessions: The sessions per task at the beginning.
        fits: Seconds over which a task sheds, more than 0.
        busy: The most seconds from its deregistration until it has shed all its sessions.
    """
    course = _Course(sessions, fits, busy)
    for each in cohorts:
        course.put(max(0.0, each.serves_from), _SERVES, each)
        if each.leaves_at < math.inf:
            course.put(each.leaves_at, _LEAVES, each)
    return course.run()


_EBBS, _ENDS, _SERVES, _LEAVES = range(4)
"""The kinds of events, in the order in which they happen at one moment."""


class _Course:
    def __init__(self, sessions: int, fits: float, busy: float) -> None:
        self.sessions, self.fits, self.busy = sessions, fits, busy
        self.events: list[tuple[float, int, int, Cohort, float]] = []
        self.order = count()
        self.tasks = 0
        self.share = 0.0
        """The sessions that have come to a task that served all the time."""
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
