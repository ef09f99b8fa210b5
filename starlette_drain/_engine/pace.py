"""Chooses the pacing of a drain: the option, a part of the fleet's budget, or a wait before either."""

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.fleet_pacing import FleetPacing, FleetView
from starlette_drain._core.pacing import EvenPacing, Pacing
from starlette_drain._core.settings import Settings
from starlette_drain._core.start_delay import StartDelay, may_be_next, time_to_wait

__all__ = ["Pace"]


class Pace:
    """
    Chooses the pacing from the options ``pacing`` and ``start_delay``, and from what a trigger sees of other tasks.

    Args:
        settings: The validated options.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._start_before = 0.0
        self.seen: FleetView | None = None
        """How many targets drain and how many are healthy, if a trigger has found out."""

    def begin(self, cause: DrainCause, time_left: float, sessions: int) -> Pacing:
        """Return the pacing of a drain that begins now, with *sessions* in the whole task to close."""
        self._start_before = 0.0
        pacing = self.choose()
        draining, healthy, _ = self.seen or FleetView(0, 0)
        if not (self._settings.start_delay and cause.revocable and may_be_next(draining, healthy)):
            return pacing
        needed = sessions / pacing.part if isinstance(pacing, FleetPacing) else 0.0
        wait = time_to_wait(self._settings.start_delay, time_left, needed)
        if wait <= 0.0:
            return pacing
        self._start_before = time_left - wait
        return StartDelay(pacing, self._start_before, healthy)

    def choose(self) -> Pacing:
        """Return the pacing for the fleet as it is known. Until it is, a fleet budget is replaced by even pacing."""
        seen, limit, pacing = self.seen, self._settings.fleet_rate, self._settings.pacing
        if limit is not None:
            pacing = FleetPacing(limit, seen.draining, seen.healthy, seen.to_follow) if seen else EvenPacing()
        if seen is None:
            return pacing
        if self._start_before and may_be_next(seen.draining, seen.healthy):
            return StartDelay(pacing, self._start_before, seen.healthy)
        return pacing

    def end(self) -> None:
        """Forget the start delay: the drain is over."""
        self._start_before = 0.0
