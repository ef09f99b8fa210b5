"""Computes times, rates and remedies of a deployment, without simulation. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from starlette_drain._core.deadline import fitting_window
from starlette_drain._core.start_delay import time_to_wait
from starlette_drain.aws.api.budget import fleet_interval, stand_in_interval
from starlette_drain.tools.plan.allowance import DELAY, Allowance
from starlette_drain.tools.plan.deployment import START_UP, Deployment, starting_in
from starlette_drain.tools.plan.flow import Flow, flow

__all__ = ["DEPLOYMENT_LAG", "EVENT_LAG", "Fleet"]

DEPLOYMENT_LAG = 15.0
"""The least seconds between two polls of the service's deployments: see aws/sources/service_deployment.py."""

EVENT_LAG = 5.0
"""Seconds until an event arrives: EventBridge guarantees no time, and nearly always takes less."""

TOLERANCE = 1e-9
"""The relative difference of two sums of the same numbers."""

WORTH = 0.9
"""The fraction of a delay below which a shorter one justifies other percentages."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """
    A service and the times and rates of its deployment.

    Attributes:
        deployment: How its tasks are replaced.
        sessions: The sessions per task.
        delay: Seconds that a task has to leave, for example the deregistration delay.
        margin: As the option.
        poll_interval: As the option.
        poll_share: As the option.
        groups: The number of target groups that each task polls.
        window: As the option.
        noticed: Seconds until a task notices that the time has begun; ``None`` if it polls target health.
        allowance: The setting of `delay`.
        start_delay: As the option.
        stands_in: Whether tasks also ask ECS if their polls of target health are rare.
        start_ups: The start-up times to consider if the real one is unknown: the worst decides. If empty, that of
            `deployment` applies.
    """

    deployment: Deployment
    sessions: int
    delay: float = 300.0
    margin: float = 15.0
    poll_interval: float = 5.0
    poll_share: float = 0.2
    groups: int = 1
    window: float | None = None
    noticed: float | None = None
    allowance: Allowance = DELAY
    start_delay: float = 0.0
    stands_in: bool = False
    start_ups: tuple[float, ...] = ()

    @property
    def lag(self) -> float:
        """The most seconds until a deregistration is noticed."""
        return self.poll_lag if self.noticed is None else self.noticed

    @property
    def poll_lag(self) -> float:
        """Seconds between two polls during a deployment, of target health or of the ECS record."""
        if not self.stands_in:
            return self.health_lag
        return min(self.health_lag, stand_in_interval(self.delay, self.deployment.listed(self.delay), self.poll_share))

    @property
    def health_lag(self) -> float:
        """Seconds between two polls of target health."""
        targets = self.deployment.listed(self.delay)
        return fleet_interval(self.poll_interval, targets, self.groups, self.poll_share)

    @property
    def room(self) -> float:
        """Seconds over which the sheds can spread without a window."""
        return fitting_window(self.delay, self.lag, self.margin)

    @property
    def fits(self) -> float:
        """Seconds over which the sheds spread."""
        fits = self.room if self.window is None else min(self.room, self.window)
        # If other old tasks are to follow, a task waits for them: see _core/start_delay.py.
        wait = self.start_delay if self.deployment.batches > 1 else 0.0
        return fits - time_to_wait(wait, fits, 0.0)

    @property
    def busy(self) -> float:
        """The most seconds from the deregistration of a task until it has asked its last session."""
        return self.lag + (self.room if self.window is None else min(self.room, self.window))

    @property
    def draining(self) -> int:
        """The most tasks that drain at the same time."""
        return self.deployment.draining(self.busy)

    @property
    def heaviest(self) -> float:
        """The most sessions of tasks that are deregistered at one moment."""
        return self._flow(max(1.0, self.fits)).heaviest

    @property
    def rate(self) -> float:
        """Reconnects per second over the whole fleet, at an even pace; infinite if no time is left."""
        if not self.sessions:
            return 0.0
        if self.start_ups:
            return self.worst.rate
        return self._flow(self.fits).rate if self.fits > 0 else math.inf

    @property
    def worst(self) -> "Fleet":
        """A copy with the start-up time that gives the highest rate."""
        if not self.start_ups:
            return self
        known = (replace(self, deployment=starting_in(self.deployment, each), start_ups=()) for each in self.start_ups)
        # If it makes no difference, the usual one.
        return max(known, key=lambda each: (round(each.rate, 6), -abs(each.deployment.start_up - START_UP)))

    def followed(self, part: float) -> "Fleet":
        """Return a copy with a next deployment, which begins after this *part* of the time to leave."""
        return replace(self, deployment=replace(self.deployment, next_after=part * max(0.0, self.fits)))

    def delay_for(self, rate: float, followed: float | None = None) -> int | None:
        """
        Return the shortest delay with at most *rate* reconnects, in whole steps of its setting; ``None`` if none does.

        Args:
            rate: Reconnects per second.
            followed: When the next deployment begins, if there is one; see `followed`.
        """
        step = self.allowance.step

        def is_enough(steps: int) -> bool:
            longer = replace(self, delay=steps * step, window=None)
            return (longer if followed is None else longer.followed(followed)).rate <= rate * (1 + TOLERANCE)

        found = _smallest(is_enough, math.floor(self.allowance.longest / step))
        return None if found is None else int(found * step)

    def at(self, at_once: int) -> "Fleet":
        """Return a copy with percentages at which *at_once* tasks are deregistered at a time."""
        return replace(self, deployment=self.deployment.at(at_once))

    def remedies(self, rate: float) -> list[str]:
        """Return alternative settings with at most *rate* reconnects per second."""
        return [text for text, _ in self.cures(rate)]

    def cures(self, rate: float) -> list[tuple[str, "Fleet"]]:
        """Return the remedies, each with the service after it."""
        found = []
        plain = self._with_time(rate)
        if plain is not None:
            found.append((f"set {self._time_set(plain)}", plain))
        slower = self._slower(rate, plain)
        if slower is not None:
            words = [self._percentages(slower)]
            if time := self._time_set(slower):
                words.append(time)
            found.append((f"set {', and '.join(words)}", slower))
        return found or [self._split(rate)]

    def _flow(self, fits: float) -> Flow:
        return flow(self.deployment.cohorts, self.sessions, fits, max(fits, self.busy))

    def _with_time(self, rate: float) -> "Fleet | None":
        """Return a copy with enough time; ``None`` if no time is enough."""
        timely = replace(self, window=None)
        if timely.rate > rate * (1 + TOLERANCE):
            delay = timely.delay_for(rate)
            if delay is None:
                return None
            timely = replace(timely, delay=float(delay))
        if self.window is None:
            return timely
        kept = replace(timely, window=self.window)
        if kept.rate <= rate * (1 + TOLERANCE):
            return kept
        window = _smallest(
            lambda seconds: replace(timely, window=float(seconds)).rate <= rate * (1 + TOLERANCE), int(timely.room) + 1
        )
        return None if window is None else replace(timely, window=float(window))

    def _slower(self, rate: float, plain: "Fleet | None") -> "Fleet | None":
        """Return a copy with fewer tasks deregistered at a time, if that achieves what more time alone does not."""
        most = self.deployment.at_once
        if self.deployment.whole_fleet or most < 2:
            return None
        tried: dict[int, Fleet] = {}
        for each in sorted({max(1, round(most / 1.5**power)) for power in range(1, 25)}, reverse=True):
            slower = self.at(each)
            if slower.deployment.at_once < most:
                tried.setdefault(slower.deployment.at_once, slower)
        fitting = [each for each in tried.values() if each.rate <= rate * (1 + TOLERANCE)]
        if fitting:
            return fitting[0]
        timed = [each for each in (slower._with_time(rate) for slower in tried.values()) if each is not None]
        best = min(timed, key=lambda each: each.delay, default=None)
        return best if best is not None and (plain is None or best.delay < WORTH * plain.delay) else None

    def _split(self, rate: float) -> "tuple[str, Fleet]":
        """Return the remedy that splits the tasks into several services, and one of these services."""
        step = self.allowance.step
        longest = replace(self, delay=math.floor(self.allowance.longest / step) * step, window=None)
        if self.window is not None:
            longest = replace(longest, window=float(math.floor(longest.room)))
        total = self.deployment.tasks * self.sessions

        def part(services: int) -> Fleet:
            tasks = -(-self.deployment.tasks // services)
            fewer = replace(self.deployment, tasks=tasks)
            sessions = -(-total // (services * tasks))
            return replace(longest, deployment=fewer if fewer.can_begin else fewer.at(1), sessions=sessions)

        services = _smallest(lambda number: part(number).rate <= rate * (1 + TOLERANCE), max(2, total)) or total
        found = part(services)
        words = [self.deployment.changes_to(found.deployment), longest.allowance.setting_to(longest.delay)]
        if longest.window is not None:
            words.append(f"the window to {longest.window:,.0f} s")
        split = f"split the service into {services:,} that are deployed one after the other"
        return f"set {' and '.join(filter(None, words))}, and {split}", found

    def _time_set(self, timely: "Fleet") -> str:
        found = []
        if timely.delay != self.delay:
            found.append(self.allowance.setting_to(timely.delay))
        if timely.window is not None and timely.window != self.window:
            found.append(f"the window to {timely.window:,.0f} s")
        return " and ".join(found)

    def _percentages(self, slower: "Fleet") -> str:
        then = slower.deployment
        what = "one task is" if then.at_once == 1 else f"{then.at_once} tasks are"
        when = "at a time" if self.start_ups else f"every {then.start_up:g} s"
        return f"{self.deployment.changes_to(then)} so that {what} taken out {when}"


def _smallest(is_enough: Callable[[int], bool], most: int) -> int | None:
    """Return a number up to *most* that is enough while its predecessor is not; ``None`` if *most* is not enough."""
    if most < 1 or not is_enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
