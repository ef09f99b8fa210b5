"""Responses that end by themselves, such as downloads and streamed answers to a POST: counted, and left to finish."""

import logging
from collections import Counter

from starlette_drain._core.printable import printable

__all__ = ["Answers"]

logger = logging.getLogger("starlette_drain")


class Answers:
    """
    Counts the answers in progress.

    Attributes:
        under_way: Their number. A plain attribute, because it changes with every request of the server.
        undeclared: The paths of those that may be endless streams and that the application has not declared.
    """

    __slots__ = ("_has_warned", "undeclared", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.undeclared: dict[object, str] = {}
        self._has_warned = False

    def __len__(self) -> int:
        return self.under_way

    def ended(self, answer: object) -> None:
        """Count *answer* as ended."""
        self.under_way -= 1
        self.undeclared.pop(answer, None)

    def warn_of_streams(self) -> None:
        """Warn of open streams that will not be asked to leave, although their clients may reconnect by themselves."""
        if self.undeclared:
            ((path, _),) = Counter(self.undeclared.values()).most_common(1)
            logger.warning(
                "Open streams are treated as answers and are not asked to leave: %d, most of them on %s. If their "
                'clients reconnect by themselves, set streams={"%s": "session"}; if not, "answer" silences this line',
                len(self.undeclared),
                printable(path),
                printable(path),
            )

    def note_unclear(self, path: str, declared: str) -> None:
        """Warn, once, that a response header declares something unknown."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The response header starlette-drain: %s on %s is invalid; use session, session; end=cut or answer",
                printable(declared),
                printable(path),
            )
