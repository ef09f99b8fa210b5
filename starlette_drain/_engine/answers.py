"""Responses that end by themselves, such as downloads and streamed answers to a POST: counted, and let finish."""

import logging
from collections import Counter

from starlette_drain._core.printable import printable

__all__ = ["Answers"]

logger = logging.getLogger("starlette_drain")


class Answers:
    """
    Counts the answers that are under way.

    Attributes:
        under_way: How many there are. It is counted for each request of a server, and therefore a plain number.
        undeclared: The paths of those that may be without end, if the application has not declared them.
    """

    __slots__ = ("_has_told", "undeclared", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.undeclared: dict[object, str] = {}
        self._has_told = False

    def __len__(self) -> int:
        return self.under_way

    def ended(self, answer: object) -> None:
        """Count one less."""
        self.under_way -= 1
        self.undeclared.pop(answer, None)

    def warn_of_streams(self) -> None:
        """Say that some will not be asked to leave, although their clients may come back by themselves."""
        if self.undeclared:
            ((path, _),) = Counter(self.undeclared.values()).most_common(1)
            logger.warning(
                "Open streams that are answers, and are not asked to leave: %d, most of them on %s. If their clients "
                'come back by themselves, set streams={"%s": "session"}; if not, "answer" in its place silences this',
                len(self.undeclared),
                printable(path),
                printable(path),
            )

    def note_unclear(self, path: str, declared: str) -> None:
        """Say, once, that a response declares what nothing is known of."""
        if not self._has_told:
            self._has_told = True
            logger.warning(
                "The response header starlette-drain: %s on %s means nothing; use session, session; end=cut or answer",
                printable(declared),
                printable(path),
            )
