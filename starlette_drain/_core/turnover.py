# How sessions leave although there is no drain.
#
# Each has a moment, and all moments stand in one heap. By age, a session has its moment in the last fifth of that age,
# and the golden ratio spreads the moments of those that came together (https://en.wikipedia.org/wiki/Low-discrepancy_sequence).
# In a rotation those that are open get moments over its window, one in each slot: the stratified jitter of a drain.
#
# Neither an age nor the end of a rotation is a deadline, so three rules come first:
#
#   - A limit in sessions per second holds whatever the moments say. Those that wait for it grow older.
#   - When none could be asked for a while (a drain ran, the process stalled), all moments move by as much, and so does
#     the end of a rotation: what was missed does not become a burst.
#   - A session that is held when its moment comes gets another, at random in the second half of the time that is left.
"""When sessions leave although there is no drain: by age, or in a rotation. It reads no clock."""

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
"""What a session leaves for where no drain runs: its age, a rotation by hand, or a scale-out."""

LAST_PART = 0.2
"""The part of the age, at its end, in which sessions leave."""

CATCH_UP = 0.25
"""Seconds of lateness that are made up for at once; more is put off."""

PUT_OFF = 0.1, 600.0
"""Over what part of its window, and over how many seconds at most, a rotation goes on for those held at its end."""

LONGEST_ROTATION = 31 * 86_400.0
"""Seconds."""

GOLDEN = (math.sqrt(5) - 1) / 2

DEAD = 100
"""Entries of the heap, beyond as many as there are sessions, that may be of sessions that have gone."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """
    Asks sessions to leave once while the process serves.

    Attributes:
        at: When it was given, in seconds; sessions that opened later stay.
        window: Seconds over which they leave.
        share: The part of them that leaves, more than 0 and at most 1.
        trigger: What gave it: ``"rotation"`` by hand, ``"rebalance"`` after a scale-out.
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
        Return the rotation that *order* describes, in JSON values; a later version may describe more.

        Raises:
            TypeError, ValueError: If it describes none.
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
        trigger: What asked for it: ``"rotation"`` by hand, ``"rebalance"`` after a scale-out.
        reason: Why, in one sentence.
        window: Seconds over which the sessions leave.
        share: The part of them that leaves.
        time_left: Seconds until the last of them is to be asked.
        asked: Asked to leave so far.
        left: Gone by themselves since it began, or asked to leave by a drain.
        remaining: Still to be asked.
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
    """A rotation and its sessions: who is still to be asked, and how many were."""

    def __init__(self, rotation: Rotation, sessions: Iterable[Session], now: float) -> None:
        self.rotation = rotation
        self.began = now
        self.end = max(now, rotation.at + rotation.window)
        """When the last of them is to be asked; pauses put it off."""
        self.waiting = dict.fromkeys(sessions)
        self.asked = self.left = 0
        self._percent = 25

    def progress(self, now: float, *, is_paused: bool) -> RotationProgress:
        """Return how far it is."""
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
        """Return the quarter of its work, in percent, that was reached since the last call; not the last."""
        done = self.asked + self.left
        reached, all_of_them = None, done + len(self.waiting)
        while self._percent < 100 and 100 * done >= self._percent * all_of_them:
            reached, self._percent = self._percent, self._percent + 25
        return reached


class TurnoverPlan:
    """
    Says who is due at a given moment, and when to ask again.

    Args:
        age: Seconds after which a session leaves at the latest; ``None`` lets it stay.
        rng: The source of randomness.
    """

    def __init__(self, age: float | None, rng: Random) -> None:
        self.age = age
        self.tally: RotationTally | None = None
        """The rotation under way."""
        self._rng = rng
        self._jitter = 0.0 if age is None else rng.random()
        self._heap: list[tuple[float, int]] = []
        """Moments, less the shift at which they were noted, and the numbers of sessions; some have gone."""
        self._sessions: dict[int, Session] = {}
        self.numbers: dict[Session, int] = {}
        """The sessions that have a moment, and their numbers."""
        self._next_number = 0
        self._shift = 0.0
        """Seconds for which none could be asked, so far."""
        self._free_at = -math.inf
        """When the limit lets the next one go."""

    @property
    def ask_at(self) -> float | None:
        """When to call `due` next; ``None`` while there is none to wait for."""
        return max(self._heap[0][0] + self._shift, self._free_at) if self._heap else None

    def waiting(self, now: float) -> int:
        """Return how many would have left by *now* if there were no limit."""
        return sum(moment + self._shift <= now and number in self._sessions for moment, number in self._heap)

    def add(self, session: Session, now: float) -> None:
        """Let *session* age from when it opened."""
        if self.age is not None:
            self._jitter = (self._jitter + GOLDEN) % 1.0
            moment = session.opened_at + self.age * (1.0 - LAST_PART * self._jitter)
            self._put(session, moment if moment > now else self._later(session, now))

    def rotate(self, rotation: Rotation, sessions: list[Session], now: float) -> None:
        """Let *sessions* leave evenly until the end of *rotation*."""
        self.tally = tally = RotationTally(rotation, sessions, now)
        slot, shift, draw = (tally.end - now) / max(1, len(sessions)), self._shift, self._rng.random
        by_number = {number: moment for moment, number in self._heap}
        # All at once: tens of thousands would be held up by a call for each.
        for place, session in enumerate(sessions):
            moment = now + slot * (place + draw()) - shift
            if (former := self.numbers.get(session)) is not None:
                moment = min(moment, by_number[former])
                del self._sessions[former]
            self._next_number = number = self._next_number + 1
            self._sessions[number] = session
            self.numbers[session] = number
            self._heap.append((moment, number))
        heapq.heapify(self._heap)
        self._tidy()

    def stop_rotating(self, now: float) -> None:
        """Let those of the rotation stay that were not asked; they go on ageing."""
        waiting = self.tally.waiting if self.tally else {}
        self.tally = None
        for session in waiting:
            self._forget(session)
            self.add(session, now)

    def discard(self, session: Session) -> None:
        """Forget *session*, which has gone or leaves. One that is not known does no harm."""
        self._forget(session)
        if self.tally and session in self.tally.waiting:
            del self.tally.waiting[session]
            self.tally.left += 1

    def due(self, now: float, most: int, limit: float = math.inf) -> list[tuple[Session, str]]:
        """
        Return the sessions that are to leave now, at most so many, each with its cause, and forget them.

        Args:
            now: The time, in seconds.
            most: How many to return at the most.
            limit: Sessions per second that may leave.
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
        """Return another moment for a session whose own has come, or had before it was known."""
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
        """Drop what the heap has of sessions that have gone, where it is much or comes first."""
        if len(self._heap) > 2 * len(self._sessions) + DEAD:
            self._heap = [each for each in self._heap if each[1] in self._sessions]
            heapq.heapify(self._heap)
        while self._heap and self._heap[0][1] not in self._sessions:
            heapq.heappop(self._heap)
