# A limit that restarted with each process would be no limit: workers are recycled, servers are restarted, and soon
# there are as many sessions as before. So the beginning of the need is kept in a file of one line. The times are those
# of the machine's monotonic clock, which all processes share.
"""Since when something has been needed, kept in a file across processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from starlette_drain.aws.actions.private_file import name_of, open_private

__all__ = ["Need"]


class Need:
    """
    Since when something has been needed by any process.

    Args:
        what: Identifies the need and its owner; the name of the file is derived from it.
        pause: Seconds without a need after which a new one begins.
    """

    def __init__(self, what: str, pause: float) -> None:
        self._name = name_of(what)
        self._pause = pause
        self._since, self._last = 0.0, -pause
        self.is_lasting = True
        """Whether the beginning is kept in a file."""

    def note(self, now: float) -> float:
        """Record that there is a need at *now*; return since when there has been one."""
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
        # A last need in the future is from another clock: another machine or another boot.
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
