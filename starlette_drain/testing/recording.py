"""An observer that records all events."""

from typing import TypeVar

from starlette_drain._core.events import Event

__all__ = ["RecordingObserver"]

EventT = TypeVar("EventT", bound=Event)


class RecordingObserver:
    """
    Records every event for a test: ``Drain(observers=[recording])``.

    Attributes:
        events: All events, in order.
        flushes: The time limit of each flush, in seconds.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.flushes: list[float] = []

    def notify(self, event: Event) -> None:
        """Record *event*."""
        self.events.append(event)

    def flush(self, timeout: float) -> None:
        """Record the flush."""
        self.flushes.append(timeout)

    def of(self, event_type: type[EventT]) -> list[EventT]:
        """Return the events of one type, in order."""
        return [event for event in self.events if isinstance(event, event_type)]

    def clear(self) -> None:
        """Remove all records."""
        self.events.clear()
        self.flushes.clear()
