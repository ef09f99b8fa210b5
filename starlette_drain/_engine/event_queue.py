"""Events on their way to the observers: a change of state is complete before its event goes out."""

from collections import deque
from contextvars import Context

from starlette_drain._core.events import Event
from starlette_drain.telemetry.base import Observers

__all__ = ["EventQueue"]


class EventQueue:
    """
    Delivers events in the order in which they were put, at the end of the call that caused them.

    An observer or a trigger may call back at will: what that causes comes after.

    Args:
        observers: What gets the events.
    """

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._events: deque[tuple[Event, Context | None]] = deque()
        self._is_delivering = False

    def put(self, event: Event, context: Context | None = None) -> None:
        """Take *event*, to be delivered in *context* or the one that is current then."""
        self._events.append((event, context))

    def deliver(self) -> None:
        """Deliver all that has been put."""
        if self._is_delivering or not self._events:
            return
        self._is_delivering = True
        try:
            while self._events:
                event, context = self._events.popleft()
                if context is None:
                    self._observers.notify(event)
                else:
                    context.run(self._observers.notify, event)
        finally:
            self._is_delivering = False
