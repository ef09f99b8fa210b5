"""Simulates a deployment with the package's own plan in every task, and clients that reconnect."""

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

from starlette_drain._core.deadline import deadline
from starlette_drain._core.fleet_pacing import FleetPacing, FleetView
from starlette_drain._core.pacing import EvenPacing, Pacing, RateCapPacing
from starlette_drain._core.plan import ShedPlan
from starlette_drain._core.session import Session, SessionRegistry
from starlette_drain._core.start_delay import StartDelay, may_be_next, time_to_wait
from starlette_drain.tools.plan.clients import ComeBack
from starlette_drain.tools.plan.sums import Fleet

__all__ = ["Course", "rehearse"]

MOST = 60_000
"""The most sessions that are simulated; if there are more, each stands for several."""

ENOUGH = 400
"""The approximate number of simulated sessions per interval of the curves: with fewer, chance would hide the load."""

BACKLOG = 10
"""The number of attempts at once that even a slow service lets wait; the backlog of a socket is longer."""


@dataclass(frozen=True, slots=True)
class Course:
    """
    The course of a deployment.

    Attributes:
        stretch: Seconds of an interval of the curves.
        closes: The sessions asked to leave, per second.
        arrivals: The attempts to reconnect, per second, including refused ones.
        peak_closes: The highest of `closes`.
        peak_arrivals: The highest of `arrivals`.
        refused: The attempts that were refused because the service was busy, or no task was healthy.
        gave_up: The sessions whose client gave up after refused attempts.
        shed_twice: The sessions asked to leave more than once, because they reconnected to an old task.
        at_deadline: The sessions asked to leave at the moment of the deadline.
        seconds: Seconds until the last client is back.
        away: Seconds that a client was away, on average.
        away_longest: The most seconds that a client was away.
        stands_for: The most sessions that a simulated one stands for.
    """

    stretch: int
    closes: tuple[float, ...]
    arrivals: tuple[float, ...]
    peak_closes: float
    peak_arrivals: float
    refused: int
    gave_up: int
    shed_twice: int
    at_deadline: int
    seconds: float
    away: float
    away_longest: float
    stands_for: int


@dataclass(slots=True, eq=False)
class _Task:
    registry: SessionRegistry
    plan: ShedPlan | None = None


class _Client(Session):
    __slots__ = ("left_at", "own", "times", "weight")

    def __init__(self, own: float, weight: int) -> None:
        super().__init__("/", 0.0)
        self.own = own
        self.weight = weight
        """The number of sessions that it stands for."""
        self.times = 0
        self.left_at = 0.0


class _FleetShare:
    """Fleet pacing with the current number of draining tasks, which the real one gets from polls."""

    interval = 0.0

    def __init__(self, stage: "_Stage", limit: float) -> None:
        self._stage = stage
        self._limit = limit

    def rate(self, remaining: float, time_left: float) -> float:
        return self._now().rate(remaining, time_left)

    def describe(self, remaining: float, time_left: float) -> str:
        return self._now().describe(remaining, time_left)

    def _now(self) -> FleetPacing:
        view = FleetView(self._stage.draining, len(self._stage.serving))
        return FleetPacing(self._limit, view.draining, view.healthy, view.to_follow)


def rehearse(
    fleet: Fleet,
    come_back: ComeBack,
    *,
    pacing: Pacing | None = None,
    accepts: float | None = None,
    seed: int = 7,
    drains: bool = True,
) -> Course:
    """
    Simulate the deployment.

    Args:
        fleet: A service whose deployment can begin.
        come_back: The client model.
        pacing: As the option; even by default.
        accepts: Attempts per second that the service accepts, while `BACKLOG` may wait; ``None`` if unlimited.
        seed: The seed of the random numbers.
        drains: Whether the tasks drain; if not, all sessions of a task are cut at the end of its delay.
    """
    return _Stage(
        fleet,
        come_back,
        pacing=pacing or EvenPacing(),
        accepts=accepts,
        rng=Random(seed),
        drains=drains,
    ).play()


class _Stage:
    def __init__(
        self,
        fleet: Fleet,
        come_back: ComeBack,
        *,
        pacing: Pacing,
        accepts: float | None,
        rng: Random,
        drains: bool,
    ) -> None:
        self.fleet, self.come_back, self.rng, self.drains = fleet, come_back, rng, drains
        tasks = fleet.deployment.tasks
        self.stands_for = max(1, math.ceil(tasks * fleet.sessions / MOST))
        self.pacing = self._scaled(pacing)
        self.accepts = accepts
        self.serving: list[_Task] = []
        self.places: dict[_Task, int] = {}
        """The index of each task in `serving`."""
        self.draining = 0
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = count()
        self.closes: Counter[int] = Counter()
        self.arrivals: Counter[int] = Counter()
        self.refused = self.gave_up = self.shed_twice = self.at_deadline = 0
        self.back_at = self.away = self.away_longest = 0.0
        self.came_back = 0
        self.room, self.filled_at = max(self.accepts or 0.0, BACKLOG), 0.0

    def play(self) -> Course:
        """Run all events."""
        for cohort in sorted(self.fleet.deployment.cohorts, key=lambda each: each.serves_from):
            tasks = [_Task(SessionRegistry()) for _ in range(cohort.tasks)]
            if cohort.serves_from < 0:
                self._serve(tasks)
                for task in tasks:
                    self._seat(task)
            else:
                self._at(cohort.serves_from, lambda _, tasks=tasks: self._serve(tasks))  # type: ignore[misc]
            if cohort.leaves_at < math.inf:
                for task in tasks:
                    self._at(cohort.leaves_at, lambda now, task=task: self._deregister(task, now))  # type: ignore[misc]
        while self.events:
            now, _, event = heapq.heappop(self.events)
            event(now)
        return self._course()

    def _seat(self, task: _Task) -> None:
        """Add a task's sessions: a few clients that together stand for exactly the wanted number."""
        seats = math.ceil(self.fleet.sessions / self.stands_for)
        for number in range(seats):
            weight = (number + 1) * self.fleet.sessions // seats - number * self.fleet.sessions // seats
            task.registry.add(_Client(self.rng.random(), weight))

    def _serve(self, tasks: list[_Task]) -> None:
        for task in tasks:
            self.places[task] = len(self.serving)
            self.serving.append(task)

    def _at(self, moment: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), event))

    def _deregister(self, task: _Task, now: float) -> None:
        place, last = self.places.pop(task), self.serving.pop()
        if last is not task:
            self.serving[place], self.places[last] = last, place
        self.draining += 1
        self._at(now + self.fleet.delay, self._end)
        if not self.drains:
            self._at(now + self.fleet.delay, lambda at: self._cut(task, at))
            return
        lag = self.fleet.lag
        noticed = now + self.rng.uniform(0.0, lag)
        self._at(noticed, lambda at: self._begin(task, at, at - lag))

    def _end(self, _: float) -> None:
        self.draining -= 1

    def _cut(self, task: _Task, now: float) -> None:
        while (client := task.registry.pick(self.rng, even_held=True)) is not None:
            task.registry.discard(client)
            self._shed(client, now)

    def _begin(self, task: _Task, now: float, clear: float) -> None:
        fleet = self.fleet
        ends = deadline(now, clear, fleet.delay, fleet.margin, fleet.window)
        pacing, healthy = self.pacing, len(self.serving)
        if fleet.start_delay and may_be_next(self.draining, healthy):
            wait = time_to_wait(fleet.start_delay, ends - now, 0.0)
            pacing = StartDelay(pacing, ends - now - wait, healthy)
        task.plan = ShedPlan(task.registry, pacing, self.rng, now=now, deadline=ends)
        self._tick(task, now)

    def _tick(self, task: _Task, now: float) -> None:
        if (plan := task.plan) is None:
            return
        for session in plan.due(now, 100):
            task.registry.discard(session)
            if now >= plan.deadline:
                self.at_deadline += self._shed(session, now)
            else:
                self._shed(session, now)
        if plan.ask_at is not None:
            self._at(max(now, plan.ask_at), lambda at: self._tick(task, at))

    def _shed(self, client: Session, now: float) -> int:
        """Close a client's connection; return the number of sessions that it stands for."""
        assert isinstance(client, _Client)  # noqa: S101 - for the type checker: no other is seated
        self.closes[int(now)] += client.weight
        client.times += 1
        client.left_at = now
        self.shed_twice += client.weight * (client.times == 2)
        self._come(client, 0, now)
        return client.weight

    def _come(self, client: _Client, attempt: int, now: float) -> None:
        moment = now + self.come_back(attempt, client.own, self.rng)
        if math.isinf(moment):
            self.gave_up += client.weight
            return
        self._at(moment, lambda at: self._arrive(client, attempt, at))

    def _arrive(self, client: _Client, attempt: int, now: float) -> None:
        self.arrivals[int(now)] += client.weight
        if not self.serving or not self._takes_in(client.weight, now):
            self.refused += client.weight
            self._come(client, attempt + 1, now)
            return
        away = now - client.left_at
        self.back_at = now
        self.came_back += client.weight
        self.away += away * client.weight
        self.away_longest = max(self.away_longest, away)
        self.rng.choice(self.serving).registry.add(client)

    def _takes_in(self, weight: int, now: float) -> bool:
        if self.accepts is None:
            return True
        # A client that stands for several sessions needs the room of several, so there must be room for at least one.
        most = max(self.accepts, self.stands_for, BACKLOG)
        self.room = min(most, self.room + (now - self.filled_at) * self.accepts)
        self.filled_at = now
        if self.room < weight:
            return False
        self.room -= weight
        return True

    def _scaled(self, pacing: Pacing) -> Pacing:
        """Return *pacing* for clients that each stand for several sessions."""
        if isinstance(pacing, FleetPacing):
            return _FleetShare(self, pacing.limit / self.stands_for)
        if isinstance(pacing, RateCapPacing):
            return RateCapPacing(pacing.limit / self.stands_for)
        return pacing

    def _course(self) -> Course:
        stretch = 1
        if self.stands_for > 1 and self.closes:
            busy = sum(self.closes.values()) / self.stands_for / len(self.closes)
            stretch = max(1, min(math.ceil(ENOUGH / busy), int(max(10.0, self.fleet.fits / 10))))
        closes, arrivals = self._curve(self.closes, stretch), self._curve(self.arrivals, stretch)
        return Course(
            stretch=stretch,
            closes=closes,
            arrivals=arrivals,
            peak_closes=max(closes, default=0.0),
            peak_arrivals=max(arrivals, default=0.0),
            refused=self.refused,
            gave_up=self.gave_up,
            shed_twice=self.shed_twice,
            at_deadline=self.at_deadline,
            seconds=self.back_at,
            away=self.away / self.came_back if self.came_back else 0.0,
            away_longest=self.away_longest,
            stands_for=self.stands_for,
        )

    def _curve(self, counts: Counter[int], stretch: int) -> tuple[float, ...]:
        last = max([*self.closes, *self.arrivals], default=-1)
        return tuple(
            sum(counts[second] for second in range(begin, begin + stretch)) / stretch
            for begin in range(0, last + 1, stretch)
        )
