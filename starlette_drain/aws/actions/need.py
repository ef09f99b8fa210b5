# A limit that began anew with each process would be none: workers are recycled, a server is started again, and the
# sessions that made the need are soon as many as before. So the beginning of the need outlives the process, in a file
# of one line. The moments are those of the machine's monotonic clock, which mean the same in every process.
"""Since when something has been needed, remembered in a file for the next process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from starlette_drain.aws.actions.private_file import name_of, open_private

__all__ = ["Need"]


class Need:
    """
    Since when something has been needed, whichever process asks.

    Args:
        what: Names the need and whose it is; it becomes part of the name of the file.
        pause: Seconds without a need, after which the next one is another.
    """

    def __init__(self, what: str, pause: float) -> None:
        self._name = name_of(what)
        self._pause = pause
        self._since, self._last = 0.0, -pause
        self.is_lasting = True
        """Whether it outlives the process: there is a file."""

    def note(self, now: float) -> float:
        """Take note that there is a need at *now*; return since when there has been."""
        try:
            with self._open() as file:
                since, last = _parse(os.pread(file, 100, 0)) or (self._since, self._last)
                since = self._begin(since, last, now)
                os.pwrite(file, f"{since:019.3f} {now:019.3f}\n".encode(), 0)
            self.is_lasting = True
        except OSError:
            since = self._begin(self._since, self._last, now)
            self.is_lasting = False
        self._since, self._last = since, now
        return since

    def _begin(self, since: float, last: float, now: float) -> float:
        # A last need that is yet to come is of a clock that has begun anew: another machine, another boot.
        return since if since <= last <= now < last + self._pause else now

    @contextmanager
    def _open(self) -> Iterator[int]:
        file = open_private(self._name)
        try:
            yield file
        finally:
            os.close(file)


def _parse(line: bytes) -> tuple[float, float] | None:
    try:
        since, last = map(float, line.split())
    except ValueError:
        return None
    return since, last
