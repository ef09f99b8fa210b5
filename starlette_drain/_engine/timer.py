"""One timer that can be set again and again."""

import asyncio
from collections.abc import Callable
from contextvars import Context

__all__ = ["Timer"]


class Timer:
    """
    Rings once at the earliest of the moments that it was set to.

    It rings in an empty context: what it sets off belongs to no request, though a request may have set it.

    Args:
        ring: What to call, on the event loop's thread.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        self.ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether it is going to ring."""
        return self._handle is not None

    def set(self, loop: asyncio.AbstractEventLoop, moment: float) -> None:
        """Ring at *moment*, in seconds of the loop's clock, unless it rings sooner anyhow."""
        if self._handle is None or moment < self._at:
            self.stop()
            # The moment is kept apart, since uvloop returns a handle without `when` for one that has come.
            self._handle, self._at = loop.call_at(moment, self._go_off, context=Context()), moment

    def stop(self) -> None:
        """Ring no more, until it is set again."""
        if self._handle:
            self._handle.cancel()
            self._handle = None

    def _go_off(self) -> None:
        self._handle = None
        self.ring()
