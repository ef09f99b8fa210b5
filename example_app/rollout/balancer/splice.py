"""Two sockets as one: bytes go from either side to the other, nothing else happens to them."""

import asyncio
from contextlib import suppress
from typing import cast

from example_app.rollout.balancer.routing import Routing, Target

__all__ = ["ClientSide", "Splices"]

CONNECT_WITHIN = 5.0
"""Seconds a target has to accept a connection."""


class Splices:
    """All connections of one node, by target."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self._open: dict[Target, set[ClientSide]] = {}
        self._joining: set[asyncio.Task[None]] = set()

    def accept(self) -> "ClientSide":
        """Make the protocol of one incoming connection."""
        return ClientSide(self)

    def begin(self, side: "ClientSide", target: Target) -> None:
        """Connect *side* with *target*."""
        self._open.setdefault(target, set()).add(side)
        task = asyncio.get_running_loop().create_task(side.join(target))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def end(self, side: "ClientSide", target: Target) -> None:
        """Forget *side*."""
        self._open[target].discard(side)
        self.routing.release(target)

    def cut(self, target: Target) -> None:
        """Close every connection with *target* at once."""
        for side in list(self._open.get(target, ())):
            side.cut()

    def drop(self, share: float) -> None:
        """Close a share of the connections with each target at once."""
        for sides in self._open.values():
            for side in list(sides)[: round(share * len(sides))]:
                side.cut()


class Side(asyncio.Protocol):
    """One of the two sides; reading stops on one while the other cannot write."""

    __slots__ = ("other", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self.other and self.other.transport:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        """Let the other side wait."""
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def close_other(self) -> None:
        """Close the other side once it has sent what it holds."""
        if self.other and self.other.transport:
            self.other.transport.close()


class ClientSide(Side):
    """The side that a client has opened."""

    __slots__ = ("_early", "_splices", "_target")

    def __init__(self, splices: Splices) -> None:
        super().__init__()
        self._splices = splices
        self._target: Target | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a target, and keep what comes before it is connected."""
        self.transport = cast("asyncio.Transport", transport)
        self._target = self._splices.routing.pick()
        if self._target is None:
            self.transport.abort()
        else:
            self._splices.begin(self, self._target)

    def data_received(self, data: bytes) -> None:
        """Pass on, or keep."""
        if self.other and self.other.transport:
            self.other.transport.write(data)
        else:
            self._early += data

    async def join(self, target: Target) -> None:
        """Connect with *target*, and let the bytes flow."""
        self.other = TargetSide(self)
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await asyncio.get_running_loop().create_connection(self._target_side, *target)
        except (OSError, TimeoutError):
            self.cut()
        else:
            if self.transport is None or self.transport.is_closing():
                self.close_other()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio gives it
        """Close the other side too."""
        if self._target is not None:
            self._splices.end(self, self._target)
        self.close_other()

    def take_early(self) -> bytes:
        """Return what has come too early, once."""
        early, self._early = self._early, b""
        return early

    def cut(self) -> None:
        """Close both sides at once."""
        for side in (self, self.other):
            if side and side.transport:
                with suppress(OSError):
                    side.transport.abort()

    def _target_side(self) -> Side:
        return self.other or TargetSide(self)


class TargetSide(Side):
    """The side of the task."""

    __slots__ = ("_client",)

    def __init__(self, client: ClientSide) -> None:
        super().__init__()
        self.other = self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on what has come before."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._client.take_early())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio gives it
        """Close the other side too."""
        self.close_other()
