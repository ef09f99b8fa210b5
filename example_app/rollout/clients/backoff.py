"""How clients come back, after the libraries that real ones use: pure, luck is handed in."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

__all__ = ["BEHAVIOURS", "Behaviour", "Traits"]

PHOENIX_TABLE = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.0)
PHOENIX_REST = 5.0
FULL_JITTER_BASE, FULL_JITTER_CAP = 1.0, 30.0
RECONNECTING_GROWTH, RECONNECTING_CAP = 1.3, 10.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """
    How one kind of client comes back.

    Attributes:
        wait: Seconds before an attempt; attempts are numbered from 0 after each loss.
        patience: Seconds that an attempt may take, handshake included.
        words: The same in words, after "Clients reconnect …".
    """

    wait: Callable[[int, "Traits"], float]
    patience: float
    words: str


class Traits:
    """What one client draws once and keeps, and its source of luck."""

    __slots__ = ("first_delay", "rng")

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.first_delay = 1.0 + 4.0 * rng.random()


def immediate(attempt: int, traits: Traits) -> float:
    """
    At once after an established connection has ended, as ``async for … in connect()`` of Python's websockets does.

    After a failed attempt it backs off: up to 5 s at random, then 5 s times 1.618 each, 90 s at the most.
    https://websockets.readthedocs.io/en/stable/reference/variables.html
    """
    if attempt == 0:
        return 0.0
    if attempt == 1:
        return 5.0 * traits.rng.random()
    return float(min(90.0, 3.1 * 1.618 ** (attempt - 2)))


def phoenix(attempt: int, _traits: Traits) -> float:
    """phoenix.js: a table without jitter, https://github.com/phoenixframework/phoenix assets/js/phoenix/socket.js."""
    return PHOENIX_TABLE[attempt] if attempt < len(PHOENIX_TABLE) else PHOENIX_REST


def full_jitter(attempt: int, traits: Traits) -> float:
    """
    Exponential with full jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return traits.rng.uniform(0.0, min(FULL_JITTER_CAP, FULL_JITTER_BASE * 2.0 ** min(attempt, 16)))


def reconnecting(attempt: int, traits: Traits) -> float:
    """reconnecting-websocket: 1 to 5 s, drawn once for each client, times 1.3 each, 10 s at the most."""
    return float(min(RECONNECTING_CAP, traits.first_delay * RECONNECTING_GROWTH ** min(attempt, 32)))


BEHAVIOURS = {
    "immediate": Behaviour(immediate, 10.0, "at once, the way Python's websockets does"),
    "phoenix": Behaviour(phoenix, 240.0, "the way phoenix.js does (after 10 ms, then 50 …)"),
    "full-jitter": Behaviour(full_jitter, 10.0, "after a random wait (up to 1 s, then up to 2, 4 …)"),
    "reconnecting-websocket": Behaviour(
        reconnecting, 4.0, "the way reconnecting-websocket does (after 1 to 5 s at random)"
    ),
}
"""
By name. phoenix.js sets no limit of its own to a handshake, and Chromium gives up after 240 s (net/websockets,
kHandshakeTimeoutIntervalInSeconds). Python's websockets waits 10 s, reconnecting-websocket 4 s, unless told otherwise.
"""
