# How arrivals are limited.
#
# After a neighbouring task has crashed, what overloads this one is not the number of its sessions but the number of
# handshakes in progress. Each waits for a database or another service, and all of them slow down together until the
# clients give up and retry, and the work done for them is wasted. So the set-ups in progress are limited. A set-up
# lasts from the moment at which the application gets the request until it accepts (or sends the head of a response).
#
# If the limit is reached, a new handshake is held: every client waits for its handshake. The order is chosen so that
# as many clients as possible are still there when their turn comes:
#
#   1. Handshakes younger than FRESH, oldest first. The most impatient clients (such as partysocket) give up after 4 s,
#      and no order serves them better before that.
#   2. Then older ones, oldest first: most clients wait for 10 s.
#
# A handshake held for too long is refused. The time varies from 6 to 9 s, so that clients that arrived together are not
# refused together.
#
# The limit is fixed or adaptive. An adaptive limit increases while it is reached and set-ups are fast: by a quarter
# until the first decrease, by one after that. It decreases by a fifth if the typical set-up takes TOLERANCE times as
# long as in quiet times, or if the set-ups make the event loop lag. While more handshakes arrive than are set up, a lag
# proves nothing: the server reads their requests whatever the limit. The duration in quiet times (the baseline) is
# learned: it follows a decrease fast and an increase slowly, and increases only when there is no storm or the limit is
# at its minimum, where set-ups take as long as in quiet times.
"""Decides how many handshakes may be in progress, which goes on next, and which have waited too long."""

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
"""Seconds that even the most impatient client waits for its handshake."""

HOLD = 6.0, 9.0
"""Seconds after which a held handshake is refused: the shortest and the longest time."""

MOST_HELD = 20_000
"""The most handshakes held at once in one process: each takes a socket and a few kilobytes."""

STUCK = 5.0
"""Seconds after which a set-up no longer counts: an application may wait for something before it accepts."""

QUIET = 5.0
"""A storm is over after this many seconds in which no handshake had to wait."""

FIRST, LEAST, MOST = 8, 4, 1000
"""An adaptive limit: its initial value in each process, and its bounds."""

TOLERANCE = 1.6
"""How many times as long as in quiet times the typical set-up may take. Hardly any then takes three times as long."""

LAG = 0.1
"""Seconds of event-loop lag above which an adaptive limit decreases."""

SAMPLES = 12
"""The fewest set-ups after which an adaptive limit is adjusted; a higher limit waits for as many set-ups as itself."""

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """
    The parsed option ``admission``.

    Attributes:
        limit: The most handshakes in progress in the whole task; ``None`` for an adaptive limit.
        observes: Whether to count only, and hold none.
        closes: Whether to refuse a session that has close codes by accepting it and closing it with 1013.
    """

    limit: int | None = None
    observes: bool = False
    closes: bool = False


def parse_admission(text: str) -> Any:
    """Parse *text* to a policy; return *text* unchanged, for validation to reject, if it is not one."""
    first, *others = text.strip().lower().split(":")
    if first == "observe" and not others:
        return AdmissionPolicy(observes=True)
    if not (first == "auto" or (first.isdecimal() and int(first) > 0)) or not set(others) <= {"observe", "close"}:
        return text
    return AdmissionPolicy(None if first == "auto" else int(first), "observe" in others, "close" in others)


@dataclass(slots=True, eq=False)
class Arrival:
    """A held handshake: since when, until when, and the future to resolve for it."""

    at: float
    give_up_at: float
    waiter: Any
    is_done: bool = False


@dataclass(slots=True)
class Storm:
    """
    The figures of one period in which handshakes had to wait.

    Attributes:
        began: When the first had to wait.
        last: When the latest had to wait, was refused or gave up.
        lowest: The lowest limit in this process.
        highest: The highest limit in this process.
        arrived: Handshakes that arrived.
        set_up: Those of them that the application accepted or refused itself.
        held: Those that had to wait; in observe-only mode those that would have had to.
        refused: Those that were refused.
        gone: Those that were cancelled while they waited.
        most_held: The most that waited at once.
        longest_wait: The longest wait of one that went on, in seconds.
        lag: The longest lag of the event loop, in seconds.
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
        """Count a set-up that took *seconds*."""
        self.set_up += 1
        self._times[math.ceil(20 * math.log(max(seconds, 1e-4)))] += 1

    def p99(self) -> float:
        """Return the 99th percentile of the set-up times in seconds, within 5 %; 0 if there were none."""
        left = self.set_up / 100
        for step, count in sorted(self._times.items(), reverse=True):
            left -= count
            if left <= 0:
                return math.exp(step / 20)
        return 0.0

    def rate(self, now: float) -> float:
        """Return the set-ups per second until *now*."""
        return self.set_up / max(1.0, now - self.began)


class Gate:
    """
    Counts the set-ups in progress and orders the handshakes that wait. It reads no clock: *now* is in seconds.

    Args:
        policy: The parsed option ``admission``.
    """

    def __init__(self, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self.storm = Storm(-math.inf, -math.inf, FIRST, FIRST)
        """The current storm, or the last one; empty before the first."""
        self.is_storm = False
        self.held_ever = self.refused_ever = 0
        self.held = 0
        self.baseline: float | None = None
        """Seconds that the typical set-up takes in quiet times."""
        self._share = 1
        self._limit = float(FIRST)
        self._has_found = False
        """Whether the limit has been too high once: from then on it is near the right value, and grows by one."""
        self._started: dict[object, float] = {}
        """The set-ups in progress, oldest first."""
        self._entering = 0
        """Handshakes that have a place but have not reached the application yet."""
        self._fresh: deque[Arrival] = deque()
        self._old: deque[Arrival] = deque()
        self._by_end: list[tuple[float, int, Arrival]] = []
        self._phase = 0.0
        self._samples: list[float] = []
        self._was_full = False
        self._more_arrived = 0
        """Arrivals minus set-ups since the lag of the event loop was last measured."""
        self._changed_at = -math.inf

    @property
    def limit(self) -> int:
        """The most set-ups that may be in progress in this process."""
        if self.policy.limit is not None:
            return max(1, math.ceil(self.policy.limit / self._share))
        return int(self._limit)

    @property
    def in_progress(self) -> int:
        """The number of set-ups in progress."""
        return len(self._started) + self._entering

    def divide(self, share: int) -> None:
        """Divide the limit among *share* processes, which share the arrivals of the task."""
        if self.policy.limit is None:
            self._limit = min(MOST, max(self._minimum(share), self._limit * self._share / share))
        self._share = share

    # Arrivals

    def enter(self, now: float) -> bool:
        """
        Take a place for a new arrival; return whether there was one.

        There is none if the limit is reached or others wait. In observe-only mode there always is.
        """
        self.drop_stuck(now)
        self._more_arrived += 1
        is_free = self.in_progress < self.limit and not self.held
        if not is_free:
            self._was_full = True
            self._begin_storm(now)
        if self.is_storm:
            self.storm.arrived += 1
            if not is_free:
                self.storm.held += 1
                self.held_ever += 1
        if is_free or self.policy.observes:
            self._entering += 1
            return True
        return False

    def hold(self, now: float, waiter: Any) -> Arrival | None:
        """Queue an arrival that found no place; return ``None`` if too many wait already."""
        if self.held >= MOST_HELD:
            return None
        self._phase = (self._phase + GOLDEN) % 1.0
        least, most = HOLD
        arrival = Arrival(now, now + least + (most - least) * self._phase, waiter)
        self._fresh.append(arrival)
        heappush(self._by_end, (arrival.give_up_at, id(arrival), arrival))
        self.held += 1
        self.storm.most_held = max(self.storm.most_held, self.held)
        return arrival

    def next(self, now: float) -> Arrival | None:
        """Take a place for the next arrival in the queue, and return it; ``None`` if none waits or no place is free."""
        if not self.held or self.in_progress >= self.limit:
            return None
        while self._fresh and (self._fresh[0].is_done or now - self._fresh[0].at >= FRESH):
            arrival = self._fresh.popleft()
            if not arrival.is_done:
                self._old.append(arrival)
        while self._fresh or self._old:
            arrival = (self._fresh or self._old).popleft()
            if not arrival.is_done:
                self._remove(arrival)
                self._entering += 1
                self.storm.longest_wait = max(self.storm.longest_wait, now - arrival.at)
                return arrival
        return None

    def expired(self, now: float) -> Arrival | None:
        """Remove an arrival that has waited too long from the queue, and return it; ``None`` if there is none."""
        while self._by_end and (self._by_end[0][2].is_done or self._by_end[0][0] <= now):
            arrival = heappop(self._by_end)[2]
            if not arrival.is_done:
                self._remove(arrival)
                return arrival
        return None

    def any_held(self) -> Arrival | None:
        """Remove any arrival from the queue, and return it; ``None`` if none waits."""
        return self.expired(math.inf)

    def abandon(self, now: float, arrival: Arrival) -> None:
        """Remove *arrival* from the queue: it was cancelled."""
        if not arrival.is_done:
            self._remove(arrival)
            self.storm.last = now
            self.storm.gone += 1

    def refuse(self, now: float) -> None:
        """Count a refusal."""
        self.refused_ever += 1
        self.storm.last = now
        self.storm.refused += 1

    # Set-ups

    def begin(self, now: float, key: object) -> None:
        """Turn a place that was taken into the set-up of *key*: the application gets the request."""
        self._entering -= 1
        self._started[key] = now

    def leave(self) -> None:
        """Give back a place that will not be used."""
        self._entering -= 1

    def finish(self, now: float, key: object) -> bool:
        """End the set-up of *key*; return whether it was in progress."""
        started = self._started.pop(key, None)
        if started is None:
            return False
        self._more_arrived -= 1
        self._learn(now, now - started)
        return True

    def note_lag(self, now: float, seconds: float) -> None:
        """Record that the event loop lags by *seconds*."""
        if self.is_storm:
            self.storm.lag = max(self.storm.lag, seconds)
        more_arrived, self._more_arrived = self._more_arrived, 0
        if seconds > LAG and more_arrived > 0:
            self._samples.clear()
        elif seconds > LAG:
            self._decrease(now)

    def end_storm(self, now: float) -> Storm | None:
        """Return the storm if it has ended by *now*."""
        if not self.is_storm or self.held or now - self.storm.last < QUIET:
            return None
        self.is_storm = False
        return self.storm

    # Internals

    def _begin_storm(self, now: float) -> None:
        if not self.is_storm:
            self.is_storm = True
            self.storm = Storm(now, now, self.limit, self.limit)
        self.storm.last = now

    def _remove(self, arrival: Arrival) -> None:
        arrival.is_done = True
        self.held -= 1

    def drop_stuck(self, now: float) -> None:
        """Free the places of set-ups that take too long, so that applications that hang do not block all arrivals."""
        while self._started:
            key, started = next(iter(self._started.items()))
            if now - started < STUCK:
                return
            del self._started[key]
            self._learn(now, now - started)

    def _learn(self, now: float, seconds: float) -> None:
        if self.is_storm:
            self.storm.count(seconds)
        self._samples.append(seconds)
        if len(self._samples) >= max(SAMPLES, self.limit):
            self._adapt(now, sorted(self._samples))
            self._samples.clear()

    def _adapt(self, now: float, samples: list[float]) -> None:
        typical = samples[len(samples) // 2]
        baseline = samples[len(samples) // 4] if self.baseline is None else self.baseline
        is_quiet = not self.is_storm or self.limit <= self._minimum(self._share)
        if typical < baseline:
            baseline += 0.5 * (typical - baseline)
        elif is_quiet:
            baseline += 0.05 * (typical - baseline)
        self.baseline = baseline
        if typical > TOLERANCE * baseline:
            self._decrease(now)
        elif self._was_full and self.policy.limit is None:
            self._limit = min(MOST, self._limit + 1 if self._has_found else 1.25 * self._limit)
        self._was_full = self.held > 0
        self._note_limit()

    def _decrease(self, now: float) -> None:
        # The last decrease must have time to take effect.
        if self.policy.limit is None and now - self._changed_at >= max(0.1, TOLERANCE * (self.baseline or 0.0)):
            self._changed_at = now
            self._has_found = True
            self._limit = max(self._minimum(self._share), 0.8 * self._limit)
            self._samples.clear()
            self._note_limit()

    def _note_limit(self) -> None:
        if self.is_storm:
            self.storm.lowest = min(self.storm.lowest, self.limit)
            self.storm.highest = max(self.storm.highest, self.limit)

    @staticmethod
    def _minimum(share: int) -> int:
        return max(1, math.ceil(LEAST / share))
