"""What an application gets for a connection that is not tracked: everything works, and does nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import Scope

from starlette_drain._core.session import Session

__all__ = ["ENDED", "UntrackedSession"]

RETRY_AFTER = 5.0
"""Seconds, where no options say when a client should come back."""


class UntrackedSession(Session):
    """
    What `session_of` returns for a connection that no drain closes: never asked to leave.

    The mode is off, the options cannot work, another event loop has the drain, or the connection has ended. It works
    under trio too.

    Args:
        scope: The connection's; ``None`` where it has ended.
        retry_after: Seconds after which the client should come back.
    """

    __slots__ = ("_retry_after", "kind")

    def __init__(self, scope: Scope | None, retry_after: float = RETRY_AFTER) -> None:
        super().__init__(scope["path"] if scope else "", 0.0)
        self._retry_after = retry_after
        self.kind = "websocket" if scope and scope["type"] == "websocket" else "event-stream"

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold nothing."""
        yield

    def declare(self, kind: str, *, end: str = "clean") -> None:
        """Declare nothing."""

    @property
    def reconnect_after_ms(self) -> int:
        """Milliseconds after which the client should come back."""
        return round(self._retry_after * 1000)

    async def wait_shed(self) -> None:
        """Wait until cancelled."""
        await anyio.sleep_forever()

    # Nothing that an application may call in a loop returns without suspending.

    async def send_text(self, text: str) -> None:  # noqa: ARG002
        """Send nothing: this is for close hooks."""
        await checkpoint()

    async def send_bytes(self, data: bytes) -> None:  # noqa: ARG002
        """Send nothing: this is for close hooks."""
        await checkpoint()

    async def send_json(self, value: Any) -> None:  # noqa: ARG002
        """Send nothing: this is for close hooks."""
        await checkpoint()


ENDED = UntrackedSession(None)
"""What stands in the scope of a connection that has ended."""
