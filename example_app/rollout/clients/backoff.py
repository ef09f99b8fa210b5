"""How clients come back: as the real ones do that `make zoo` has measured."""

from dataclasses import dataclass
from random import Random

from starlette_drain.tools.plan.clients import CLIENTS, MeasuredClient

__all__ = ["BEHAVIOURS", "Behaviour", "Traits"]

CHROMIUM_PATIENCE = 240.0
"""
Seconds that Chromium waits for a handshake, for clients that set no limit of their own.

net/websockets, kHandshakeTimeoutIntervalInSeconds.
"""


class Traits:
    """What one client draws once and keeps, and its source of randomness."""

    __slots__ = ("own", "rng")

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.own = rng.random()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """
    How one kind of client comes back.

    Attributes:
        client: What was measured of it.
    """

    client: MeasuredClient

    def wait(self, attempt: int, traits: Traits) -> float:
        """Return the seconds before an attempt, numbered from 0 after each loss; infinite for one that gives up."""
        return self.client(attempt, traits.own, traits.rng)

    @property
    def patience(self) -> float:
        """Seconds that an attempt may take, handshake included."""
        return self.client.patience or CHROMIUM_PATIENCE

    @property
    def words(self) -> str:
        """The same in words, after "Clients reconnect …"."""
        (least, most), once = self.client.waits[0], ", drawn once" if self.client.draws == "once" else ""
        if most == 0:
            after = "at once"
        elif least == most:
            after = f"after {most:g} s"
        else:
            after = f"after {least:g} to {most:g} s at random{once}"
        return f"{after}, the way {self.client.name} does"


BEHAVIOURS = {name: Behaviour(client) for name, client in CLIENTS.items()}
BEHAVIOURS["immediate"] = BEHAVIOURS["websockets"]
BEHAVIOURS["stubborn"] = Behaviour(MeasuredClient("a client that obeys nothing", ((0.0, 0.0),), "never", None, 10.0))
"""By the names of the data; the one that comes back the soonest as ``immediate``; and the worst there could be."""
