# Any user can write to the temporary directory: a name there may be a link, or a file that another user has planted.
# Only plain files that no other user can access are used.
"""Small private files that the processes of one container share, in the temporary directory."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

__all__ = ["name_of", "open_private"]

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - used if the temporary directory is read-only; the file is checked


def name_of(what: str) -> str:
    """Return the name of the file for *what*."""
    return f"starlette-drain-{os.geteuid()}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"


def open_private(name: str) -> int:
    """
    Open the file, creating it if necessary; return its descriptor.

    Raises:
        OSError: If it cannot be created, or the existing file is not private to this user.
    """
    try:
        file = _open(Path(tempfile.gettempdir()) / name)
    except OSError:
        file = _open(Path(SHARED_MEMORY) / name)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(file)
        raise PermissionError(name)
    return file


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
