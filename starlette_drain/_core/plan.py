# How a plan works.
#
# A plan is a token bucket. Credit flows in at the rate that the pacing strategy returns. Whenever the bucket holds
# enough, one session is asked to leave and one unit is taken out. "Enough" is not 1 but a random level, drawn again for
# every session: the shed falls on a random moment within the slot in which the bucket gains one unit. This is
# stratified jitter: the tasks of a fleet do not shed in step, and yet every slot sheds exactly one session. (Two sheds
# may be close together, one late in its slot and one early in the next; three never are.)
#
# The rate is computed again after every change, from the current number of sessions and the time left. With `credit`
# in the bucket, `remaining - credit` is still to flow in, so an even pace is (remaining - credit) / (deadline - now).
# It is constant while no session comes or goes by itself, slower when sessions leave, faster when they arrive, and
# always reaches zero at the deadline.
#
# Batches use the same bucket, but it is filled once per interval, at a call of `due`, with a whole interval's worth.
# The level is drawn once for the whole plan, so that a batch is an interval's worth rounded down or up, and the
# fraction is carried to the next: three sessions in five minutes do not all leave in the first six seconds.
#
# Three things must not become a burst:
#   - A stalled event loop or a throttled CPU. Above its level the bucket holds no more than flows in during CATCH_UP.
#     The overflow is not lost: it is spread over the time left.
#   - Sessions that are held. While none may be picked nothing flows in, and credit above the level is dropped, so that
#     a release meets no backlog.
#   - Many sessions due at once. `due` returns at most `limit`; the rest is due again immediately.
# The one burst that may happen is at the deadline: all sessions left then, held or not, are due.
"""The plan of a drain: which sessions are due now, and when to ask again."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Protocol, TypeVar

from starlette_drain._core.pacing import FEWEST_BATCHES, BatchPacing, EvenPacing, Pacing
from starlette_drain._core.session import Session

__all__ = ["CATCH_UP", "Candidates", "ShedPlan"]

CATCH_UP = 0.1
"""Seconds of lateness that are caught up at once."""

TICK = 0.005
"""The shortest time between two calls of `due`, in seconds: a faster drain sheds several sessions per call."""

RECHECK = 1.0
"""Seconds after which a strategy is asked again at the latest: its rate may change with the time left."""

AnswerT = TypeVar("AnswerT")

TOLERANCE = 1e-6
"""Credit by which the bucket may miss its level: after months of uptime the clock's floats have no finer resolution."""


class Candidates(Protocol):
    """The part of a `SessionRegistry` that a plan needs."""

    @property
    def waiting(self) -> int:
        """The number of sessions that may be picked now."""

    @property
    def remaining(self) -> int:
        """The number of sessions that have not been picked."""

    def pick(self, rng: Random, *, even_held: bool = False) -> Session | None:
        """Return a session that has not been picked; ``None`` if there is none."""


class ShedPlan:
    """
    Decides which sessions are due at a given moment, and when to ask again. It reads no clock.

    Args:
        registry: The live sessions, a `SessionRegistry`, where those returned as due are marked as leaving.
        pacing: The strategy.
        rng: The source of randomness.
        now: When the plan begins, in seconds.
        deadline: When the last session must have been asked, on the same clock.
    """

    def __init__(self, registry: Candidates, pacing: Pacing, rng: Random, *, now: float, deadline: float) -> None:
        self._registry = registry
        self._pacing = pacing
        self._rng = rng
        self._deadline = deadline
        self._longest_interval = max(0.0, deadline - now) / FEWEST_BATCHES
        self._share = 1
        self._credit = 0.0
        self._level = 1.0 - rng.random()
        self._rate = 0.0
        self._accounted = now
        self._next_batch = now
        self._ask_at: float | None = None
        self.failure: Exception | None = None
        """Why the strategy was replaced by an even pace: what it raised, or that its answer was invalid."""
        self._plan_ahead(now)

    @property
    def deadline(self) -> float:
        """When the last session must have been asked to leave."""
        return self._deadline

    @property
    def ask_at(self) -> float | None:
        """When to call `due` next; ``None`` if there is no session to ask."""
        return self._ask_at

    def rate(self, now: float) -> float:
        """Return the sessions per second that the plan sheds at *now*: 0 while all that are left are held."""
        return self._rate if now < self._deadline else 0.0

    def eta(self, now: float) -> float:
        """Return when the last of the current sessions will have been asked, at the current rate."""
        if not self._registry.remaining:
            return now
        latest = max(now, self._deadline)
        if self._rate <= 0.0 or self._interval():
            return latest
        return min(now + max(0.0, self._to_flow_in() - self._inflow(now)) / self._rate, latest)

    def describe(self, now: float) -> str:
        """Return in a few words what the strategy does at *now*."""
        if now >= self._deadline:
            return "all that are left at once: the deadline has passed"
        if not self._registry.remaining:
            return "no session is left to ask"
        if not self._registry.waiting:
            return "none for now: all that are left are held"
        to_flow_in = max(0.0, self._to_flow_in() - self._inflow(now)) * self._share
        if isinstance(self._pacing, BatchPacing):
            return replace(self._pacing, interval=self._interval()).describe(to_flow_in, self._time_left(now))
        return str(self._ask(lambda pacing: pacing.describe(to_flow_in, self._time_left(now))))

    def stance(self, now: float) -> str | None:
        """Return the strategy's stance at *now*, in a word; ``None`` if it has none or no session may be asked."""
        if now >= self._deadline or not self._registry.waiting:
            return None
        to_flow_in = max(0.0, self._to_flow_in() - self._inflow(now)) * self._share
        return self._ask(lambda pacing: _stance(pacing, to_flow_in, self._time_left(now)))

    def move(self, now: float, deadline: float) -> None:
        """Move the deadline."""
        self._fill(now)
        self._deadline = deadline
        self._longest_interval = max(0.0, deadline - now) / FEWEST_BATCHES
        self._next_batch = min(self._next_batch, now + self._interval())
        self._plan_ahead(now)

    def divide(self, now: float, share: int) -> None:
        """Divide the rate among *share* processes that shed at once: the strategy's promises hold for their sum."""
        self._fill(now)
        self._share = share
        self._plan_ahead(now)

    def repace(self, now: float, pacing: Pacing) -> None:
        """Replace the strategy."""
        self._fill(now)
        self._pacing = pacing
        self._plan_ahead(now)

    def recount(self, now: float) -> None:
        """Plan again after sessions came, went, or were held or released."""
        self._fill(now)
        self._plan_ahead(now)

    def due(self, now: float, limit: int) -> list[Session]:
        """
        Return the sessions to ask to leave now, at most *limit* of them, marked as leaving in the registry.

        If more than *limit* are due, `ask_at` is *now* afterwards.
        """
        self._fill(now)
        self._begin_batch(now)
        overdue = now >= self._deadline
        due: list[Session] = []
        while len(due) < limit and (overdue or self._is_filled()):
            session = self._registry.pick(self._rng, even_held=overdue)
            if session is None:
                break
            due.append(session)
            self._credit -= 1.0
            if not self._interval():
                self._level = 1.0 - self._rng.random()
        if overdue:
            self._credit = 0.0  # no backlog, in case the deadline moves later
        self._plan_ahead(now)
        return due

    def _inflow(self, now: float) -> float:
        """Return the credit that has flowed in since the last call of `_fill`, limited by the room in the bucket."""
        if self._interval():
            return 0.0
        room = self._level + self._rate * CATCH_UP - self._credit
        return max(0.0, min(self._rate * (now - self._accounted), room))

    def _fill(self, now: float) -> None:
        self._credit += self._inflow(now)
        self._accounted = max(now, self._accounted)

    def _begin_batch(self, now: float) -> None:
        """Add the credit of a whole interval, once per interval."""
        interval = self._interval()
        if interval and self._next_batch <= now < self._deadline and self._registry.waiting:
            self._credit = min(self._credit, self._level)  # the rest of an unfinished batch is spread again
            self._credit += self._ask_pacing(now) * interval
            self._next_batch = now + max(interval, TICK)

    def _plan_ahead(self, now: float) -> None:
        """Ask the strategy for the rate from *now* on, and compute when the next session is due."""
        remaining, waiting = self._registry.remaining, self._registry.waiting
        self._credit = min(self._credit, remaining if waiting else min(self._level, remaining))
        self._rate = 0.0
        if remaining == 0:
            self._ask_at = None
        elif now >= self._deadline:
            self._ask_at = now
        elif waiting == 0:
            self._ask_at = self._deadline
        else:
            self._rate = self._ask_pacing(now)
            self._ask_at = min(self._next_moment(now), self._deadline)

    def _next_moment(self, now: float) -> float:
        """Return when a session is due next, or the strategy has to be asked again."""
        if self._is_filled():
            return now
        if self._interval():
            return max(now, self._next_batch)
        if self._rate <= 0.0:
            return now + RECHECK
        missing = (self._level - self._credit) / self._rate
        return now + min(max(missing, TICK), RECHECK)

    def _is_filled(self) -> bool:
        return self._credit >= self._level - TOLERANCE

    def _ask_pacing(self, now: float) -> float:
        """Return this process's part of the rate, assuming that every process of the task has as many sessions."""
        to_flow_in, time_left = self._to_flow_in(), self._time_left(now)
        rate = self._ask(lambda pacing: _number(pacing.rate(to_flow_in * self._share, time_left))) / self._share
        return min(max(0.0, rate), to_flow_in / TICK)  # an infinite rate means within a tick

    def _interval(self) -> float:
        """Return the seconds between two batches; 0 if there are no batches."""
        return min(self._ask(lambda pacing: _finite(pacing.interval)), self._longest_interval)

    def _ask(self, question: Callable[[Pacing], AnswerT]) -> AnswerT:
        """Ask the strategy; replace it by an even pace if it raises or its answer is invalid."""
        try:
            return question(self._pacing)
        except Exception as error:  # noqa: BLE001 - the strategy is the application's own, and may raise anything
            self._pacing, self.failure = EvenPacing(), error
            return question(self._pacing)

    def _time_left(self, now: float) -> float:
        """Return the seconds until the deadline, more than 0; with batches, from the next batch on."""
        begin = max(now, self._next_batch) if self._interval() else now
        return self._deadline - (begin if begin < self._deadline else now)

    def _to_flow_in(self) -> float:
        return max(0.0, self._registry.remaining - self._credit)


def _number(answer: Any) -> float:
    """Return *answer* as a float, which may be infinite but not NaN."""
    if math.isnan(number := float(answer)):
        msg = "nan is not a rate; return sessions per second"
        raise ValueError(msg)
    return number


def _finite(answer: Any) -> float:
    """Return *answer* as a finite number of seconds, 0 or more."""
    if not (math.isfinite(number := float(answer)) and number >= 0):
        msg = f"{answer!r} is not an interval; return seconds, 0 or more"
        raise ValueError(msg)
    return number


def _stance(pacing: Any, remaining: float, time_left: float) -> str | None:
    stance = getattr(pacing, "stance", None)
    return None if stance is None else str(stance(remaining, time_left))
