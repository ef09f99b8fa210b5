# How a plan works.
#
# Think of a bucket into which the right to shed flows at the rate the pacing strategy names. Whenever it holds enough,
# one session is asked to leave and one unit is taken out. "Enough" is not 1 but a random level drawn anew for every
# session: within the slot in which the bucket gains one unit, the shed falls on a random moment. That is stratified
# jitter: no two tasks of a fleet beat in time, and yet every slot sheds exactly one.
#
# The rate is computed from the live number of sessions and the time left, again after every change. With `credit` in
# the bucket, `remaining - credit` sessions' worth is still to flow in, so that an even pace is
# (remaining - credit) / (deadline - now): a constant for as long as nobody comes or goes by themselves, slower when
# sessions leave, faster when they arrive, and always zero at the deadline.
#
# Three things must not become a burst:
#   - A stalled event loop or a throttled CPU. The plan asks to be called at a moment; what would have flowed in while
#     the caller was later than CATCH_UP is not poured in at once but spread over the time left.
#   - Sessions that are held. When nobody may be picked the bucket stops filling, so a release does not find a debt.
#   - A large number due at once. `due` hands out at most `limit`; the rest is due again immediately.
# The one burst that may happen is the deadline itself: whoever is left then, held or not, is due.
"""The plan of a drain: who is due now, and when to ask again."""

import math
from random import Random

from starlette_drain._core.pacing import Pacing
from starlette_drain._core.session import Session, SessionRegistry

__all__ = ["CATCH_UP", "ShedPlan"]

CATCH_UP = 0.1
"""Seconds of lateness that are made up for at once."""

TICK = 0.005
"""Seconds between two moments that are asked for at the least: a fast drain does not wake up for each session."""

RECHECK = 1.0
"""Seconds until a strategy that sheds nobody for now is asked again."""


class ShedPlan:
    """
    Says who is due at a given moment and when to ask again. It reads no clock and draws no luck of its own.

    Args:
        registry: The live sessions; those handed out as due are marked as leaving there.
        pacing: The strategy.
        rng: The source of luck.
        now: The moment the plan begins, in seconds.
        deadline: The moment by which the last session must have been asked, in the same seconds.
    """

    def __init__(self, registry: SessionRegistry, pacing: Pacing, rng: Random, *, now: float, deadline: float) -> None:
        self._registry = registry
        self._pacing = pacing
        self._rng = rng
        self._deadline = deadline
        self._share = 1
        self._credit = 0.0
        self._level = self._draw_level()
        self._rate = self._flow = 0.0
        self._accounted = now
        self._next_batch = now
        self._ask_at: float | None = None
        self.recount(now)

    @property
    def deadline(self) -> float:
        """The moment by which the last session must have been asked to leave."""
        return self._deadline

    @property
    def ask_at(self) -> float | None:
        """When to call `due` next; ``None`` while there is nobody to ask."""
        return self._ask_at

    def rate(self, now: float) -> float:
        """Return the sessions per second that the plan sheds at *now*."""
        return self._rate if now < self._deadline else 0.0

    def eta(self, now: float) -> float:
        """Return the moment at which the last of the present sessions will have been asked, as things stand."""
        if self._rate <= 0.0 or self._pacing.interval:
            return max(now, self._deadline) if self._registry.remaining else now
        return min(now + self._to_flow_in() / self._rate, max(now, self._deadline))

    def describe(self, now: float) -> str:
        """Say in a few words what the strategy does at *now*."""
        if now >= self._deadline:
            return "everyone who is left: the deadline has passed"
        return self._pacing.describe(self._to_flow_in() * self._share, self._deadline - now)

    def shorten(self, now: float, deadline: float) -> bool:
        """Bring the deadline forward; return whether *deadline* was earlier than the one in force."""
        if deadline >= self._deadline:
            return False
        self._fill(now)
        self._deadline = deadline
        self._next_batch = min(self._next_batch, now + self._pacing.interval)
        self._plan_ahead(now)
        return True

    def divide(self, now: float, share: int) -> None:
        """Take note that *share* processes shed at once: what the strategy promises holds for their sum."""
        self._fill(now)
        self._share = share
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
        overdue = now >= self._deadline
        due: list[Session] = []
        while len(due) < limit and (overdue or self._is_filled()):
            session = self._registry.pick(self._rng, even_held=overdue)
            if session is None:
                self._credit = min(self._credit, self._level)  # all are held: run up no debt
                break
            due.append(session)
            self._credit -= 1.0
            self._level = self._draw_level()
        self._plan_ahead(now)
        return due

    def _fill(self, now: float) -> None:
        """Let flow in what the rate allowed since the last time."""
        if self._pacing.interval:
            if self._next_batch <= now < self._deadline and self._registry.remaining:
                rate = self._ask_pacing(self._deadline - now)
                # Less a little, so that 3.0000000001 is a batch of three.
                self._credit += math.ceil(rate * self._pacing.interval - 1e-9)
                self._next_batch = now + self._pacing.interval
        else:
            late = 0.0 if self._ask_at is None else max(0.0, now - self._ask_at - CATCH_UP)
            self._credit += self._flow * max(0.0, now - self._accounted - late)
        self._accounted = now

    def _plan_ahead(self, now: float) -> None:
        """Ask the strategy for the rate from here on, and work out when the next session is due."""
        remaining, time_left = self._registry.remaining, self._deadline - now
        self._rate = self._flow = 0.0
        if remaining == 0:
            self._credit, self._ask_at = min(self._credit, 0.0), None
        elif time_left <= 0.0:
            self._ask_at = now
        else:
            self._rate = self._ask_pacing(time_left)
            self._ask_at = min(self._next_moment(now), self._deadline)

    def _next_moment(self, now: float) -> float:
        """Return when the bucket will hold enough; the rate flows in only while somebody can be picked."""
        if self._is_filled():
            return now if self._registry.waiting else self._deadline
        self._flow = self._rate
        if self._pacing.interval:
            moment = self._next_batch
        elif self._rate <= 0.0:
            moment = now + RECHECK
        else:
            moment = now + (self._level - self._credit) / self._rate
        return max(moment, now + TICK)

    def _is_filled(self) -> bool:
        # Less a little: the moment worked out from the level must find it reached.
        return self._credit >= self._level - 1e-9

    def _ask_pacing(self, time_left: float) -> float:
        """Return this process's part of the rate for a task in which every process has as many sessions as this."""
        return max(0.0, self._pacing.rate(self._to_flow_in() * self._share, time_left) / self._share)

    def _to_flow_in(self) -> float:
        return max(0.0, self._registry.remaining - self._credit)

    def _draw_level(self) -> float:
        return 1.0 if self._pacing.interval else self._rng.random()
