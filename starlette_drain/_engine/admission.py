"""Limits the handshakes in progress on one event loop: who waits, who goes on, who is turned away."""

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
"""Seconds between two looks at those that wait, and at how late the event loop is."""

CALM_TICK = 0.5
"""The same where none waits, until the storm is over."""

SLICE = 10
"""How many are turned away in one look: each costs as much as a handshake."""

TOLD_EVERY = 1.0
"""Seconds between two events of a storm."""


class Admission:
    """
    The set-ups in progress of one event loop, and the handshakes that wait for their turn.

    A handshake that has waited goes on in one step: from `wait` to `begin`, which takes the place that was kept.

    Args:
        policy: What the option says.
        loop: The event loop.
        admits: Tells whether the drain lets new sessions in; where it does not, none is held.
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
        self._timer = Timer(self._look)
        self._look_at = 0.0
        self._told_at = 0.0
        self._is_entering = False
        """Whether one has a place, and is on its way to `begin`."""

    def enter(self) -> bool:
        """Take a place for one that has arrived; return False if it has to wait."""
        now = self._loop.time()
        was_storm = self._gate.is_storm
        self._is_entering = self._gate.enter(now)
        if self._gate.is_storm and not was_storm:
            self._told_at = now
            if not self.policy.observes:
                self._freeze.begin(now)
            self._emit(events.StormBegan(now, self._gate.limit, self._gate.in_progress, self.policy.observes))
            self._look_in(TICK)
        return self._is_entering

    async def wait(self) -> bool:
        """Wait for a place, and take it; return False if there was none in time."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        arrival = self._gate.hold(self._loop.time(), waiter)
        if arrival is None:
            return False
        self._look_in(TICK)
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
        """Give back the place: the drain has it now."""
        if self._is_entering:
            self._is_entering = False
            self._gate.leave()

    def begin(self, connection: object) -> bool:
        """Take note that the application gets *connection*; return whether a place was kept for it."""
        if not self._is_entering:
            return False
        self._is_entering = False
        self._gate.begin(self._loop.time(), connection)
        return True

    def finish(self, connection: object) -> None:
        """Take note that *connection* is set up, or over: the next one may go on."""
        if self._gate.finish(self._loop.time(), connection):
            self._let_in()

    def refused(self) -> None:
        """Count one that is turned away."""
        self._gate.refuse(self._loop.time())

    def rate(self) -> float | None:
        """Return how many set-ups there are per second in the present storm."""
        storm = self._gate.storm
        return storm.rate(self._loop.time()) if storm.set_up else None

    def divide(self, share: int) -> None:
        """Take note that *share* processes have the task's arrivals among them."""
        self._gate.divide(share)

    def end(self) -> None:
        """Leave the process as it was: the application is about to end."""
        self._freeze.end()

    def status(self) -> dict[str, float]:
        """Return the figures of this moment."""
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
        if goes_on:  # it was cancelled, and has not noticed yet
            self._gate.leave()

    def _look_in(self, seconds: float) -> None:
        moment = self._loop.time() + seconds
        if not self._timer.is_set or moment < self._look_at:
            self._look_at = moment
            self._timer.set(self._loop, moment)

    def _look(self) -> None:
        gate, now = self._gate, self._loop.time()
        gate.note_lag(now, now - self._look_at)
        if not self._admits():
            # The drain refuses them, in its own words.
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
        if now - self._told_at >= TOLD_EVERY:
            self._told_at = now
            self._emit(events.StormProgressed(now, gate.limit, gate.in_progress, gate.held))
        if gate.is_storm:
            self._look_in(TICK if gate.held else CALM_TICK)
