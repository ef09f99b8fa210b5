# How sessions move on when they have lived long enough.
#
# At four fifths of its age a session becomes ripe, and has the last fifth to leave in. The ripe stand in a line, the
# oldest first, and leave by the same plan as in a drain: a bucket that fills at a rate, with its jitter. The rate is
#
#     ripe sessions / (the time at which the first of them reaches its age - now)
#
# so that those that came together leave evenly over the last fifth, and none stays longer. Of sessions that came
# evenly each leaves half way, at nine tenths. But an age is no deadline: a session may be a little older. So a
# limit in sessions per second holds whatever the ages say. And where none could be asked for a while (a drain was
# cancelled, the process stalled), or sessions are older than they should be (the limit was too low), the line as it
# stands has a whole fifth of the age again: what has been missed must not become a burst.
"""The plan by which old sessions leave although there is no drain."""

import math
from collections import OrderedDict
from collections.abc import Callable
from random import Random

from starlette_drain._core.plan import ShedPlan
from starlette_drain._core.session import Session

__all__ = ["LAST_PART", "AgePlan"]

LAST_PART = 0.2
"""The part of the age, at its end, in which sessions leave."""

SWEEP = 1.0
"""Seconds between two looks at who has become ripe: a second is nothing beside an age."""

PAUSE = 10.0
"""Seconds without a look after which what was missed is spread anew. With sessions in line there is one a second."""


class AgePlan:
    """
    Says who has lived long enough at a given moment, and when to ask again. It reads no clock.

    Args:
        age: Seconds, more than 0.
        limit: Returns how many sessions per second may be asked to leave at the most, in all processes together.
        rng: The source of randomness.
    """

    def __init__(self, age: float, limit: Callable[[], float], rng: Random) -> None:
        self._until_ripe = (1.0 - LAST_PART) * age
        self._young: OrderedDict[Session, None] = OrderedDict()
        """In the order in which they opened: it may differ from that of their ages by what a handshake takes."""
        self._line = _Line(LAST_PART * age, limit)
        self._swept = -math.inf
        # Without a deadline: an age is none. The line is the plan's registry and its strategy.
        self._plan = ShedPlan(self._line, self._line, rng, now=0.0, deadline=math.inf)

    @property
    def ripe(self) -> int:
        """How many wait for their turn."""
        return self._line.remaining

    @property
    def ask_at(self) -> float | None:
        """When to call `due` next; ``None`` while there is none to wait for."""
        moments = [] if self._plan.ask_at is None or not self.ripe else [self._plan.ask_at]
        if self._young:
            moments.append(max(self._swept + SWEEP, next(iter(self._young)).opened_at + self._until_ripe))
        return min(moments, default=None)

    def add(self, session: Session) -> None:
        """Let *session* age."""
        self._young[session] = None

    def discard(self, session: Session) -> None:
        """Forget *session*, which has gone or leaves. One that is not known does no harm."""
        if session in self._young:
            del self._young[session]
        else:
            self._line.discard(session)

    def due(self, now: float, limit: int, *, share: int = 1) -> list[Session]:
        """
        Return the sessions that are to leave now, at most *limit* of them, and forget them.

        One that is held is put back, and has the last part of its age once more.

        Args:
            now: The time, in seconds.
            limit: How many to return at the most.
            share: How many processes shed at once.
        """
        self._line.look(now)
        self._sweep(now)
        self._plan.divide(now, share)
        due: list[Session] = []
        for session in self._plan.due(now, limit):
            if session.is_held:
                self._line.join(session, now)
            else:
                due.append(session)
        self._plan.recount(now)
        return due

    def _sweep(self, now: float) -> None:
        """Let those who have become ripe join the line."""
        self._swept = now
        while self._young and (first := next(iter(self._young))).opened_at + self._until_ripe <= now:
            del self._young[first]
            self._line.join(first, first.opened_at + self._until_ripe)


class _Line:
    """The ripe, the oldest first: what a plan picks from, and how fast."""

    interval = 0.0

    def __init__(self, last_part: float, limit: Callable[[], float]) -> None:
        self._last_part = last_part
        self._limit = limit
        self._ends: OrderedDict[Session, float] = OrderedDict()
        """When each reaches its age. None before one who stands in front of it."""
        self._latest = -math.inf
        self._put_off_to = -math.inf
        self._now = -math.inf

    @property
    def waiting(self) -> int:
        """How many may be picked."""
        return len(self._ends)

    remaining = waiting

    def join(self, session: Session, ripe_at: float) -> None:
        """Let *session* stand in the line, at its end."""
        self._latest = max(self._latest, ripe_at + self._last_part)
        self._ends[session] = self._latest

    def discard(self, session: Session) -> None:
        """Forget *session*, if it is there."""
        self._ends.pop(session, None)

    def pick(self, rng: Random, *, even_held: bool = False) -> Session | None:  # noqa: ARG002 - a line is not random
        """Return the first, who is in the line no more."""
        return self._ends.popitem(last=False)[0] if self._ends else None

    def look(self, now: float) -> None:
        """Take note of the time, and of how long ago the last look was."""
        if now - self._now > PAUSE:
            self._put_off_to = now + self._last_part
        self._now = now

    def rate(self, remaining: float, time_left: float) -> float:  # noqa: ARG002 - the ages say what time is left
        """Return how many sessions per second may be asked to leave now."""
        return min(self._limit(), remaining / self._time_left())

    def describe(self, remaining: float, time_left: float) -> str:
        """Name the rate."""
        return f"by age, {self.rate(remaining, time_left):.3g} sessions/s"

    def _time_left(self) -> float:
        end = max(next(iter(self._ends.values())), self._put_off_to)
        if end <= self._now:
            end = self._put_off_to = self._now + self._last_part
        return end - self._now
