"""How clients come back, after the libraries that real ones use: pure, randomness is passed in."""

from collections.abc import Callable
from random import Random

__all__ = ["CLIENTS", "ComeBack"]

ComeBack = Callable[[int, float, Random], float]
"""Seconds before an attempt: its number from 0, something that a client draws once (0 to 1), and the randomness."""

PHOENIX = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.0)


def _at_once(attempt: int, own: float, rng: Random) -> float:  # noqa: ARG001
    """Python's websockets: at once, then up to 5 s at random, then 3.1 s times 1.618 each, 90 s at the most."""
    if attempt < 2:
        return 5.0 * rng.random() * attempt
    return min(90.0, 3.1 * 1.618 ** (attempt - 2))


def _phoenix(attempt: int, own: float, rng: Random) -> float:  # noqa: ARG001
    """phoenix.js: a table without jitter."""
    return PHOENIX[attempt] if attempt < len(PHOENIX) else 5.0


def _full_jitter(attempt: int, own: float, rng: Random) -> float:  # noqa: ARG001
    """https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/: up to 1 s, 2 s, 4 s, … 30 s."""
    return rng.uniform(0.0, min(30.0, 2.0 ** min(attempt, 5)))


def _reconnecting(attempt: int, own: float, rng: Random) -> float:  # noqa: ARG001
    """reconnecting-websocket: 1 to 5 s, drawn once for each client, times 1.3 each, 10 s at the most."""
    return float(min(10.0, (1.0 + 4.0 * own) * 1.3**attempt))


def _graphql_ws(attempt: int, own: float, rng: Random) -> float:  # noqa: ARG001
    """graphql-ws: 1 s doubled each time, and 0.3 to 3 s at random."""
    return 2.0 ** min(attempt, 5) + rng.uniform(0.3, 3.0)


CLIENTS: dict[str, ComeBack] = {
    "at-once": _at_once,
    "phoenix": _phoenix,
    "full-jitter": _full_jitter,
    "reconnecting-websocket": _reconnecting,
    "graphql-ws": _graphql_ws,
}
