"""The contract between a drain and its observers."""

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
    Gets what happened, as events. Two members are optional.

    ``subscribes``, a tuple of event classes, spares an observer all other events. Three come for every session:
    `SessionOpened`, `SessionShed` and `SessionClosed`.

    ``flush(timeout)`` sends what is still held, within *timeout* seconds. It is called in a thread of its own, after a
    drain and before the server is told to stop: uvicorn raises SIGTERM again at its end, and a process that dies of a
    signal runs no ``atexit`` functions.
    """

    def notify(self, event: Event) -> None:
        """
        Take one event, on the event loop's thread, and return soon.

        An observer that raises is logged and dropped.
        """


class Observers:
    """
    Notifies every observer, and lets none of them disturb a drain.

    Raises:
        SettingsError: If something other than an observer is given, or an observer's ``subscribes`` cannot work.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        remedy = "give a list of observers, objects with notify(event), such as [LogObserver()]"
        self._observers: tuple[Observer, ...] = members("observers", observers, ("notify",), remedy)
        self._subscriptions = {id(each): _subscription(each) for each in self._observers}
        self._listeners: dict[type[Event], tuple[Observer, ...]] = {}
        """The observers of each event class seen so far."""

    def add(self, observer: Observer) -> None:
        """
        Add one more.

        Raises:
            SettingsError: If its ``subscribes`` cannot work.
        """
        self._subscriptions[id(observer)] = _subscription(observer)
        self._replace((*self._observers, observer))

    def notify(self, event: Event) -> None:
        """Notify every observer that subscribes to events of this class."""
        kind = type(event)
        if (listeners := self._listeners.get(kind)) is None:
            listeners = self._listeners[kind] = tuple(
                each for each in self._observers if issubclass(kind, self._subscriptions[id(each)])
            )
        for observer in listeners:
            try:
                observer.notify(event)
            except Exception:
                logger.exception("Observer %r failed and is dropped; the drain goes on", observer)
                self._replace(each for each in self._observers if each is not observer)

    def flush(self, timeout: float) -> None:
        """Let every observer that can flush send what it holds."""
        for observer in self._observers:
            if (send := getattr(observer, "flush", None)) is None:
                continue
            try:
                send(timeout)
            except Exception:
                logger.exception("Observer %r could not be flushed", observer)

    def _replace(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._listeners.clear()


def _subscription(observer: Observer) -> tuple[type[Event], ...]:
    """Return the classes of the events that *observer* gets."""
    subscribes = getattr(observer, "subscribes", Event)
    classes = tuple(subscribes) if isinstance(subscribes, Iterable) else (subscribes,)
    if not all(isinstance(each, type) and issubclass(each, Event) for each in classes):
        option = f"{type(observer).__name__}.subscribes"
        raise SettingsError(option, subscribes, "give a tuple of event classes, or no such attribute")
    return classes
