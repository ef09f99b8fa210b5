"""Sessions of the engine's tests: each goes when it is asked to, or later, or never."""

import asyncio

from starlette_drain import Drain, Session

__all__ = ["Guest", "Stubborn", "open_guests"]


class Guest(Session):
    """A session that goes when it is asked to, at once."""

    __slots__ = ("asked_at", "drain")

    def __init__(self, drain: Drain) -> None:
        super().__init__("/guest", drain.host.engine.time())
        self.drain = drain
        self.asked_at: list[float] = []

    def begin_close(self, policy) -> None:  # noqa: ARG002
        """Go."""
        self.asked_at.append(self.drain.host.engine.time())
        asyncio.get_running_loop().call_soon(self.go)

    def go(self, *, forced: bool = False) -> None:
        """Be over."""
        self.drain.host.engine.closed(self, forced=forced)


class Stubborn(Guest):
    """A session that hears that it is asked, and stays."""

    __slots__ = ()

    def begin_close(self, policy) -> None:  # noqa: ARG002
        """Stay."""
        self.asked_at.append(self.drain.host.engine.time())


def open_guests(drain: Drain, count: int, kind: type[Guest] = Guest) -> list[Guest]:
    """Open *count* sessions."""
    guests = [kind(drain) for _ in range(count)]
    for guest in guests:
        drain.host.engine.track(guest)
        drain.host.engine.opened(guest)
    return guests
