"""The lines that a rehearsal's server writes: what they mean, and which are shown."""

import math
import re
import time
from collections import deque

from starlette_drain.tools.rehearse.server import FORCED, STARTED

__all__ = ["Output"]

LINES_KEPT = 2000

FIRST_LINE = re.compile(r"(  \+ Exception Group )?Traceback \(most recent call last\):$")

ERROR_LINE = re.compile(r"(?:  \| )?(?=\S)")
"""How the line of a traceback begins that has the error; the line of a group has a prefix."""

CHAINS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


class Output:
    """
    The output of the server.

    Attributes:
        lines: The last lines.
        forced: The path of an endpoint for each time that it had to be cancelled.
        tracebacks: The last line of each logged traceback; of a chain that of the last.
        started: When the application had started, by `time.monotonic`.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.forced: list[str] = []
        self.tracebacks: list[str] = []
        self.started = math.inf
        self._traceback: list[str] = []
        self._known: set[str] = set()
        self._is_after_one = self._is_hidden = False

    def take(self, line: str) -> list[str]:
        """Take a line; return those to show now. A server logs a traceback for each session; it is shown once."""
        if line.startswith(FORCED):
            self.forced.append(line.removeprefix(FORCED))
            return []
        if line == STARTED:
            self.started = time.monotonic()
            return []
        self.lines.append(line)
        if self._traceback or FIRST_LINE.match(line):
            self._traceback.append(line)
            if len(self._traceback) == 1 or not ERROR_LINE.match(line):
                return []
            shown, self._traceback = self._traceback, []
            error = line.removeprefix("  | ")
            self.tracebacks.append(error)
            self._is_after_one, self._is_hidden = True, error in self._known
            self._known.add(error)
            return [] if self._is_hidden else shown
        if line in CHAINS and self._is_after_one:
            self.tracebacks.pop()  # the next is about the same error
        elif line and not line.startswith(("  +", "   ")):  # not the errors of a group
            self._is_after_one = self._is_hidden = False
        return [] if self._is_hidden else [line]
