"""Limits the handshakes in progress on one event loop: which wait, which go on, which are refused."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette_drain._core import events
from starlette_drain._core.admission import AdmissionPolicy, Arrival, Gate
from starlette_drain._engine.garbage import Freeze
from starlette_drain._engine.timer import Timer

__all__ = ["Admission"]

TICK = 0.05
"""Seconds between two checks of the queue and of the event loop's lag, while handshakes wait."""

CALM_TICK = 0.5
"""Seconds between two checks while none waits, until the storm is over."""

SLICE = 10
"""The most handshakes refused in one check: each refusal costs as much as a handshake."""

PROGRESS_INTERVAL = 1.0
"""Seconds between two `StormProgressed` events."""


class Admission:
    """
    The set-ups in progress on one event loop, and the handshakes that wait for their turn.

    A caller must not await anything between `enter` or `wait` and the `begin` that uses the place.

    Args:
        policy: The parsed option ``admission``.
        loop: The event loop.
        admits: Returns whether the drain accepts new sessions; while it does not, none is held.
        emit: Sends an event to the observers.
    """

    def __init__(
        self,
        policy: AdmissionPolicy,
        loop: asyncio.AbstractEventLoop,
        admits: Callable[[], bool],
        emit: Callable[[events.Event], None],
    ) -> None:
        self.policy = policy
        self._loop = loop
        self._admits = admits
        self._emit = emit
        self._gate = Gate(policy)
        self._freeze = Freeze()
        self._timer = Timer(self._check)
        self._check_at = 0.0
        self._reported_at = 0.0
        self._is_entering = False
        """Whether a handshake has a place and has not reached `begin` yet."""

    def enter(self) -> bool:
        """Take a place for a new arrival; return False if it has to wait."""
        now = self._loop.time()
        was_storm = self._gate.is_storm
        self._is_entering = self._gate.enter(now)
        if self._gate.is_storm and not was_storm:
            self._reported_at = now
            if not self.policy.observes:
                self._freeze.begin(now)
            self._emit(events.StormBegan(now, self._gate.limit, self._gate.in_progress, self.policy.observes))
            self._check_in(TICK)
        return self._is_entering

    async def wait(self) -> bool:
        """Wait for a place and take it; return False if there was none in time."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        arrival = self._gate.hold(self._loop.time(), waiter)
        if arrival is None:
            return False
        self._check_in(TICK)
        try:
            self._is_entering = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._gate.leave()
            self._gate.abandon(self._loop.time(), arrival)
            self._let_in()
            raise
        return self._is_entering

    def leave(self) -> None:
        """Give back the place: the drain refuses the handshake."""
        if self._is_entering:
            self._is_entering = False
            self._gate.leave()

    def begin(self, connection: object) -> bool:
        """Begin the set-up of *connection* in the place taken for it; return whether there was one."""
        if not self._is_entering:
            return False
        self._is_entering = False
        self._gate.begin(self._loop.time(), connection)
        return True

    def finish(self, connection: object) -> None:
        """End the set-up of *connection*, if it has one, and let the next handshake go on."""
        if self._gate.finish(self._loop.time(), connection):
            self._let_in()

    def refuse(self) -> float | None:
        """Count a refusal; return the set-ups per second in this storm, or ``None`` if there were none."""
        now, storm = self._loop.time(), self._gate.storm
        self._gate.refuse(now)
        return storm.rate(now) if storm.set_up else None

    def divide(self, share: int) -> None:
        """Divide the limit among *share* processes, which share the arrivals of the task."""
        self._gate.divide(share)

    def end(self) -> None:
        """Undo the garbage-collector freeze: the application is about to end."""
        self._freeze.end()

    def status(self) -> dict[str, float]:
        """Return the current figures for ``GET /drain``."""
        gate = self._gate
        return {
            "limit": gate.limit,
            "in_progress": gate.in_progress,
            "held": gate.held,
            "held_ever": gate.held_ever,
            "refused_ever": gate.refused_ever,
        }

    # Internals

    def _let_in(self) -> None:
        now = self._loop.time()
        while (arrival := self._gate.next(now)) is not None:
            self._wake(arrival, goes_on=True)

    def _wake(self, arrival: Arrival, *, goes_on: bool) -> None:
        waiter: Any = arrival.waiter
        with suppress(asyncio.InvalidStateError):
            waiter.set_result(goes_on)
            return
        if goes_on:  # its task was cancelled, but has not run yet
            self._gate.leave()

    def _check_in(self, seconds: float) -> None:
        moment = self._loop.time() + seconds
        if not self._timer.is_set or moment < self._check_at:
            self._check_at = moment
            self._timer.set(self._loop, moment)

    def _check(self) -> None:
        """Runs from the beginning of a storm until its end."""
        gate, now = self._gate, self._loop.time()
        gate.note_lag(now, now - self._check_at)
        if not self._admits():
            # Wake them, so that the drain refuses them with its own response.
            for _ in range(SLICE):
                if (arrival := gate.any_held()) is not None:
                    self._wake(arrival, goes_on=False)
        for _ in range(SLICE):
            if (arrival := gate.expired(now)) is not None:
                self._wake(arrival, goes_on=False)
        gate.drop_stuck(now)
        self._let_in()
        self._freeze.go_on(now)
        if (storm := gate.end_storm(now)) is not None:
            self._freeze.end()
            self._emit(events.StormEnded(now, storm, gate.limit, self.policy.observes))
            return
        if now - self._reported_at >= PROGRESS_INTERVAL:
            self._reported_at = now
            self._emit(events.StormProgressed(now, gate.limit, gate.in_progress, gate.held))
        self._check_in(TICK if gate.held else CALM_TICK)
