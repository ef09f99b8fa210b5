"""The contract between a drain and its observers."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

from starlette_drain._core.declared import members
from starlette_drain._core.events import Event
from starlette_drain.exceptions import SettingsError

__all__ = ["Observer", "Observers", "OpenSessions"]

logger = logging.getLogger("starlette_drain")


class OpenSessions:
    """
    The number of open sessions, readable from any thread.

    Attributes:
        by_kind: The counts on the current event loop, such as ``{"websocket": 3}``.
        observes_only: Whether a drain closes none of them (``mode="observe"``).
    """

    def __init__(self) -> None:
        self.by_kind: Mapping[str, int] = {}
        self.observes_only = False


@runtime_checkable
class Observer(Protocol):
    """
    Receives the events. Four members are optional.

    ``subscribes`` is a tuple of the event classes wanted. Three are emitted for every session: `SessionOpened`,
    `SessionShed` and `SessionClosed`.

    ``interest(kind)`` is called once for each of these three classes. It returns a function that says whether such an
    event is wanted now. No event is created if all subscribers return False, as a log above DEBUG does.

    ``look_at(open_sessions)`` is called once, with an `OpenSessions`: for observers that only read a count.

    ``flush(timeout)`` sends what is still buffered, within *timeout* seconds. It is called in its own thread after a
    drain, before the server is told to stop: uvicorn raises SIGTERM again at its end, so no ``atexit`` functions run.
    """

    def notify(self, event: Event) -> None:
        """
        Handle one event, on the event loop's thread, without blocking.

        An observer that raises is logged and removed.
        """


class Observers:
    """
    Notifies every observer, and keeps their failures away from the drain.

    Raises:
        SettingsError: If something other than an observer is given, or an observer's ``subscribes`` is invalid.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        remedy = "give a list of observers, objects with notify(event), such as [LogObserver()]"
        self._observers: tuple[Observer, ...] = members("observers", observers, ("notify",), remedy)
        self._subscriptions = {id(each): _subscription(each) for each in self._observers}
        self._listeners: dict[type[Event], tuple[Observer, ...]] = {}
        """The observers of each event class seen so far."""
        self._interests: dict[type[Event], tuple[Callable[[], bool], ...]] = {}
        """For each event class, the functions that say whether an observer wants it now."""
        self.open_sessions = OpenSessions()
        for each in self._observers:
            self._introduce(each)

    def add(self, observer: Observer) -> None:
        """
        Add an observer.

        Raises:
            SettingsError: If its ``subscribes`` is invalid.
        """
        self._subscriptions[id(observer)] = _subscription(observer)
        self._introduce(observer)
        self._replace((*self._observers, observer))

    def wants(self, kind: type[Event]) -> bool:
        """Return whether any observer wants an event of this class now."""
        if (interests := self._interests.get(kind)) is None:
            interests = self._interests[kind] = tuple(
                each.interest(kind) if hasattr(each, "interest") else _always for each in self._listeners_of(kind)
            )
        try:
            for is_interested in interests:
                if is_interested():
                    return True
        except Exception:
            logger.exception("The interest() of an observer failed for %s; it gets them all", kind.__name__)
            self._interests[kind] = (_always,)
            return True
        return False

    def notify(self, event: Event) -> None:
        """Notify every observer that subscribes to events of this class."""
        for observer in self._listeners_of(type(event)):
            try:
                observer.notify(event)
            except Exception:
                logger.exception("Observer %r failed and was removed; the drain continues", observer)
                self._replace(each for each in self._observers if each is not observer)

    def flush(self, timeout: float) -> None:
        """Call the ``flush`` of every observer that has one; log its errors."""
        for observer in self._observers:
            if (send := getattr(observer, "flush", None)) is None:
                continue
            try:
                send(timeout)
            except Exception:
                logger.exception("Observer %r could not be flushed", observer)

    def _introduce(self, observer: Observer) -> None:
        if (look_at := getattr(observer, "look_at", None)) is not None:
            look_at(self.open_sessions)

    def _listeners_of(self, kind: type[Event]) -> tuple[Observer, ...]:
        if (listeners := self._listeners.get(kind)) is None:
            listeners = self._listeners[kind] = tuple(
                each for each in self._observers if issubclass(kind, self._subscriptions[id(each)])
            )
        return listeners

    def _replace(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._listeners.clear()
        self._interests.clear()


def _always() -> bool:
    return True


def _subscription(observer: Observer) -> tuple[type[Event], ...]:
    """
    Return the event classes that *observer* subscribes to.

    Raises:
        SettingsError: If its ``subscribes`` is not an event class or an iterable of them.
    """
    subscribes = getattr(observer, "subscribes", Event)
    classes = tuple(subscribes) if isinstance(subscribes, Iterable) else (subscribes,)
    if not all(isinstance(each, type) and issubclass(each, Event) for each in classes):
        option = f"{type(observer).__name__}.subscribes"
        raise SettingsError(option, subscribes, "give a tuple of event classes, or no such attribute")
    return classes
