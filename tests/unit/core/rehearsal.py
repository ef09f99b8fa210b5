"""A plan and its caller on a clock that the test turns: what the engine does with a timer, without one."""

import math
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from starlette_drain._core.pacing import EvenPacing
from starlette_drain._core.plan import CATCH_UP, ShedPlan
from starlette_drain._core.session import Session, SessionRegistry

START = 1000.0
"""Not 0, so that a clock mixed up with a duration is noticed."""

EVEN = EvenPacing()


def crowd(count, registry=None):
    """Return a registry with *count* sessions."""
    registry = SessionRegistry() if registry is None else registry
    for _ in range(count):
        registry.add(Session("/", START))
    return registry


class Shed(NamedTuple):
    """One session that was asked to leave."""

    at: float
    session: Session


@dataclass
class Call:
    """One call of `due`: what had been announced before, and how many were handed out."""

    at: float
    rate: float
    peak: float
    words: str
    count: int = 0


class Rehearsal:
    """Calls a plan when it asks to be called, or later, and writes down what it sees."""

    def __init__(self, count=0, pacing=EVEN, *, window=300.0, limit=100, seed=7, registry=None):
        self.registry = crowd(count, registry)
        self.plan = ShedPlan(self.registry, pacing, Random(seed), now=START, deadline=START + window)
        self.limit = limit
        self.now = START
        self.sheds: list[Shed] = []
        self.calls: list[Call] = []
        self.rates: list[tuple[float, float]] = []
        self._peak = 0.0
        self.note()

    def note(self):
        """Write down the rate that is announced from here on."""
        rate = self.plan.rate(self.now)
        self._peak = max(self._peak, rate)
        self.rates.append((self.now, rate))

    def call(self):
        """Call `due` once, now."""
        call = Call(self.now, self.plan.rate(self.now), self._peak, self.plan.describe(self.now))
        due = self.plan.due(self.now, self.limit)
        assert len(due) <= self.limit
        assert self.now >= self.plan.deadline or not any(session.is_held for session in due)
        call.count = len(due)
        self.sheds += [Shed(self.now, session) for session in due]
        self.calls.append(call)
        if len(due) < self.limit:
            self._peak = 0.0
        self.note()
        return due

    def run(self, until=math.inf, *, late=0.0):
        """Let time pass to *until*, or to the end, the caller being *late* whenever it has to wait."""
        while (moment := self.plan.ask_at) is not None:
            moment = moment + late if moment > self.now else self.now
            if moment > until:
                break
            self.now = moment
            self.call()
        if until < math.inf:
            self.now = max(self.now, until)
        return self

    def arrive(self, count=1):
        """Let *count* sessions come."""
        came = [Session("/", self.now) for _ in range(count)]
        for session in came:
            self.registry.add(session)
        self.recount()
        return came

    def leave(self, sessions):
        """Let *sessions* go by themselves."""
        for session in sessions:
            self.registry.discard(session)
        self.recount()

    def hold(self, sessions):
        """Let the application hold *sessions*."""
        for session in sessions:
            self.registry.hold(session)
        self.recount()

    def release(self, sessions):
        """Let the application end one hold of *sessions*."""
        for session in sessions:
            self.registry.release(session)
        self.recount()

    def shorten(self, window):
        """Bring the deadline forward to *window* seconds from now; a later one changes nothing."""
        self.move(min(self.now + window, self.plan.deadline))

    def move(self, deadline):
        """Move the deadline."""
        self.plan.move(self.now, deadline)
        self.note()

    def recount(self):
        """Tell the plan that something changed."""
        self.plan.recount(self.now)
        self.note()

    @property
    def waiting(self):
        """Those who may be picked."""
        return list(self.registry._waiting)

    @property
    def moments(self):
        """The moments of the sheds, in seconds from the start."""
        return [shed.at - START for shed in self.sheds]

    def shed_within(self, begin, end):
        """Return how many were shed in the half-open stretch from *begin* to *end*, in seconds from the start."""
        return sum(begin <= moment < end for moment in self.moments)

    def burst(self):
        """
        Return by how many sessions the busiest stretch before the deadline exceeded what the plan had announced for it.

        In any stretch, of any length, the sheds are fewer than the announced rate makes in it, plus 2 (the jitter may
        put the first at the end of its slot and the last at the beginning of its own), plus what a caller who comes
        late is handed for CATCH_UP. A positive answer breaks that promise.
        """
        made, rates = 0.0, iter([*self.rates, (math.inf, 0.0)])
        (at, rate), (following, next_rate) = next(rates), next(rates)
        shed, lowest, worst = 0, math.inf, -math.inf
        for call in self.calls:
            if call.at >= self.plan.deadline:
                break
            while following <= call.at:
                made += rate * (following - at)
                (at, rate), (following, next_rate) = (following, next_rate), next(rates)
            excess = shed - (made + rate * (call.at - at))
            lowest = min(lowest, excess + CATCH_UP * call.peak)
            shed += call.count
            worst = max(worst, excess + call.count - lowest)
        return worst - 2.0 - 1e-3
