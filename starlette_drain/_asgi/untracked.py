"""The session of a connection that is not tracked: all its methods work and do nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import Scope

from starlette_drain._core.session import Session

__all__ = ["ENDED", "UntrackedSession"]

RETRY_AFTER = 5.0
"""Seconds after which a client should reconnect, if there are no valid options."""


class UntrackedSession(Session):
    """
    What `session_of` returns for a connection that no drain closes. It is never asked to leave.

    It is used if the mode is off, the options are invalid, the drain belongs to another event loop, or the connection
    has ended. It works under trio too.

    Args:
        scope: The scope of the connection; ``None`` if it has ended.
        retry_after: Seconds after which the client should reconnect.
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
        """Milliseconds after which the client should reconnect."""
        return round(self._retry_after * 1000)

    async def wait_shed(self) -> None:
        """Wait until cancelled."""
        await anyio.sleep_forever()

    # These yield to the event loop, because an application may call them in a loop.

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
"""The session in the scope of a connection that has ended."""
