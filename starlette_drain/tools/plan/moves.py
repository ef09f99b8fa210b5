"""Simulates moves of sessions without a deployment: a rotation of all tasks, or the rebalance after a scale-out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain._core.pacing import Pacing, RateCapPacing
from starlette_drain._core.session import Session
from starlette_drain._core.turnover import LONGEST_ROTATION, Rotation, TurnoverPlan
from starlette_drain.aws.sources.rebalance import HEADROOM

__all__ = ["Move", "rotation", "scale_out"]

MOST = 20_000
"""The most sessions that are simulated; if there are more, each stands for several."""

ENOUGH = 400
"""The approximate number of sessions per interval: with fewer, chance would hide the load."""


@dataclass(frozen=True, slots=True)
class Move:
    """
    A move of sessions.

    Attributes:
        sessions: The sessions that are asked to leave, over all tasks.
        window: Seconds over which they leave.
        rate: The reconnects per second.
        peak: The reconnects per second in the busiest interval.
        facts: Further values, by name.
        troubles: The problems, each with its remedy.
    """

    sessions: int
    window: float
    rate: float
    peak: float
    facts: dict[str, Any]
    troubles: tuple[str, ...]


def rotation(tasks: int, sessions: int, window: float, *, pacing: Pacing, wish: float | None, seed: int) -> Move:
    """Return the move of a rotation of all *tasks*, each with *sessions* sessions, over *window* seconds."""
    limit = pacing.limit if isinstance(pacing, FleetPacing | RateCapPacing) else math.inf
    takes = max(window, sessions / limit)
    rate, peak = tasks * sessions / takes, _play(tasks, sessions, takes, seed)
    troubles = [*_too_fast(rate, wish, f"rotate over {tasks * sessions / wish:,.0f} s" if wish else "")]
    if takes > LONGEST_ROTATION:
        least = math.ceil(sessions / LONGEST_ROTATION)
        over = max(window, math.ceil(sessions / least))
        troubles.append(
            f"A rotation takes at most {LONGEST_ROTATION:,.0f} s: "
            f"raise the limit to rate:{least} and rotate over {over:,.0f} s."
        )
    elif takes > window:
        troubles.append(f"At {limit:g}/s in each task the rotation takes longer: rotate over {math.ceil(takes):,} s.")
    return Move(tasks * sessions, takes, rate, peak, {"each_task": round(sessions / takes, 3)}, tuple(troubles))


def scale_out(before: int, after: int, sessions: int, *, pacing: Pacing, wish: float | None, seed: int) -> Move:
    """Return the move of the rebalance when *before* tasks, each with *sessions* sessions, become *after* tasks."""
    share = 1.0 - before / after
    moved = round(before * sessions * share)
    limit = pacing.limit if isinstance(pacing, FleetPacing) else None
    window = max(1.0, moved / (HEADROOM * limit)) if limit else math.inf
    returns = moved / after
    facts = {
        "share": round(share, 4),
        "in_each_task": round(before * sessions / after),
        # With round robin, each task gets back as many as any other.
        "by_round_robin": round((sessions - sessions * share + returns) / returns, 2) if moved else 1.0,
    }
    troubles = [*_too_fast(limit or 0.0, wish, f"set pacing to fleet:{wish:g}" if wish else "")]
    if limit is None:
        budget = f"fleet:{wish:g}" if wish else "fleet:500, or as many as the service can take"
        troubles.append(f"Nothing moves: rebalance=True needs pacing={budget}.")
    peak = _play(before, round(sessions * share), window, seed) if limit else 0.0
    return Move(moved, window, moved / window, peak, facts, tuple(troubles))


def _too_fast(rate: float, wish: float | None, remedy: str) -> Iterator[str]:
    if wish is not None and rate > wish * (1 + 1e-9):
        yield f"{rate:,.0f} reconnects/s exceed the {wish:g}/s that you want: {remedy}."


def _play(tasks: int, sessions: int, window: float, seed: int) -> float:
    """Return the sheds per second in the busiest interval, with the package's own plan in each task."""
    stands_for = max(1, math.ceil(tasks * sessions / MOST))
    number = sessions // stands_for
    if not number:
        return tasks * sessions / window
    stretch = max(1.0, window * ENOUGH / (tasks * number))
    counts: dict[int, int] = {}
    for task in range(tasks):
        plan = TurnoverPlan(None, Random(seed + task))
        plan.rotate(Rotation(0.0, window), [Session("/", 0.0) for _ in range(number)], 0.0)
        while (moment := plan.ask_at) is not None:
            place = int(moment // stretch)
            counts[place] = counts.get(place, 0) + len(plan.due(moment, 1))
    whole = [counts.get(place, 0) for place in range(max(1, int(window // stretch)))]
    return max(whole) * stands_for / stretch
