"""Shedding as one of many tasks: a part of the fleet's budget, and not before the others have begun to drain."""

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.episode import Episode
from starlette_drain._core.facts import PaceChanged
from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain._core.pacing import Pacing
from starlette_drain._core.start_delay import StartDelay, may_be_next, time_to_wait
from starlette_drain._core.state import DrainState
from starlette_drain.shedding import Shedding

__all__ = ["FleetShedding"]


class FleetShedding(Shedding):
    """Adapts the pace to what a trigger sees of the other tasks, with ``fleet_rate`` and ``start_delay``."""

    fleet_seen: tuple[int, int] | None = None
    """How many targets drain and how many are healthy, as far as somebody has told."""
    _start_before = 0.0
    _stance: str | None = None

    def fleet(self, draining: int, healthy: int) -> None:
        """
        Take note how many tasks there are.

        Args:
            draining: Targets that are being deregistered, this task's included.
            healthy: Targets that could take new connections in.
        """
        if self.fleet_seen == (draining, healthy):
            return
        self.fleet_seen = draining, healthy
        self.pacing = self._choose()
        if self._episode:
            self._episode.plan.repace(self.time(), self.pacing)
            self._schedule(self._episode)

    def _choose(self) -> Pacing:
        """Return the pace that suits what is known of the fleet."""
        draining, healthy = self.fleet_seen or (1, None)
        pacing, limit = self.settings.pacing, self.settings.fleet_rate
        if limit is not None:
            pacing = FleetPacing(limit, max(1, draining), healthy)
        if self._episode and self._start_before and healthy is not None and may_be_next(draining, healthy):
            return StartDelay(pacing, self._start_before, healthy)
        return pacing

    def _begin_episode(self, cause: DrainCause, now: float, deadline: float) -> None:
        self._start_before = 0.0
        self.pacing = pacing = self._choose()
        draining, healthy = self.fleet_seen or (0, 0)
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
            self.tell(PaceChanged(now, episode.drain_id, episode.plan.describe(now)))
