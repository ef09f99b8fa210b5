"""How clients reconnect, as measured by `make zoo` in ``clients.json``."""

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
Returns the seconds before an attempt, infinite if the client gives up.

Args: the number of the attempt from 0, a number from 0 to 1 that a client draws once, and the random generator.
"""


@dataclass(frozen=True, slots=True)
class MeasuredClient:
    """
    A client that reconnects by itself.

    Attributes:
        name: Its name in ``clients.json``.
        waits: The least and the most seconds before each attempt after a close; the last pair repeats.
        draws: When it draws a wait between the two: ``"never"``, ``"once"`` or ``"each time"``.
        gives_up: The most attempts; ``None`` if unlimited.
        patience: Its timeout of a handshake in seconds; ``None`` if it has none.
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
    """Return the measurements of all clients, by name."""
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
"""The WebSocket clients that reconnect by themselves, by name."""
