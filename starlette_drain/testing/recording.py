"""An observer that remembers."""

from typing import TypeVar

from starlette_drain._core.events import Event

__all__ = ["RecordingObserver"]

EventT = TypeVar("EventT", bound=Event)


class RecordingObserver:
    """
    Keeps every event for a test: ``Drain(observers=[recording])``.

    Attributes:
        events: All of them, in order.
        flushes: The time limit of each flush, in seconds.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.flushes: list[float] = []

    def notify(self, event: Event) -> None:
        """Remember *event*."""
        self.events.append(event)

    def flush(self, timeout: float) -> None:
        """Remember that there was a flush; there is nothing to send."""
        self.flushes.append(timeout)

    def of(self, event_type: type[EventT]) -> list[EventT]:
        """Return the events of one type, in order."""
        return [event for event in self.events if isinstance(event, event_type)]

    def clear(self) -> None:
        """Forget everything so far."""
        self.events.clear()
        self.flushes.clear()
