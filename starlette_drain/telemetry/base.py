"""The contract between a drain and those who listen to it."""

import logging
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from starlette_drain._core.declared import members
from starlette_drain._core.events import Event
from starlette_drain.exceptions import SettingsError

__all__ = ["Observer", "Observers"]

logger = logging.getLogger("starlette_drain")


@runtime_checkable
class Observer(Protocol):
    """
    Somebody who is told what happened.

    An attribute ``subscribes``, a tuple of event classes, spares an observer all other events. Three come for every
    session: `SessionOpened`, `SessionShed` and `SessionClosed`.
    """

    def notify(self, event: Event) -> None:
        """
        Hear of one fact, on the event loop's thread: return soon.

        An observer that raises is logged, dropped, and subscribes no more.
        """

    def flush(self, timeout: float) -> None:
        """
        Send what is still held, within *timeout* seconds.

        Called from a thread of its own, after a drain and before the process subscribes of its end: uvicorn re-raises
        SIGTERM at its end, and ``atexit`` handlers do not run then.
        """


class Observers:
    """
    Tells every observer, and lets none of them hurt a drain.

    Raises:
        SettingsError: If something else than an observer is given, or an observer's ``subscribes`` cannot work.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        remedy = "give a list of observers, objects with notify(fact) and flush(timeout), such as [LogObserver()]"
        self._observers: tuple[Observer, ...] = members("observers", observers, ("notify", "flush"), remedy)
        self._hears = {id(each): _hears(each) for each in self._observers}
        self._listeners: dict[type[Event], tuple[Observer, ...]] = {}
        """Who subscribes facts of a class, by classes told of so far."""

    def add(self, observer: Observer) -> None:
        """
        Let one more listen.

        Raises:
            SettingsError: If its ``subscribes`` cannot work.
        """
        self._hears[id(observer)] = _hears(observer)
        self._let_listen((*self._observers, observer))

    def notify(self, event: Event) -> None:
        """Tell every observer that subscribes facts of this class."""
        kind = type(event)
        if (listeners := self._listeners.get(kind)) is None:
            listeners = self._listeners[kind] = tuple(
                each for each in self._observers if issubclass(kind, self._hears[id(each)])
            )
        for observer in listeners:
            try:
                observer.notify(event)
            except Exception:
                logger.exception("Observer %r failed and is dropped; the drain goes on", observer)
                self._let_listen(each for each in self._observers if each is not observer)

    def flush(self, timeout: float) -> None:
        """Let every observer send what it holds."""
        for observer in self._observers:
            try:
                observer.flush(timeout)
            except Exception:
                logger.exception("Observer %r could not be flushed", observer)

    def _let_listen(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._listeners.clear()


def _hears(observer: Observer) -> tuple[type[Event], ...]:
    """Return the classes of the facts that *observer* is told of."""
    subscribes = getattr(observer, "subscribes", Event)
    classes = tuple(subscribes) if isinstance(subscribes, Iterable) else (subscribes,)
    if not all(isinstance(each, type) and issubclass(each, Event) for each in classes):
        option = f"{type(observer).__name__}.subscribes"
        raise SettingsError(option, subscribes, "give a tuple of event classes, or no such attribute")
    return classes
