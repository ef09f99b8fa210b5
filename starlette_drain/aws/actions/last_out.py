# A worker is not told whether it ends alone or with all others, and one that is killed says nothing. So each holds a
# shared lock for as long as it lives, which the kernel lets go with the process, and the one that can have the lock for
# itself is the last. It keeps it until it has taken back what was done: a worker that starts meanwhile waits for that.
"""Which of several workers is the last to leave, and what it has to take back."""

import asyncio
import fcntl
import json
import os
from contextlib import suppress
from typing import Any

from starlette_drain.aws.actions.private_file import name_of, open_private

__all__ = ["LastOut"]

PATIENCE = 6.0
"""Seconds that a worker waits at its start for one that is taking something back."""

RETRY = 0.1


class LastOut:
    """
    The workers that are there, and a note of what is to be taken back when the last of them has left.

    Where there can be no file there is no last one.

    Args:
        what: Names what is done for all workers, and for whom.
    """

    def __init__(self, what: str) -> None:
        self._name = name_of(what)
        self._file: int | None = None

    async def enter(self) -> None:
        """Be one of the workers from now on."""
        with suppress(OSError):
            self._file = open_private(self._name)
        end = asyncio.get_running_loop().time() + PATIENCE
        while self._file is not None and not self._lock(fcntl.LOCK_SH):
            if asyncio.get_running_loop().time() > end:
                self.close()
            await asyncio.sleep(RETRY)

    def note(self, to_take_back: Any) -> None:
        """Note, for whichever worker is the last, what is to be taken back: a JSON value; nothing where it is false."""
        if self._file is not None:
            content = json.dumps(to_take_back).encode() if to_take_back else b""
            with suppress(OSError):
                os.pwrite(self._file, content.ljust(os.fstat(self._file).st_size), 0)

    def read(self) -> Any:
        """Return what was noted."""
        if self._file is None:
            return None
        try:
            return json.loads(os.pread(self._file, os.fstat(self._file).st_size, 0))
        except (OSError, ValueError):
            return None

    def leave(self) -> Any:
        """Leave; return what was noted where this was the last worker. Call `close` when that is taken back."""
        if self._file is None:
            return None
        self._lock(fcntl.LOCK_UN)  # first: two that leave together would keep the lock from each other
        return self.read() if self._lock(fcntl.LOCK_EX) else None

    def close(self) -> None:
        """Let others come."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, kind: int) -> bool:
        assert self._file is not None  # noqa: S101
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
