# A limit that began anew with each process would be none: workers are recycled, a server is started again, and the
# sessions that made the need are soon as many as before. So the beginning of the need outlives the process, in a file
# of one line. The moments are those of the machine's monotonic clock, which mean the same in every process.
#
# The temporary directory is anybody's: a name there may be a link, or a file that somebody else has put there to
# lengthen our limit. What is not a plain file that only this user can write is left alone.
"""Since when something has been needed, remembered in a file for the next process."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Need"]

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where the temporary directory is read-only; what is found there is checked


class Need:
    """
    Since when something has been needed, whichever process asks.

    Args:
        what: Names the need and whose it is; it becomes part of the name of the file.
        pause: Seconds without a need, after which the next one is another.
    """

    def __init__(self, what: str, pause: float) -> None:
        self._name = f"starlette-drain-{os.geteuid()}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
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
        file = self._find()
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise PermissionError(self._name)
            yield file
        finally:
            os.close(file)

    def _find(self) -> int:
        try:
            return _open(Path(tempfile.gettempdir()) / self._name)
        except OSError:
            return _open(Path(SHARED_MEMORY) / self._name)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _parse(line: bytes) -> tuple[float, float] | None:
    try:
        since, last = map(float, line.split())
    except ValueError:
        return None
    return since, last
