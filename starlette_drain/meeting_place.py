# Where the workers of one task meet.
#
# A directory, private to the user, named after the supervisor: its pid, and its start time against the reuse of pids.
# What a task that was killed leaves behind is therefore never entered by another. Files survive a worker's death, need
# no open descriptors, and can be looked at with `ls`. A lock on an open file is given back by the kernel whatever
# becomes of its holder.
#
# Not keyed on the parent of the process: two servers started from one shell would drain each other. Only a supervisor
# that starts workers counts: uvicorn's (the parent in the sense of multiprocessing) and gunicorn's (which says so).
"""A private directory that the worker processes of one task share."""

import fcntl
import json
import multiprocessing
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from starlette_drain._core.order import Order

__all__ = ["MeetingPlace", "NoMeetingPlace", "find_meeting_place", "find_supervisor"]

PROC = Path("/proc")


class NoMeetingPlace(OSError):
    """There is no directory to meet in; the message says why."""


def find_supervisor(environ: Mapping[str, str]) -> int | None:
    """Return the pid of the process that started this worker; ``None`` where there are no workers."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return parent.pid
    return os.getppid() if environ.get("SERVER_SOFTWARE", "").startswith("gunicorn") else None


def find_meeting_place(supervisor: int | None, where: str | None) -> "MeetingPlace":
    """
    Make or enter the directory for the workers of *supervisor*.

    Args:
        supervisor: A pid. Where it is not known everybody meets in *where*.
        where: The directory in which to make it; by default the temporary one, or the memory where that is read-only.

    Raises:
        NoMeetingPlace: If none can be written, or the one there is not private to this user.
    """
    if supervisor is None:
        place = MeetingPlace(Path(where or tempfile.gettempdir()))
        if not place.read_statuses():
            place.clear()  # what an earlier life left behind is no order to this one
        return place
    name = f"starlette-drain-{os.geteuid()}-{supervisor}-{_birth(supervisor) or 0}"
    if where is not None:
        return MeetingPlace(_enter(Path(where)) / name)
    problem: OSError = NoMeetingPlace("there is no temporary directory")
    for parent in (tempfile.gettempdir, lambda: "/dev/shm"):  # noqa: S108
        try:
            return MeetingPlace(Path(parent()) / name)
        except OSError as error:  # tempfile's own, where nothing is writable
            problem = error
    raise NoMeetingPlace(str(problem))


def _birth(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot (proc_pid_stat(5), field 22); ``None`` if it is dead."""
    if not PROC.exists():  # macOS: no protection against the reuse of pids
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return "0"
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("order-"))


def _enter(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        msg = f"{path} cannot be made: {error.strerror}"
        raise NoMeetingPlace(msg) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        msg = f"{path} is not a directory private to this user; remove it, or set workers_dir to one of mode 0700"
        raise NoMeetingPlace(msg)
    if not os.access(path, os.W_OK | os.X_OK):
        msg = f"{path} is not writable"
        raise NoMeetingPlace(msg)
    return path


class MeetingPlace:
    """
    The files in that directory. Every method may raise `OSError`.

    Args:
        path: The directory, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = _enter(path)
        self._locks: dict[str, TextIO] = {}

    def last_number(self) -> int:
        """Return the number of the latest order; 0 where there is none."""
        return max((_number(file) for file in self.path.glob("order-*.json")), default=0)

    def read_orders(self, after: int) -> list[Order]:
        """Return the orders since number *after*, in order."""
        files = sorted(file for file in self.path.glob("order-*.json") if _number(file) > after)
        return [Order.load(file.read_text()) for file in files]

    def write_order(self, order: Order) -> bool:
        """Give an order; return False where somebody else has given that number first."""
        draft = self._draft(order.dump())
        try:
            os.link(draft, self.path / f"order-{order.number:06}.json")
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def write_status(self, pid: int, status: Mapping[str, Any]) -> None:
        """Let the others know how the worker *pid* stands."""
        _enter(self.path)  # the last of those who left together may have cleared it up under our feet
        self._draft(json.dumps(status)).replace(self._status_file(pid))

    def read_statuses(self) -> dict[int, dict[str, Any]]:
        """Return how every live worker stands, by pid, and forget the dead."""
        statuses: dict[int, dict[str, Any]] = {}
        for file in self.path.glob("worker-*.json"):
            pid, birth = file.stem.removeprefix("worker-").split("-")
            with suppress(FileNotFoundError):
                if _birth(int(pid)) == birth:
                    statuses[int(pid)] = json.loads(file.read_text())
                else:
                    file.unlink()
        return statuses

    def try_lock(self, name: str) -> bool:
        """Take a lock for as long as this process lives, or until `leave`; return whether it is ours."""
        if name in self._locks:
            return True
        lock = (self.path / f"{name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._locks[name] = lock
        return True

    def leave(self, pid: int) -> None:
        """Take the worker *pid* out of the list and give its locks back; the last one clears the place up."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()
        self._status_file(pid).unlink(missing_ok=True)
        if not self.read_statuses():
            self.clear()
            self.path.rmdir()

    def clear(self) -> None:
        """Remove what lies there."""
        for pattern in ("order-*.json", "worker-*.json", "*.lock", ".draft-*"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)

    def _status_file(self, pid: int) -> Path:
        return self.path / f"worker-{pid}-{_birth(pid)}.json"

    def _draft(self, text: str) -> Path:
        draft = self.path / f".draft-{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return draft
