"""The contract between a drain and those who listen to it."""

import logging
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from starlette_drain._core.facts import Fact

__all__ = ["Observer", "Observers"]

logger = logging.getLogger("starlette_drain")


@runtime_checkable
class Observer(Protocol):
    """Somebody who is told what happened. Both methods must return soon: they run on the event loop's thread."""

    def notify(self, fact: Fact) -> None:
        """Hear of one fact. An observer that raises is logged, dropped, and hears no more."""

    def flush(self, timeout: float) -> None:
        """
        Send what is still held, within *timeout* seconds.

        Called from a thread of its own, after a drain and before the process hears of its end: uvicorn re-raises
        SIGTERM at its end, and ``atexit`` handlers do not run then.
        """


class Observers:
    """Tells every observer, and lets none of them hurt a drain."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def __iter__(self) -> "Iterable[Observer]":
        return iter(self._observers)

    def add(self, observer: Observer) -> None:
        """Let one more listen."""
        self._observers = (*self._observers, observer)

    def notify(self, fact: Fact) -> None:
        """Tell every observer of *fact*."""
        for observer in self._observers:
            try:
                observer.notify(fact)
            except Exception:
                logger.exception("Observer %r failed and is dropped; the drain goes on", observer)
                self._observers = tuple(each for each in self._observers if each is not observer)

    def flush(self, timeout: float) -> None:
        """Let every observer send what it holds."""
        for observer in self._observers:
            try:
                observer.flush(timeout)
            except Exception:
                logger.exception("Observer %r could not be flushed", observer)
