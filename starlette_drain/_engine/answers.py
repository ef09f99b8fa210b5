"""Connections that are no sessions and end by themselves, such as downloads: counted, and left alone."""

import asyncio
from typing import Protocol

from starlette_drain._core.events import DrainCancelled, DrainReplanned, DrainStarted, Event
from starlette_drain._engine.timer import Timer

__all__ = ["Transfer", "Transfers"]


class Transfer(Protocol):
    """A connection that ends by itself."""

    def abort(self) -> None:
        """Cancel its application."""


class Transfers:
    """
    Counts the transfers under way; an observer, so that it knows the deadline.

    Args:
        cancels: Whether those still under way at the deadline are cancelled.
    """

    subscribes = (DrainStarted, DrainReplanned, DrainCancelled)

    def __init__(self, *, cancels: bool) -> None:
        self._cancels = cancels
        self._under_way: dict[Transfer, None] = {}
        self._timer = Timer(self._abort_all)

    def __len__(self) -> int:
        return len(self._under_way)

    def began(self, transfer: Transfer) -> None:
        """Count one more."""
        self._under_way[transfer] = None

    def ended(self, transfer: Transfer) -> None:
        """Count it no more. Doing it twice does no harm."""
        self._under_way.pop(transfer, None)

    def notify(self, event: Event) -> None:
        """Follow the deadline."""
        self.stop()
        if self._cancels and isinstance(event, DrainStarted | DrainReplanned):
            self._timer.set(asyncio.get_running_loop(), event.deadline)

    def stop(self) -> None:
        """Cancel nobody any more, until the next drain."""
        self._timer.stop()

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    def _abort_all(self) -> None:
        for transfer in list(self._under_way):
            transfer.abort()
