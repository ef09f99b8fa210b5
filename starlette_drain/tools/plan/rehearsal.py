"""A whole deployment in virtual time: the package's own plan in every task, and clients that come back."""

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

from starlette_drain._core.deadline import deadline
from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain._core.pacing import EvenPacing, Pacing, RateCapPacing
from starlette_drain._core.plan import ShedPlan
from starlette_drain._core.session import Session, SessionRegistry
from starlette_drain.tools.plan.clients import ComeBack
from starlette_drain.tools.plan.sums import Fleet

__all__ = ["Course", "rehearse"]

MOST = 60_000
"""Sessions that are played; where there are more, each stands for several."""

ENOUGH = 400
"""Sessions played in one stretch of the curves, about: fewer would show more chance than load."""


@dataclass(frozen=True, slots=True)
class Course:
    """
    What happened.

    Attributes:
        stretch: Seconds of one entry of the curves.
        closes: Sessions asked to leave, per second.
        arrivals: Attempts to come back, per second, refused ones included.
        peak_closes: The highest of `closes`.
        peak_arrivals: The highest of `arrivals`.
        refused: Attempts that met a service which took no more in that moment, or of which no task was healthy.
        shed_twice: Sessions asked to leave more than once, because they had come back to an old task.
        at_deadline: Sessions asked to leave in the instant of the deadline.
        seconds: Until the last one is back.
        stands_for: How many sessions each one played stands for.
    """

    stretch: int
    closes: tuple[float, ...]
    arrivals: tuple[float, ...]
    peak_closes: float
    peak_arrivals: float
    refused: int
    shed_twice: int
    at_deadline: int
    seconds: float
    stands_for: int


@dataclass(slots=True, eq=False)
class _Task:
    registry: SessionRegistry
    plan: ShedPlan | None = None


class _Client(Session):
    __slots__ = ("own", "times")

    def __init__(self, own: float) -> None:
        super().__init__("/", 0.0)
        self.own = own
        self.times = 0


def rehearse(
    fleet: Fleet,
    come_back: ComeBack,
    *,
    pacing: Pacing | None = None,
    accepts: float | None = None,
    seed: int = 7,
) -> Course:
    """
    Play the deployment.

    Args:
        fleet: Which has at least one task that may drain.
        come_back: How clients do.
        pacing: As the option; evenly by default.
        accepts: Attempts per second that the service takes in; ``None`` for any number.
        seed: Of the randomness.
    """
    return _Stage(
        fleet,
        come_back,
        pacing=pacing or EvenPacing(),
        accepts=accepts,
        rng=Random(seed),
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
    ) -> None:
        self.fleet, self.come_back, self.rng = fleet, come_back, rng
        plan = fleet.deployment
        self.stands_for = max(1, math.ceil(plan.tasks * fleet.sessions / MOST))
        self.pacing = self._scaled(pacing)
        self.accepts = None if accepts is None else accepts / self.stands_for
        seats = max(1, round(fleet.sessions / self.stands_for)) if fleet.sessions else 0
        self.old = [_Task(SessionRegistry()) for _ in range(plan.tasks)]
        for task in self.old:
            for _ in range(seats):
                task.registry.add(_Client(rng.random()))
        self.new = plan.ahead
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = count()
        self.closes: Counter[int] = Counter()
        self.arrivals: Counter[int] = Counter()
        self.refused = self.shed_twice = self.at_deadline = 0
        self.back_at = 0.0
        self.room, self.filled_at = self.accepts or 0.0, 0.0

    def play(self) -> Course:
        """Let it all happen."""
        plan, sequence = self.fleet.deployment, list(self.old)
        for batch in range(plan.batches):
            leaving = sequence[batch * plan.at_once : (batch + 1) * plan.at_once]
            for task in leaving:
                self._at(batch * self.fleet.delay, lambda now, task=task: self._deregister(task, now))  # type: ignore[misc]
            # Before the next batch, which is put down after this: in one moment the order is that of putting down.
            self._at((batch + 1) * self.fleet.delay, lambda _, leaving=leaving: self._replace(len(leaving)))  # type: ignore[misc]
        while self.events:
            now, _, event = heapq.heappop(self.events)
            event(now)
        return self._course()

    def _at(self, moment: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), event))

    def _deregister(self, task: _Task, now: float) -> None:
        self.old.remove(task)
        lag = self.fleet.lag
        noticed = now + self.rng.uniform(0.0, lag)
        self._at(noticed, lambda at: self._begin(task, at, at - lag))

    def _replace(self, gone: int) -> None:
        """Start new tasks in the place of those that are gone."""
        self.new = min(self.fleet.deployment.tasks, self.new + gone)

    def _begin(self, task: _Task, now: float, clear: float) -> None:
        ends = deadline(now, clear, self.fleet.delay, self.fleet.margin)
        if self.fleet.window is not None:
            ends = min(ends, now + self.fleet.window)
        task.plan = ShedPlan(task.registry, self.pacing, self.rng, now=now, deadline=ends)
        self._tick(task, now)

    def _tick(self, task: _Task, now: float) -> None:
        if (plan := task.plan) is None:
            return
        for session in plan.due(now, 100):
            task.registry.discard(session)
            self._shed(session, now)
            self.at_deadline += now >= plan.deadline
        if plan.ask_at is not None:
            self._at(max(now, plan.ask_at), lambda at: self._tick(task, at))

    def _shed(self, client: Session, now: float) -> None:
        assert isinstance(client, _Client)  # noqa: S101 - for the type checker: no other is seated
        self.closes[int(now)] += 1
        client.times += 1
        self.shed_twice += client.times == 2
        self._come(client, 0, now)

    def _come(self, client: _Client, attempt: int, now: float) -> None:
        moment = now + self.come_back(attempt, client.own, self.rng)
        self._at(moment, lambda at: self._arrive(client, attempt, at))

    def _arrive(self, client: _Client, attempt: int, now: float) -> None:
        self.arrivals[int(now)] += 1
        if not (self.old or self.new) or not self._takes_in(now):
            self.refused += 1
            self._come(client, attempt + 1, now)
            return
        self.back_at = now
        if self.rng.random() * (len(self.old) + self.new) < len(self.old):
            self.rng.choice(self.old).registry.add(client)

    def _takes_in(self, now: float) -> bool:
        if self.accepts is None:
            return True
        self.room = min(max(1.0, self.accepts), self.room + (now - self.filled_at) * self.accepts)
        self.filled_at = now
        if self.room < 1.0:
            return False
        self.room -= 1.0
        return True

    def _scaled(self, pacing: Pacing) -> Pacing:
        """Return the pace for a crowd in which each stands for several."""
        if isinstance(pacing, FleetPacing):
            return FleetPacing(pacing.limit / self.stands_for, self.fleet.deployment.at_once)
        if isinstance(pacing, RateCapPacing):
            return RateCapPacing(pacing.limit / self.stands_for)
        return pacing

    def _course(self) -> Course:
        stretch = 1
        if self.stands_for > 1 and self.closes:
            busy = sum(self.closes.values()) / len(self.closes)
            stretch = max(1, min(math.ceil(ENOUGH / busy), int(max(10.0, self.fleet.fits / 10))))
        closes, arrivals = self._curve(self.closes, stretch), self._curve(self.arrivals, stretch)
        scale = self.stands_for
        return Course(
            stretch=stretch,
            closes=closes,
            arrivals=arrivals,
            peak_closes=max(closes, default=0.0),
            peak_arrivals=max(arrivals, default=0.0),
            refused=self.refused * scale,
            shed_twice=self.shed_twice * scale,
            at_deadline=self.at_deadline * scale,
            seconds=self.back_at,
            stands_for=scale,
        )

    def _curve(self, counts: Counter[int], stretch: int) -> tuple[float, ...]:
        last = max([*self.closes, *self.arrivals], default=-1)
        return tuple(
            sum(counts[second] for second in range(begin, begin + stretch)) * self.stands_for / stretch
            for begin in range(0, last + 1, stretch)
        )
