"""Responses that end by themselves, such as downloads and streamed answers to a POST: counted, and let finish."""

__all__ = ["Answers"]


class Answers:
    """Counts the answers that are under way."""

    def __init__(self) -> None:
        self._under_way: set[object] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def began(self, answer: object) -> None:
        """Count one more."""
        self._under_way.add(answer)

    def ended(self, answer: object) -> None:
        """Count it no longer. Doing it twice does no harm."""
        self._under_way.discard(answer)
