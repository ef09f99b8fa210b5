# This simulates one of the remaining tasks, event by event, with the package's own limit. A handshake takes its usual
# time while no more are in progress than the service handles at once; beyond that it takes longer in proportion, since
# they queue, or by the square if the service slows down. A handshake that its client gives up is still completed: the
# server notices too late.
"""Simulates the clients of crashed tasks that reconnect to the others, without a limit and with one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from starlette_drain._core.admission import HOLD, AdmissionPolicy, Arrival, Gate
from starlette_drain.tools.plan.clients import CLIENTS

__all__ = ["Crash", "Returns", "play"]

LONGEST = 120.0
"""Seconds that are simulated."""

CHECK_INTERVAL = 0.05
"""Seconds between two checks of the arrivals that wait."""

QUIET = 100
"""Handshakes before the crash, from which an adaptive limit learns their usual duration."""


@dataclass(frozen=True, slots=True)
class Crash:
    """
    A crash of tasks.

    Attributes:
        tasks: The tasks of the service before.
        lost: The tasks that crash.
        sessions: The sessions per task.
        set_up: Seconds that the application usually takes for a handshake.
        at_once: The handshakes that a task handles at once before they take longer.
        slows: Whether the service handles fewer in total if there are more.
        clients: The name of the client model.
    """

    tasks: int
    lost: int
    sessions: int
    set_up: float
    at_once: int
    slows: bool
    clients: str

    @property
    def arrive(self) -> int:
        """The clients that reconnect to each remaining task."""
        return math.ceil(self.sessions * self.lost / (self.tasks - self.lost))

    @property
    def rate(self) -> float:
        """The most handshakes per second of a task."""
        return self.at_once / self.set_up

    def troubles(self) -> list[str]:
        """Return the problem that no limit solves, with its remedy."""
        if self.arrive <= (fits := self.rate * HOLD[0]):
            return []
        tasks = self.lost + math.ceil(self.sessions * self.lost / fits)
        remedy = (
            f"{self.arrive:,} come to each task, which sets up {fits:,.0f} in the {HOLD[0]:g} s that arrivals wait. "
            f"The others are refused and retry: run {tasks} tasks of {self.sessions:,} sessions, or set up "
            f"{math.ceil(self.arrive / HOLD[0]):,}/s in each."
        )
        return [remedy]


@dataclass(slots=True)
class Returns:
    """
    How the clients of one task reconnected.

    Attributes:
        back_after: Seconds until the last client was back; infinite if one was not after `LONGEST`.
        not_back: The clients that were not back by then.
        p99: Seconds of a handshake, at the 99th percentile.
        gave_up: The attempts that clients gave up.
        refused: The attempts that were refused.
        most: The most handshakes in progress at once.
    """

    back_after: float = 0.0
    not_back: int = 0
    p99: float = 0.0
    gave_up: int = 0
    refused: int = 0
    most: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "back_after": round(self.back_after, 3) if math.isfinite(self.back_after) else None,
            "not_back": self.not_back,
            "set_up_p99": round(self.p99, 4),
            "gave_up": self.gave_up,
            "refused": self.refused,
            "most_in_progress": self.most,
        }


@dataclass(slots=True, eq=False)
class _Client:
    """A client and its current attempt."""

    own: float
    attempt: int = 0
    tried: int = 0
    is_back: bool = False


def play(crash: Crash, policy: AdmissionPolicy | None, seed: int) -> Returns:
    """Simulate one remaining task with the limit of *policy*, or without a limit."""
    return _Play(crash, policy or AdmissionPolicy(1, observes=True), seed).run()


class _Play:
    def __init__(self, crash: Crash, policy: AdmissionPolicy, seed: int) -> None:
        self._crash = crash
        self._gate = Gate(policy)
        self._rng = Random(seed)
        self._come_back = CLIENTS[crash.clients]
        self._patience = self._come_back.patience or math.inf
        self._found = Returns()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._times: list[float] = []
        self._left = crash.arrive

    def run(self) -> Returns:
        for _ in range(QUIET):
            self._gate.enter(-1.0)
            self._gate.begin(-1.0, self)
            self._gate.finish(-1.0 + self._crash.set_up, self)
        for _ in range(self._crash.arrive):
            self._return(0.0, _Client(self._rng.random()))
        self._at(CHECK_INTERVAL, self._check_waiting)
        now = 0.0
        while self._events and self._left:
            now, _, happens = heappop(self._events)
            if now > LONGEST:
                break
            happens(now)
        found, times = self._found, sorted(self._times)
        found.not_back = self._left
        found.back_after = now if not self._left else math.inf
        found.p99 = times[math.ceil(0.99 * len(times)) - 1] if times else 0.0
        return found

    def _at(self, moment: float, happens: Callable[[float], None]) -> None:
        heappush(self._events, (moment, next(self._order), happens))

    def _return(self, now: float, client: _Client) -> None:
        wait = self._come_back(client.attempt, client.own, self._rng)
        client.attempt += 1
        self._at(now + wait, lambda moment: self._arrive(moment, client))

    def _arrive(self, now: float, client: _Client) -> None:
        client.tried += 1
        number = client.tried
        self._at(now + self._patience, lambda moment: self._give_up(moment, client, number))
        if self._gate.enter(now):
            self._begin(now, client, number)
        elif self._gate.hold(now, (client, number)) is None:
            self._refuse(now, client, number)

    def _give_up(self, now: float, client: _Client, number: int) -> None:
        if not client.is_back and client.tried == number:
            client.tried += 1
            self._found.gave_up += 1
            self._return(now, client)

    def _begin(self, now: float, client: _Client, number: int) -> None:
        key = object()
        self._gate.begin(now, key)
        most = self._gate.in_progress
        self._found.most = max(self._found.most, most)
        takes = self._crash.set_up * max(1.0, most / self._crash.at_once) ** (2 if self._crash.slows else 1)
        self._at(now + takes, lambda moment: self._finish(moment, key, takes, client, number))

    def _finish(self, now: float, key: object, took: float, client: _Client, number: int) -> None:
        self._times.append(took)
        if not client.is_back and client.tried == number:
            client.is_back = True
            self._left -= 1
        if self._gate.finish(now, key):
            self._let_in(now)

    def _refuse(self, now: float, client: _Client, number: int) -> None:
        self._gate.refuse(now)
        if client.tried == number and not client.is_back:
            client.tried += 1
            self._found.refused += 1
            self._return(now, client)

    def _check_waiting(self, now: float) -> None:
        while (arrival := self._gate.expired(now)) is not None:
            self._refuse(now, *arrival.waiter)
        self._gate.drop_stuck(now)
        self._let_in(now)
        self._at(now + CHECK_INTERVAL, self._check_waiting)

    def _let_in(self, now: float) -> None:
        arrival: Arrival | None
        while (arrival := self._gate.next(now)) is not None:
            self._begin(now, *arrival.waiter)
