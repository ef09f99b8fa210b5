"""An observer that remembers."""

from typing import TypeVar

from starlette_drain._core.events import Fact

__all__ = ["RecordingObserver"]

FactT = TypeVar("FactT", bound=Fact)


class RecordingObserver:
    """
    Keeps every fact it hears, for a test to look at: ``Drain(observers=[recording])``.

    Attributes:
        facts: All of them, in order.
        flushes: The time limit of each flush, in seconds.
    """

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.flushes: list[float] = []

    def notify(self, fact: Fact) -> None:
        """Remember *fact*."""
        self.facts.append(fact)

    def flush(self, timeout: float) -> None:
        """Remember that there was a flush; there is nothing to send."""
        self.flushes.append(timeout)

    def of(self, fact_type: type[FactT]) -> list[FactT]:
        """Return the facts of one type, in order."""
        return [fact for fact in self.facts if isinstance(fact, fact_type)]

    def clear(self) -> None:
        """Forget everything heard so far."""
        self.facts.clear()
        self.flushes.clear()
