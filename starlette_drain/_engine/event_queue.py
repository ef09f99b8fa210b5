"""Queues events for the observers: a change of state is complete before its event is delivered."""

from collections import deque
from contextvars import Context

from starlette_drain._core.events import Event
from starlette_drain.telemetry.base import Observers

__all__ = ["EventQueue"]


class EventQueue:
    """
    Delivers events in the order in which they were put, at the end of the call that caused them.

    Observers and triggers may call back at any time: the events that this causes are delivered after the others.

    Args:
        observers: What receives the events.
    """

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._events: deque[tuple[Event, Context | None]] = deque()
        self._is_delivering = False

    def put(self, event: Event, context: Context | None = None) -> None:
        """Queue *event*; it is delivered in *context*, by default the one that is current at delivery."""
        self._events.append((event, context))

    def deliver(self) -> None:
        """Deliver all queued events."""
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
