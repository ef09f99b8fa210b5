"""How clients come back, as measured: `make zoo` writes ``clients.json``, and this reads it."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

__all__ = ["CLIENTS", "ComeBack", "MeasuredClient", "measured"]

ComeBack = Callable[[int, float, Random], float]
"""
Seconds before an attempt: its number from 0, something that a client draws once (0 to 1), and the randomness.

It is infinite for a client that gives up.
"""


@dataclass(frozen=True, slots=True)
class MeasuredClient:
    """
    A client that comes back by itself.

    Attributes:
        name: Its name in ``clients.json``.
        waits: From the least to the most seconds before each attempt after a close; the last is repeated.
        draws: Whether it draws a wait between the two ``"never"``, ``"once"`` or ``"each time"``.
        gives_up: How many attempts it makes; ``None`` for any number.
        patience: Seconds that it waits for the answer to a handshake; ``None`` where it sets no limit.
    """

    name: str
    waits: tuple[tuple[float, float], ...]
    draws: str
    gives_up: int | None
    patience: float | None

    def __call__(self, attempt: int, own: float, rng: Random) -> float:
        """Return the seconds before an attempt."""
        if self.gives_up is not None and attempt >= self.gives_up:
            return math.inf
        least, most = self.waits[min(attempt, len(self.waits) - 1)]
        return least + (own if self.draws == "once" else rng.random()) * (most - least)


@cache
def measured() -> dict[str, dict[str, Any]]:
    """Return what was measured of every client, by name."""
    found: dict[str, dict[str, Any]] = json.loads((files(__package__) / "clients.json").read_text())
    return found


def _models() -> dict[str, MeasuredClient]:
    models = {
        name: MeasuredClient(
            name,
            tuple((least, most) for least, most in [seen["after"]["1012"], *seen["refused"]]),
            seen["draws"],
            seen["gives_up"],
            seen["patience"],
        )
        for name, seen in measured().items()
        if seen["after"].get("1012")
    }
    return {**models, "at-once": models["websockets"]}


CLIENTS = _models()
"""The clients of WebSockets that come back by themselves, by name."""
