# A worker does not know whether it ends alone or with all others, and one that is killed cannot tell. So each holds a
# shared lock while it lives, which the kernel releases with the process. The worker that can get the exclusive lock is
# the last. It keeps that lock until it has undone what has to be undone, and a worker that starts waits for it.
"""Finds out which of several workers is the last to leave, and what it has to undo."""

import asyncio
import fcntl
import json
import os
from contextlib import suppress
from typing import Any

from starlette_drain.aws.actions.private_file import name_of, open_private

__all__ = ["LastOut"]

TIMEOUT = 6.0
"""Seconds that a worker waits at its start for one that is undoing something."""

RETRY = 0.1


class LastOut:
    """
    The workers of a task, and a note of what the last one to leave has to undo.

    If the file cannot be created, no worker is the last.

    Args:
        what: Identifies what is done for all workers, and its owner; the name of the file is derived from it.
    """

    def __init__(self, what: str) -> None:
        self._name = name_of(what)
        self._file: int | None = None

    async def enter(self) -> None:
        """Join the workers; wait for one that is undoing something, for at most `TIMEOUT`."""
        with suppress(OSError):
            self._file = open_private(self._name)
        end = asyncio.get_running_loop().time() + TIMEOUT
        while self._file is not None and not self._lock(fcntl.LOCK_SH):
            if asyncio.get_running_loop().time() > end:
                self.close()
            await asyncio.sleep(RETRY)

    def note(self, to_undo: Any) -> None:
        """Record what the last worker has to undo: a JSON value, or a false one for nothing."""
        if self._file is not None:
            content = json.dumps(to_undo).encode() if to_undo else b""
            with suppress(OSError):
                os.pwrite(self._file, content.ljust(os.fstat(self._file).st_size), 0)

    def read(self) -> Any:
        """Return what was recorded, or ``None``."""
        if self._file is None:
            return None
        try:
            return json.loads(os.pread(self._file, os.fstat(self._file).st_size, 0))
        except (OSError, ValueError):
            return None

    def leave(self) -> Any:
        """Leave; the last worker gets what was recorded, and must call `close` when it is undone."""
        if self._file is None:
            return None
        self._lock(fcntl.LOCK_UN)  # first, because two that leave at once would block each other
        return self.read() if self._lock(fcntl.LOCK_EX) else None

    def close(self) -> None:
        """Release the lock, so that other workers can start."""
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
