"""What to change so that a service can take what comes back, where only a simulation tells."""

import math

from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain._core.pacing import EvenPacing, Pacing
from starlette_drain.tools.plan.clients import CLIENTS, ComeBack
from starlette_drain.tools.plan.rehearsal import rehearse
from starlette_drain.tools.plan.sums import Fleet

__all__ = ["faster", "is_too_fast", "roomier", "slower"]

BY_CHANCE = 1.2
"""How much more than the wish a single second may have, by chance."""

HEADROOM = 0.8
"""Part of what a service accepts that is tried first, and by which each next try is slower: arrivals are random."""

TRIES = 8
"""Tries to find a rate at which no attempt is refused."""


def is_too_fast(peak: float, pacing: Pacing, wish: float) -> bool:
    """Return whether a *peak* of closes is more than the *wish* because of the pacing, not of the time."""
    keeps = isinstance(pacing, EvenPacing) or (isinstance(pacing, FleetPacing) and pacing.limit <= wish)
    return not keeps and peak > BY_CHANCE * wish


def faster(fleet: Fleet, pacing: Pacing, wish: float) -> float | None:
    """Return the most closes per second, if the pacing makes them too fast in a deployment that can begin."""
    if not is_too_fast(math.inf, pacing, wish):
        return None
    peak = rehearse(fleet.worst, CLIENTS["full-jitter"], pacing=pacing).peak_closes
    return peak if is_too_fast(peak, pacing, wish) else None


def slower(fleet: Fleet, pacing: Pacing, wish: float, *, even: str = "use even") -> list[str]:
    """
    Return what to set so that no more than *wish* come back a second: any one of the remedies will do.

    Args:
        fleet: As it is.
        pacing: As the option. One that sheds faster than the deadline needs uses no more time than before.
        wish: Per second.
        even: How to set the even pace.
    """
    return [text if faster(cure, pacing, wish) is None else f"{even}, and {text}" for text, cure in fleet.cures(wish)]


def roomier(fleet: Fleet, pacing: Pacing, accepts: float, come_back: ComeBack, seed: int) -> list[str]:
    """Return what to set so that a service which *accepts* so many attempts a second refuses none; empty if unknown."""

    def suffices(cure: Fleet, pace: Pacing) -> bool:
        return not rehearse(cure.worst, come_back, pacing=pace, accepts=accepts, seed=seed).refused

    paces = [("", pacing)]
    if not isinstance(pacing, EvenPacing):
        if suffices(fleet, EvenPacing()):
            return ["use even"]
        paces.append(("use even, and ", EvenPacing()))
    rate = min(accepts, fleet.rate)
    for _ in range(TRIES):
        rate *= HEADROOM
        played = [
            next((f"{also}{text}" for also, pace in paces if suffices(cure, pace)), "")
            for text, cure in fleet.cures(rate)
        ]
        if found := [*filter(None, played)]:
            return found
    return []
