# How arrivals are limited.
#
# What overloads a task after a crash next door is not the number of its sessions but that of the handshakes in
# progress: each waits for a database or another service, and all of them get slower together, until the clients give
# up, come again, and the work done for them was for nothing. So there is a limit on the set-ups in progress: from the
# moment at which the application gets a request to its accept (of a response, its head).
#
# One that finds no place waits, with its handshake held: the one thing that every client obeys. The order is one in
# which as many as possible are still there when their turn comes:
#
#   1. Those younger than FRESH, the oldest of them first. The most impatient clients give up after 4 s
#      (partysocket and its kin), and until then no order could serve them better.
#   2. Then those that are older, the oldest first: most clients wait for 10 s.
#
# One that has waited for its time is refused. That time differs, from 6 to 9 s: clients that came in one moment are not
# sent away in one.
#
# The limit is fixed, or follows what it does. It increases while it is full and all is well: by a quarter until the
# first decrease, by one after that. It decreases by a fifth when the typical set-up takes TOLERANCE times what it takes
# in quiet times, or the event loop lags by what is set up. While more arrive than are set up a lag says nothing: the
# server reads their requests whatever the limit. What is typical in quiet times is learned: down at once, up slowly,
# only while there is no storm, or while the limit is at its least, where what is measured is the quiet time.
"""How many handshakes may be in progress, who goes on next, and who has waited for too long."""

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

__all__ = ["ADMISSION_REMEDY", "AdmissionPolicy", "Arrival", "Gate", "Storm", "parse_admission"]

ADMISSION_REMEDY = (
    "give the most handshakes in progress, such as '32', or 'auto'; with ':observe' it only counts, with ':close' a "
    "refusal is an accept and 1013 in place of 503"
)

FRESH = 3.5
"""Seconds for which every client waits."""

HOLD = 6.0, 9.0
"""Seconds after which one that was held is refused."""

MOST_HELD = 20_000
"""Handshakes that are held at once in one process: each has a socket, and a few kilobytes."""

STUCK = 5.0
"""Seconds after which a set-up gives up its place: an application may wait for something before it accepts."""

QUIET = 5.0
"""A storm is over after this many seconds in which no handshake had to wait."""

FIRST, LEAST, MOST = 8, 4, 1000
"""An adaptive limit: what the task begins with, and its bounds in each process."""

TOLERANCE = 1.6
"""How much longer than in quiet times the typical set-up may take, so that hardly any takes three times as long."""

LAG = 0.1
"""Seconds by which the event loop may be late."""

SAMPLES = 12
"""Set-ups after which the limit is looked at again; as many as the limit where that is more."""

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """
    What the option says.

    Attributes:
        limit: The most handshakes in progress in the whole task; ``None`` for one that adapts.
        observes: Whether it only counts.
        closes: Whether a refusal is an accept and a close with 1013, where there is such a code.
    """

    limit: int | None = None
    observes: bool = False
    closes: bool = False


def parse_admission(text: str) -> Any:
    """Return the policy that *text* means, or *text* itself where it means none."""
    first, *others = text.strip().lower().split(":")
    if first == "observe" and not others:
        return AdmissionPolicy(observes=True)
    if not (first == "auto" or (first.isdecimal() and int(first) > 0)) or not set(others) <= {"observe", "close"}:
        return text
    return AdmissionPolicy(None if first == "auto" else int(first), "observe" in others, "close" in others)


@dataclass(slots=True, eq=False)
class Arrival:
    """One handshake that is held: since when, until when, and what to wake for it."""

    at: float
    give_up_at: float
    waiter: Any
    is_over: bool = False


@dataclass(slots=True)
class Storm:
    """
    One stretch of time in which arrivals had to wait, in figures.

    Attributes:
        began: When the first had to wait.
        last: When one last had to.
        arrived: Handshakes that arrived.
        set_up: Of these: how many the application has accepted or refused itself.
        held: Handshakes that had to wait; in observe-only mode those that would have had to.
        refused: Those that were turned away.
        gone: Those that were cancelled while they waited.
        most_held: The most that waited at once.
        longest_wait: Seconds that one waited, until it went on.
        lowest: The lowest limit, and
        highest: the highest, in this process.
        lag: Seconds by which the event loop was late, at worst.
    """

    began: float
    last: float
    lowest: int
    highest: int
    arrived: int = 0
    set_up: int = 0
    held: int = 0
    refused: int = 0
    gone: int = 0
    most_held: int = 0
    longest_wait: float = 0.0
    lag: float = 0.0
    _times: Counter[int] = field(default_factory=Counter)

    def count(self, seconds: float) -> None:
        """Count a set-up that has taken so long."""
        self.set_up += 1
        self._times[math.ceil(20 * math.log(max(seconds, 1e-4)))] += 1

    def p99(self) -> float:
        """Return the seconds that 99 % of the set-ups did not exceed, within 5 %."""
        left = self.set_up / 100
        for step, count in sorted(self._times.items(), reverse=True):
            left -= count
            if left <= 0:
                return math.exp(step / 20)
        return 0.0

    def rate(self, now: float) -> float:
        """Return how many set-ups there were per second."""
        return self.set_up / max(1.0, now - self.began)


class Gate:
    """
    Knows the set-ups in progress and those that wait for one. It reads no clock.

    Args:
        policy: What the option says.
    """

    def __init__(self, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self.storm: Storm | None = None
        """The present one, or the last."""
        self.is_storm = False
        self.held_ever = self.refused_ever = 0
        self.held = 0
        self.baseline: float | None = None
        """Seconds that a set-up typically takes in quiet times."""
        self._share = 1
        self._limit = float(FIRST)
        self._has_found = False
        """Whether the limit was too high once, so that it is near the right one from then on."""
        self._started: dict[object, float] = {}
        """The set-ups in progress, the oldest first."""
        self._entering = 0
        self._fresh: deque[Arrival] = deque()
        self._old: deque[Arrival] = deque()
        self._by_end: list[tuple[float, int, Arrival]] = []
        self._phase = 0.0
        self._samples: list[float] = []
        self._was_full = False
        self._more_arrived = 0
        """How many more have arrived than were set up, since the last look at the event loop."""
        self._changed_at = -math.inf

    @property
    def limit(self) -> int:
        """How many may be in progress in this process."""
        if self.policy.limit is not None:
            return max(1, math.ceil(self.policy.limit / self._share))
        return int(self._limit)

    @property
    def in_progress(self) -> int:
        """How many are."""
        return len(self._started) + self._entering

    def divide(self, share: int) -> None:
        """Take note that *share* processes have the task's arrivals among them."""
        if self.policy.limit is None:
            self._limit = min(MOST, max(self._least(share), self._limit * self._share / share))
        self._share = share

    # Arrivals

    def enter(self, now: float) -> bool:
        """Take a place for one that has arrived, if there is one and no other waits; in observe-only mode always."""
        self.drop_stuck(now)
        self._more_arrived += 1
        is_free = self.in_progress < self.limit and not self.held
        if not is_free:
            self._was_full = True
            self._begin_storm(now)
        if self.is_storm and self.storm is not None:
            self.storm.arrived += 1
            if not is_free:
                self.storm.held += 1
                self.held_ever += 1
        if is_free or self.policy.observes:
            self._entering += 1
            return True
        return False

    def hold(self, now: float, waiter: Any) -> Arrival | None:
        """Let one wait that has found no place; ``None`` where too many wait."""
        if self.held >= MOST_HELD:
            return None
        self._phase = (self._phase + GOLDEN) % 1.0
        least, most = HOLD
        arrival = Arrival(now, now + least + (most - least) * self._phase, waiter)
        self._fresh.append(arrival)
        heappush(self._by_end, (arrival.give_up_at, id(arrival), arrival))
        self.held += 1
        if self.storm is not None:
            self.storm.most_held = max(self.storm.most_held, self.held)
        return arrival

    def next(self, now: float) -> Arrival | None:
        """Return one that waits and may go on now, with its place taken; ``None`` where there is none."""
        if not self.held or self.in_progress >= self.limit:
            return None
        while self._fresh and (self._fresh[0].is_over or now - self._fresh[0].at >= FRESH):
            arrival = self._fresh.popleft()
            if not arrival.is_over:
                self._old.append(arrival)
        while self._fresh or self._old:
            arrival = (self._fresh or self._old).popleft()
            if not arrival.is_over:
                self._step_out(arrival)
                self._entering += 1
                if self.storm is not None:
                    self.storm.longest_wait = max(self.storm.longest_wait, now - arrival.at)
                return arrival
        return None

    def expired(self, now: float) -> Arrival | None:
        """Return one that has waited for its time, out of the line; ``None`` where there is none."""
        while self._by_end and (self._by_end[0][2].is_over or self._by_end[0][0] <= now):
            arrival = heappop(self._by_end)[2]
            if not arrival.is_over:
                self._step_out(arrival)
                return arrival
        return None

    def any_held(self) -> Arrival | None:
        """Return one that waits, out of the line, whatever its turn; ``None`` where there is none."""
        return self.expired(math.inf)

    def abandon(self, now: float, arrival: Arrival) -> None:
        """Take note that one that waits has gone."""
        if not arrival.is_over:
            self._step_out(arrival)
            if self.storm is not None:
                self.storm.last = now
                self.storm.gone += 1

    def refuse(self, now: float) -> None:
        """Count one that is turned away."""
        self.refused_ever += 1
        if self.storm is not None:
            self.storm.last = now
            self.storm.refused += 1

    # Set-ups

    def begin(self, now: float, key: object) -> None:
        """Take note that the application gets one that has a place."""
        self._entering -= 1
        self._started[key] = now

    def leave(self) -> None:
        """Give back a place that is not taken."""
        self._entering -= 1

    def finish(self, now: float, key: object) -> bool:
        """Take note that the set-up of *key* is over; return whether it was in progress."""
        started = self._started.pop(key, None)
        if started is None:
            return False
        self._more_arrived -= 1
        self._learn(now, now - started)
        return True

    def note_lag(self, now: float, seconds: float) -> None:
        """Take note by how much the event loop is late."""
        if self.is_storm and self.storm is not None:
            self.storm.lag = max(self.storm.lag, seconds)
        more_arrived, self._more_arrived = self._more_arrived, 0
        if seconds > LAG and more_arrived > 0:
            self._samples.clear()
        elif seconds > LAG:
            self._decrease(now)

    def end_storm(self, now: float) -> Storm | None:
        """Return the storm if it has ended by *now*."""
        storm = self.storm
        if storm is None or not self.is_storm or self.held or now - storm.last < QUIET:
            return None
        self.is_storm = False
        return storm

    # The works

    def _begin_storm(self, now: float) -> None:
        if not self.is_storm or self.storm is None:
            self.is_storm = True
            self.storm = Storm(now, now, self.limit, self.limit)
        self.storm.last = now

    def _step_out(self, arrival: Arrival) -> None:
        arrival.is_over = True
        self.held -= 1

    def drop_stuck(self, now: float) -> None:
        """Free the places of set-ups that take too long: a limit must not become an end."""
        while self._started:
            key, started = next(iter(self._started.items()))
            if now - started < STUCK:
                return
            del self._started[key]
            self._learn(now, now - started)

    def _learn(self, now: float, seconds: float) -> None:
        if self.is_storm and self.storm is not None:
            self.storm.count(seconds)
        self._samples.append(seconds)
        if len(self._samples) >= max(SAMPLES, self.limit):
            self._adapt(now, sorted(self._samples))
            self._samples.clear()

    def _adapt(self, now: float, samples: list[float]) -> None:
        typical = samples[len(samples) // 2]
        usual = samples[len(samples) // 4] if self.baseline is None else self.baseline
        is_quiet = not self.is_storm or self.limit <= self._least(self._share)
        if typical < usual:
            usual += 0.5 * (typical - usual)
        elif is_quiet:
            usual += 0.05 * (typical - usual)
        self.baseline = usual
        if typical > TOLERANCE * usual:
            self._decrease(now)
        elif self._was_full and self.policy.limit is None:
            self._limit = min(MOST, self._limit + 1 if self._has_found else 1.25 * self._limit)
        self._was_full = self.held > 0
        self._note_limit()

    def _decrease(self, now: float) -> None:
        # Not again before what follows from it can be seen.
        if self.policy.limit is None and now - self._changed_at >= max(0.1, TOLERANCE * (self.baseline or 0.0)):
            self._changed_at = now
            self._has_found = True
            self._limit = max(self._least(self._share), 0.8 * self._limit)
            self._samples.clear()
            self._note_limit()

    def _note_limit(self) -> None:
        if self.is_storm and self.storm is not None:
            self.storm.lowest = min(self.storm.lowest, self.limit)
            self.storm.highest = max(self.storm.highest, self.limit)

    @staticmethod
    def _least(share: int) -> int:
        return max(1, math.ceil(LEAST / share))
