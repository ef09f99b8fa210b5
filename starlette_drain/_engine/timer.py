"""A timer that can be set repeatedly."""

import asyncio
from collections.abc import Callable
from contextvars import Context

__all__ = ["Timer"]


class Timer:
    """
    Fires once, at the earliest of the moments that it was set to.

    It fires in an empty context, because it may have been set by a request but does not belong to it.

    Args:
        callback: What to call, on the event loop's thread.
    """

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether it is going to fire."""
        return self._handle is not None

    def set(self, loop: asyncio.AbstractEventLoop, moment: float) -> None:
        """Fire at *moment*, in seconds of the loop's clock, or earlier if it is set to an earlier moment."""
        if self._handle is None or moment < self._at:
            self.stop()
            # The moment is stored separately: uvloop returns a handle without `when` for a moment in the past.
            self._handle, self._at = loop.call_at(moment, self._fire, context=Context()), moment

    def stop(self) -> None:
        """Do not fire until it is set again."""
        if self._handle:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self.callback()
