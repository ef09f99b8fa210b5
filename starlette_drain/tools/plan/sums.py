"""The sums behind a deployment: exact, and pure."""

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
"""Seconds between two looks at the service's deployments, at least: see aws/sources/service_deployment.py."""

EVENT_LAG = 5.0
"""Seconds until an event is here: EventBridge promises no time, and nearly always takes less."""

TOLERANCE = 1e-9
"""Part by which two sums of the same numbers may differ."""

WORTH = 0.9
"""Part of a delay below which a shorter one is worth other percentages."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """
    A service, and what a deployment makes of its sessions.

    Attributes:
        deployment: How its tasks are replaced.
        sessions: On each task.
        delay: Seconds that a task has to leave, such as the deregistration delay.
        margin: As the option.
        poll_interval: As the option.
        poll_share: As the option.
        groups: Target groups that each task polls.
        window: As the option.
        noticed: Seconds after which it is known that the time has begun, where it is not the polls of the target's
            health that tell.
        allowance: What gives the time, which is the deregistration delay as a rule.
        start_delay: As the option.
        stands_in: Whether tasks ask ECS where they may ask about the target's health but seldom.
        start_ups: Seconds from the start of a task until it is healthy, where that is not known: the worst of them
            decides. None where it is the deployment's own.
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
        """Seconds after which a deregistration is noticed, at the latest."""
        return self.poll_lag if self.noticed is None else self.noticed

    @property
    def poll_lag(self) -> float:
        """Seconds between two looks while a deployment goes on: at the target's health, or at ECS's record."""
        if not self.stands_in:
            return self.health_lag
        return min(self.health_lag, stand_in_interval(self.delay, self.deployment.listed(self.delay), self.poll_share))

    @property
    def health_lag(self) -> float:
        """Seconds between two looks at the target's health."""
        targets = self.deployment.listed(self.delay)
        return fleet_interval(self.poll_interval, targets, self.groups, self.poll_share)

    @property
    def room(self) -> float:
        """Seconds over which the sheds could spread if no window were set."""
        return fitting_window(self.delay, self.lag, self.margin)

    @property
    def fits(self) -> float:
        """Seconds over which the sheds may spread."""
        fits = self.room if self.window is None else min(self.room, self.window)
        # Where other old tasks are to follow, a task waits for them: see _core/start_delay.py.
        wait = self.start_delay if self.deployment.batches > 1 else 0.0
        return fits - time_to_wait(wait, fits, 0.0)

    @property
    def busy(self) -> float:
        """Seconds from the deregistration of a task until it has asked its last session, at the latest."""
        return self.lag + (self.room if self.window is None else min(self.room, self.window))

    @property
    def draining(self) -> int:
        """How many tasks drain at the same time, at most."""
        return self.deployment.draining(self.busy)

    @property
    def heaviest(self) -> float:
        """Sessions of the tasks that are taken out in one moment, where those are most."""
        return self._flow(max(1.0, self.fits)).heaviest

    @property
    def rate(self) -> float:
        """Reconnects per second over the whole fleet, at an even pace; infinite where there is no time."""
        if not self.sessions:
            return 0.0
        if self.start_ups:
            return self.worst.rate
        return self._flow(self.fits).rate if self.fits > 0 else math.inf

    @property
    def worst(self) -> "Fleet":
        """The same with the start-up of all that may be at which most come back."""
        if not self.start_ups:
            return self
        known = (replace(self, deployment=starting_in(self.deployment, each), start_ups=()) for each in self.start_ups)
        # Where it makes no difference, the usual one.
        return max(known, key=lambda each: (round(each.rate, 6), -abs(each.deployment.start_up - START_UP)))

    def followed(self, part: float) -> "Fleet":
        """Return the same with a next deployment, which begins when that *part* of the time to leave is over."""
        return replace(self, deployment=replace(self.deployment, next_after=part * max(0.0, self.fits)))

    def delay_for(self, rate: float, followed: float | None = None) -> int | None:
        """
        Return the delay, in whole seconds (or steps of its setting), with which no more than *rate* come back.

        ``None`` where no delay will do.

        Args:
            rate: Per second.
            followed: When the next deployment begins, if one does; see `followed`.
        """
        step = self.allowance.step

        def is_enough(steps: int) -> bool:
            longer = replace(self, delay=steps * step, window=None)
            return (longer if followed is None else longer.followed(followed)).rate <= rate * (1 + TOLERANCE)

        found = _smallest(is_enough, math.floor(self.allowance.longest / step))
        return None if found is None else int(found * step)

    def at(self, at_once: int) -> "Fleet":
        """Return the same service with percentages at which *at_once* are taken out at a time."""
        return replace(self, deployment=self.deployment.at(at_once))

    def remedies(self, rate: float) -> list[str]:
        """Return what to set so that no more than *rate* come back a second: any one of them will do."""
        return [text for text, _ in self.cures(rate)]

    def cures(self, rate: float) -> list[tuple[str, "Fleet"]]:
        """Return each remedy, and the service with it."""
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
        """Return the same with time enough; ``None`` where there is no such time."""
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
        """Return the same with fewer tasks taken out at a time, where that does what more time alone does not."""
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
        """Return into how many services the tasks must be split where no time is long enough, and one of these."""
        step = self.allowance.step
        longest = replace(self, delay=math.floor(self.allowance.longest / step) * step, window=None)
        total = self.deployment.tasks * self.sessions

        def part(services: int) -> Fleet:
            tasks = -(-self.deployment.tasks // services)
            fewer = replace(self.deployment, tasks=tasks)
            sessions = -(-total // (services * tasks))
            return replace(longest, deployment=fewer if fewer.can_begin else fewer.at(1), sessions=sessions)

        services = _smallest(lambda number: part(number).rate <= rate * (1 + TOLERANCE), max(2, total)) or total
        found = part(services)
        words = [self.deployment.changes_to(found.deployment), longest.allowance.setting_to(longest.delay)]
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
    """Return a number up to *most* that is enough while the one before it is not; ``None`` where *most* is not."""
    if most < 1 or not is_enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
