# How a plan works.
#
# Think of a bucket into which the right to shed flows at the rate the pacing strategy names. Whenever it holds enough,
# one session is asked to leave and one unit is taken out. "Enough" is not 1 but a random level drawn anew for every
# session: within the slot in which the bucket gains one unit, the shed falls on a random moment. That is stratified
# jitter: no two tasks of a fleet beat in time, and yet every slot sheds exactly one. (Two neighbours may stand close,
# one late in its slot and one early in the next; three never do.)
#
# The rate is computed from the live number of sessions and the time left, again after every change. With `credit` in
# the bucket, `remaining - credit` sessions' worth is still to flow in, so that an even pace is
# (remaining - credit) / (deadline - now): a constant while no session comes or goes by itself, slower when
# sessions leave, faster when they arrive, and always zero at the deadline.
#
# Batches are the same bucket, filled by the gush: once an interval, at a call of `due`, what an interval is worth. The
# level is drawn once, for the whole plan, so that a batch is what an interval is worth rounded down or up, and the
# fraction is carried to the next: three sessions in five minutes are not gone in the first six seconds.
#
# Three things must not become a burst:
#   - A stalled event loop or a throttled CPU. Beyond its level the bucket holds no more than flows in during CATCH_UP.
#     What runs over is not lost: it is spread over the time left.
#   - Sessions that are held. When none may be picked nothing flows in, and what is over the level is poured away, so
#     that a release does not find a debt.
#   - A large number due at once. `due` hands out at most `limit`; the rest is due again immediately.
# The one burst that may happen is the deadline itself: all that are left then, held or not, are due.
"""The plan of a drain: who is due now, and when to ask again."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Protocol, TypeVar

from starlette_drain._core.pacing import FEWEST_BATCHES, BatchPacing, EvenPacing, Pacing
from starlette_drain._core.session import Session

__all__ = ["CATCH_UP", "Candidates", "ShedPlan"]

CATCH_UP = 0.1
"""Seconds of lateness that are made up for at once."""

TICK = 0.005
"""Seconds between two sheds that are asked for one by one: a faster drain sheds several at a time."""

RECHECK = 1.0
"""Seconds until a strategy is asked again at the latest: its rate may change with the time left."""

AnswerT = TypeVar("AnswerT")

DUST = 1e-6
"""Sessions by which the bucket may miss its level: the clock of a machine that is up for months is no finer."""


class Candidates(Protocol):
    """What a plan may pick from: all that it has to know of a `SessionRegistry`."""

    @property
    def waiting(self) -> int:
        """How many may be picked now."""

    @property
    def remaining(self) -> int:
        """How many have not been picked."""

    def pick(self, rng: Random, *, even_held: bool = False) -> Session | None:
        """Return one that has not been picked; ``None`` when there is none."""


class ShedPlan:
    """
    Says who is due at a given moment and when to ask again. It reads no clock and has no randomness of its own.

    Args:
        registry: The live sessions, a `SessionRegistry`; those handed out as due are marked as leaving there.
        pacing: The strategy.
        rng: The source of randomness.
        now: The moment the plan begins, in seconds.
        deadline: The moment by which the last session must have been asked, in the same seconds.
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
        """What the strategy raised or answered that no plan can keep to; an even pace has taken its place."""
        self._plan_ahead(now)

    @property
    def deadline(self) -> float:
        """The moment by which the last session must have been asked to leave."""
        return self._deadline

    @property
    def ask_at(self) -> float | None:
        """When to call `due` next; ``None`` while there is no session to ask."""
        return self._ask_at

    def rate(self, now: float) -> float:
        """Return the sessions per second that the plan sheds at *now*: 0 while all who are left are held."""
        return self._rate if now < self._deadline else 0.0

    def eta(self, now: float) -> float:
        """Return the moment at which the last of the present sessions will have been asked, as things stand."""
        if not self._registry.remaining:
            return now
        latest = max(now, self._deadline)
        if self._rate <= 0.0 or self._interval():
            return latest
        return min(now + max(0.0, self._to_flow_in() - self._inflow(now)) / self._rate, latest)

    def describe(self, now: float) -> str:
        """Say in a few words what the strategy does at *now*."""
        if now >= self._deadline:
            return "everyone who is left: the deadline has passed"
        if self._registry.remaining and not self._registry.waiting:
            return "none for now: all that are left are held"
        to_flow_in = max(0.0, self._to_flow_in() - self._inflow(now)) * self._share
        if isinstance(self._pacing, BatchPacing):
            return replace(self._pacing, interval=self._interval()).describe(to_flow_in, self._time_left(now))
        return str(self._ask(lambda pacing: pacing.describe(to_flow_in, self._time_left(now))))

    def stance(self, now: float) -> str | None:
        """Return in a word what the strategy does at *now*, if it has such words and a session may be asked."""
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
        """Take note that *share* processes shed at once: what the strategy promises holds for their sum."""
        self._fill(now)
        self._share = share
        self._plan_ahead(now)

    def repace(self, now: float, pacing: Pacing) -> None:
        """Go on by another strategy."""
        self._fill(now)
        self._pacing = pacing
        self._plan_ahead(now)

    def recount(self, now: float) -> None:
        """Take note that sessions came, went, or were held or released."""
        self._fill(now)
        self._plan_ahead(now)

    def due(self, now: float, limit: int) -> list[Session]:
        """
        Return the sessions to ask to leave now, at most *limit* of them, marked as leaving in the registry.

        When more are due than *limit*, `ask_at` is *now*.
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
            self._credit = 0.0  # no debt, should the deadline move later
        self._plan_ahead(now)
        return due

    def _inflow(self, now: float) -> float:
        """Return what the rate has let flow in since it was last accounted for: not more than the bucket holds."""
        if self._interval():
            return 0.0
        room = self._level + self._rate * CATCH_UP - self._credit
        return max(0.0, min(self._rate * (now - self._accounted), room))

    def _fill(self, now: float) -> None:
        self._credit += self._inflow(now)
        self._accounted = max(now, self._accounted)

    def _begin_batch(self, now: float) -> None:
        """Pour in what an interval is worth, once an interval."""
        interval = self._interval()
        if interval and self._next_batch <= now < self._deadline and self._registry.waiting:
            self._credit = min(self._credit, self._level)  # a batch that was not finished in time is spread anew
            self._credit += self._ask_pacing(now) * interval
            self._next_batch = now + max(interval, TICK)

    def _plan_ahead(self, now: float) -> None:
        """Ask the strategy for the rate from here on, and work out when the next session is due."""
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
        """Return when a session is due next, or the strategy is to be asked again."""
        if self._is_filled():
            return now
        if self._interval():
            return max(now, self._next_batch)
        if self._rate <= 0.0:
            return now + RECHECK
        missing = (self._level - self._credit) / self._rate
        return now + min(max(missing, TICK), RECHECK)

    def _is_filled(self) -> bool:
        return self._credit >= self._level - DUST

    def _ask_pacing(self, now: float) -> float:
        """Return this process's part of the rate for a task in which every process has as many sessions as this."""
        to_flow_in, time_left = self._to_flow_in(), self._time_left(now)
        rate = self._ask(lambda pacing: _number(pacing.rate(to_flow_in * self._share, time_left))) / self._share
        return min(max(0.0, rate), to_flow_in / TICK)  # "at once", as infinity, is within a tick

    def _interval(self) -> float:
        """Return the seconds between two batches; 0 where there are none."""
        return min(self._ask(lambda pacing: _finite(pacing.interval)), self._longest_interval)

    def _ask(self, question: Callable[[Pacing], AnswerT]) -> AnswerT:
        """Ask the strategy; where it fails, or answers what no plan can keep to, go on evenly."""
        try:
            return question(self._pacing)
        except Exception as error:  # noqa: BLE001 - the strategy is the application's own, and may raise anything
            self._pacing, self.failure = EvenPacing(), error
            return question(self._pacing)

    def _time_left(self, now: float) -> float:
        """Return the seconds left, more than 0: of batches from the next one on."""
        begin = max(now, self._next_batch) if self._interval() else now
        return self._deadline - (begin if begin < self._deadline else now)

    def _to_flow_in(self) -> float:
        return max(0.0, self._registry.remaining - self._credit)


def _number(answer: Any) -> float:
    """Return *answer* as a number, which may be infinite."""
    if math.isnan(number := float(answer)):
        msg = "nan is not a rate; return sessions per second"
        raise ValueError(msg)
    return number


def _finite(answer: Any) -> float:
    """Return *answer* as a length of time."""
    if not (math.isfinite(number := float(answer)) and number >= 0):
        msg = f"{answer!r} is not an interval; return seconds, 0 or more"
        raise ValueError(msg)
    return number


def _stance(pacing: Any, remaining: float, time_left: float) -> str | None:
    stance = getattr(pacing, "stance", None)
    return None if stance is None else str(stance(remaining, time_left))
