"""Shedding as one of many tasks: a part of the fleet's budget, and not before the others have begun to drain."""

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import PaceChanged
from starlette_drain._core.fleet_pacing import FleetPacing, FleetView
from starlette_drain._core.pacing import Pacing
from starlette_drain._core.run import Episode
from starlette_drain._core.start_delay import StartDelay, may_be_next, time_to_wait
from starlette_drain._core.state import DrainState
from starlette_drain._engine.engine import Shedding

__all__ = ["FleetShedding"]


class FleetShedding(Shedding):
    """Adapts the pace to what a trigger sees of the other tasks, with ``fleet_rate`` and ``start_delay``."""

    fleet_seen: FleetView | None = None
    """How many targets drain and how many are healthy, as far as somebody has told."""
    _start_before = 0.0
    _stance: str | None = None

    def fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """
        Take note how many tasks there are.

        Args:
            draining: Targets that are being deregistered.
            healthy: Targets that could take new connections in.
            counted: Whether this task's target is among those that drain.
        """
        seen = FleetView(draining, healthy, counted)
        if seen == self.fleet_seen:
            return
        self.fleet_seen = seen
        self.pacing = self._choose()
        if self._episode:
            self._episode.plan.repace(self.time(), self.pacing)
            self._schedule(self._episode)

    def _choose(self) -> Pacing:
        """Return the pace that suits what is known of the fleet: without a word of it, the gentlest there is."""
        seen, limit, pacing = self.fleet_seen, self.settings.fleet_rate, self.own_pacing
        if seen is None:
            return pacing
        if limit is not None:
            pacing = FleetPacing(limit, seen.draining, seen.healthy, seen.to_follow)
        if self._episode and self._start_before and may_be_next(seen.draining, seen.healthy):
            return StartDelay(pacing, self._start_before, seen.healthy)
        return pacing

    def _begin_episode(self, cause: DrainCause, now: float, deadline: float) -> None:
        self._start_before = 0.0
        self.pacing = pacing = self._choose()
        draining, healthy, _ = self.fleet_seen or FleetView(0, 0)
        if self.settings.start_delay and cause.revocable and may_be_next(draining, healthy):
            time_left, needed = deadline - now, 0.0
            if isinstance(pacing, FleetPacing):
                needed = self._registry.remaining * self._share / pacing.part
            wait = time_to_wait(self.settings.start_delay, time_left, needed)
            if wait > 0.0:
                self._start_before = time_left - wait
                self.pacing = StartDelay(pacing, self._start_before, healthy)
        super()._begin_episode(cause, now, deadline)
        if self._episode:
            self._stance = self._episode.plan.stance(now)

    def _schedule(self, episode: Episode) -> None:
        super()._schedule(episode)
        now = self.time()
        stance = episode.plan.stance(now)
        if self._state is DrainState.DRAINING and stance not in (None, self._stance):
            self._stance = stance
            self.emit(PaceChanged(now, episode.drain_id, episode.plan.describe(now)))
