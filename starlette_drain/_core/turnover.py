# How sessions leave without a drain.
#
# Each session has a due time, and all due times are in one heap. By age, a session is due in the last fifth of that
# age, and the golden ratio spreads sessions that opened together
# (https://en.wikipedia.org/wiki/Low-discrepancy_sequence). In a rotation the open sessions get due times over its
# window, one in each slot: the stratified jitter of a drain.
#
# Neither an age nor the end of a rotation is a deadline, so three rules take precedence:
#
#   - A limit in sessions per second holds whatever the due times say. Sessions that wait for it grow older.
#   - If none could be asked for a while (a drain ran, the process stalled), all due times move by as much, and so does
#     the end of a rotation: the backlog does not become a burst.
#   - A session that is held when it is due gets another due time, at random in the second half of the time left.
"""When sessions leave without a drain: by age, or in a rotation. It reads no clock."""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Any, Literal, Self

from starlette_drain._core.declared import is_number
from starlette_drain._core.session import Session

__all__ = [
    "LAST_PART",
    "LONGEST_ROTATION",
    "MAX_AGE",
    "REBALANCE",
    "ROTATION",
    "Rotation",
    "RotationProgress",
    "RotationTally",
    "TurnoverPlan",
]

MAX_AGE = "max-age"
ROTATION = "rotation"
REBALANCE = "rebalance"
"""The triggers of sessions that leave without a drain: their age, a manual rotation, or a scale-out."""

LAST_PART = 0.2
"""The last part of the maximum age, in which sessions leave."""

CATCH_UP = 0.25
"""Seconds of lateness that are caught up at once; a longer delay moves all due times."""

PUT_OFF = 0.1, 600.0
"""How long a rotation goes on for sessions held at its end: a part of its window, and at most so many seconds."""

LONGEST_ROTATION = 31 * 86_400.0
"""The longest window of a rotation, in seconds: 31 days."""

GOLDEN = (math.sqrt(5) - 1) / 2

DEAD = 100
"""Stale entries that the heap may hold, beyond one for each session, before it is rebuilt."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """
    An order to ask the open sessions to leave once, while the process serves.

    Attributes:
        at: When the order was given, in seconds of the event loop's clock; sessions that opened later stay.
        window: Seconds over which the sessions leave.
        share: The fraction of the sessions that leaves, more than 0 and at most 1.
        trigger: What gave the order: ``"rotation"`` by hand, ``"rebalance"`` after a scale-out.
        reason: One sentence.
    """

    at: float
    window: float
    share: float = 1.0
    trigger: str = ROTATION
    reason: str = "asked for by the application"

    @classmethod
    def load(cls, order: Mapping[str, Any]) -> Self:
        """
        Parse a rotation from JSON values. Unknown fields are ignored: a later version may have written them.

        Raises:
            TypeError: If a field is missing.
            ValueError: If a field is not a number but must be.
        """
        rotation = cls(**{each.name: order[each.name] for each in fields(cls) if each.name in order})
        for number in (rotation.at, rotation.window, rotation.share):
            if not is_number(number):
                msg = f"{number!r} is not a number"
                raise ValueError(msg)
        return rotation


@dataclass(frozen=True, slots=True)
class RotationProgress:
    """
    A rotation at one moment.

    Attributes:
        state: ``"rotating"``, or ``"paused"`` while a drain decides who leaves.
        trigger: What gave the order: ``"rotation"`` by hand, ``"rebalance"`` after a scale-out.
        reason: Why, in one sentence.
        window: Seconds over which the sessions leave.
        share: The fraction of the sessions that leaves.
        time_left: Seconds until the last session is to be asked.
        asked: Sessions asked to leave so far.
        left: Sessions that have closed by themselves since it began, or that a drain has asked to leave.
        remaining: Sessions still to be asked.
    """

    state: Literal["rotating", "paused"]
    trigger: str
    reason: str
    window: float
    share: float
    time_left: float
    asked: int
    left: int
    remaining: int


class RotationTally:
    """A rotation under way: which sessions are still to be asked, and how many were."""

    def __init__(self, rotation: Rotation, sessions: Iterable[Session], now: float) -> None:
        self.rotation = rotation
        self.began = now
        self.end = max(now, rotation.at + rotation.window)
        """When the last session is to be asked; pauses move it."""
        self.waiting = dict.fromkeys(sessions)
        self.asked = self.left = 0
        self._percent = 25

    def progress(self, now: float, *, is_paused: bool) -> RotationProgress:
        """Return how far the rotation is at *now*."""
        order = self.rotation
        return RotationProgress(
            state="paused" if is_paused else "rotating",
            trigger=order.trigger,
            reason=order.reason,
            window=order.window,
            share=order.share,
            time_left=max(0.0, self.end - now),
            asked=self.asked,
            left=self.left,
            remaining=len(self.waiting),
        )

    def milestone(self) -> int | None:
        """Return the highest of 25, 50 and 75 % reached since the last call, or ``None``."""
        done = self.asked + self.left
        reached, total = None, done + len(self.waiting)
        while self._percent < 100 and 100 * done >= self._percent * total:
            reached, self._percent = self._percent, self._percent + 25
        return reached


class TurnoverPlan:
    """
    Decides which sessions are due at a given moment, and when to ask again.

    Args:
        age: Seconds after which a session leaves at the latest; ``None`` for no limit.
        rng: The source of randomness.
    """

    def __init__(self, age: float | None, rng: Random) -> None:
        self.age = age
        self.tally: RotationTally | None = None
        """The rotation under way, if any."""
        self._rng = rng
        self._jitter = 0.0 if age is None else rng.random()
        self._heap: list[tuple[float, int]] = []
        """Due times, relative to the shift, and the numbers of their sessions; some entries are stale."""
        self._sessions: dict[int, Session] = {}
        self.numbers: dict[Session, int] = {}
        """The sessions that have a due time, and the numbers of their current entries."""
        self._next_number = 0
        self._shift = 0.0
        """Seconds by which all due times have moved so far."""
        self._free_at = -math.inf
        """When the limit allows the next session to be asked."""

    @property
    def ask_at(self) -> float | None:
        """When to call `due` next; ``None`` if no session has a due time."""
        return max(self._heap[0][0] + self._shift, self._free_at) if self._heap else None

    def waiting(self, now: float) -> int:
        """Return how many sessions are due at *now* and wait for the limit."""
        return sum(moment + self._shift <= now and number in self._sessions for moment, number in self._heap)

    def add(self, session: Session, now: float) -> None:
        """Give *session* a due time by its age, counted from when it opened."""
        if self.age is not None:
            self._jitter = (self._jitter + GOLDEN) % 1.0
            moment = session.opened_at + self.age * (1.0 - LAST_PART * self._jitter)
            self._put(session, moment if moment > now else self._later(session, now))

    def rotate(self, rotation: Rotation, sessions: list[Session], now: float) -> None:
        """Begin *rotation*: spread *sessions* evenly until its end."""
        self.tally = tally = RotationTally(rotation, sessions, now)
        slot, shift, draw = (tally.end - now) / max(1, len(sessions)), self._shift, self._rng.random
        by_number = {number: moment for moment, number in self._heap}
        # Without a call for each session: there may be tens of thousands, and this blocks the event loop.
        for place, session in enumerate(sessions):
            moment = now + slot * (place + draw()) - shift
            if (previous := self.numbers.get(session)) is not None:
                moment = min(moment, by_number[previous])
                del self._sessions[previous]
            self._next_number = number = self._next_number + 1
            self._sessions[number] = session
            self.numbers[session] = number
            self._heap.append((moment, number))
        heapq.heapify(self._heap)
        self._tidy()

    def stop_rotating(self, now: float) -> None:
        """End the rotation: sessions that it has not asked stay, and are due by age again."""
        waiting = self.tally.waiting if self.tally else {}
        self.tally = None
        for session in waiting:
            self._forget(session)
            self.add(session, now)

    def discard(self, session: Session) -> None:
        """Forget *session*, which has gone or is leaving; one that has no due time is ignored."""
        self._forget(session)
        if self.tally and session in self.tally.waiting:
            del self.tally.waiting[session]
            self.tally.left += 1

    def due(self, now: float, most: int, limit: float = math.inf) -> list[tuple[Session, str]]:
        """
        Return the sessions to ask to leave now, each with its trigger, and forget them.

        Args:
            now: The time, in seconds.
            most: The most sessions to return.
            limit: The most sessions per second that may leave.
        """
        if self.ask_at is not None and (late := now - self.ask_at) > CATCH_UP:
            self._shift += late
            if self.tally:
                self.tally.end += late
        due: list[tuple[Session, str]] = []
        while len(due) < most and self.ask_at is not None and self.ask_at <= now:
            session = self._sessions[self._heap[0][1]]
            if session.is_held:
                self._put(session, self._later(session, now))
                continue
            self._forget(session)
            trigger = MAX_AGE
            if self.tally and session in self.tally.waiting:
                del self.tally.waiting[session]
                self.tally.asked += 1
                trigger = self.tally.rotation.trigger
            due.append((session, trigger))
            self._free_at = max(self._free_at, now) + self._rng.uniform(0.9, 1.1) / limit
        return due

    def _later(self, session: Session, now: float) -> float:
        """Return another due time for a session that is held, or that was overdue when it was added."""
        spread = LAST_PART * (self.age or 0.0)
        if self.tally and session in self.tally.waiting:
            part, most = PUT_OFF
            spread = max(self.tally.end - now, min(part * self.tally.rotation.window, most))
        return now + spread * (1.0 - 0.5 * self._rng.random())

    def _put(self, session: Session, moment: float) -> None:
        self._forget(session)
        self._next_number += 1
        self._sessions[self._next_number] = session
        self.numbers[session] = self._next_number
        heapq.heappush(self._heap, (moment - self._shift, self._next_number))

    def _forget(self, session: Session) -> None:
        if (number := self.numbers.pop(session, None)) is None:
            return
        del self._sessions[number]
        self._tidy()

    def _tidy(self) -> None:
        """Drop stale entries from the top of the heap, and from all of it if there are many."""
        if len(self._heap) > 2 * len(self._sessions) + DEAD:
            self._heap = [each for each in self._heap if each[1] in self._sessions]
            heapq.heapify(self._heap)
        while self._heap and self._heap[0][1] not in self._sessions:
            heapq.heappop(self._heap)
