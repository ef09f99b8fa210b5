# Where the workers of one task meet.
#
# A directory, private to the user, named after the supervisor: its pid, and its start time against the reuse of pids.
# Files in it survive a worker's death, need no open descriptors, and can be looked at with `ls`. A lock on an open file
# is given back by the kernel whatever becomes of its holder.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from starlette_drain._core.order import Order

__all__ = ["MeetingPlace", "NoMeetingPlace", "find_meeting_place", "find_supervisor"]


class NoMeetingPlace(Exception):
    """There is no directory to meet in; the message says why."""


def find_supervisor(environ: Mapping[str, str]) -> int | None:
    """Return the pid of the process that started this worker; ``None`` where there are no workers."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return parent.pid
    return os.getppid() if environ.get("SERVER_SOFTWARE", "").startswith("gunicorn") else None


def find_meeting_place(supervisor: int, where: str | None) -> "MeetingPlace":
    """
    Make or enter the directory for the workers of *supervisor*.

    Args:
        supervisor: A pid.
        where: The directory to use; by default one in the temporary directory, or in memory where that is read-only.

    Raises:
        NoMeetingPlace: If none can be written, or the one there is not private to this user.
    """
    if where is not None:
        return MeetingPlace(_enter(Path(where)))
    name = f"starlette-drain-{os.geteuid()}-{supervisor}-{_start_time(supervisor)}"
    problem: Exception = NoMeetingPlace("there is no temporary directory")
    for parent in (tempfile.gettempdir(), "/dev/shm"):  # noqa: S108
        try:
            return MeetingPlace(_enter(Path(parent) / name))
        except NoMeetingPlace as error:
            problem = error
    raise problem


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot (proc_pid_stat(5), field 22)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "0"


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
    if not os.access(path, os.W_OK):
        msg = f"{path} is not writable"
        raise NoMeetingPlace(msg)
    return path


class MeetingPlace:
    """The files in that directory. Every method may raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locks: dict[str, TextIO] = {}

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def read_order(self) -> Order | None:
        """Return the latest order, if there is one."""
        with suppress(FileNotFoundError, ValueError):
            return Order.load((self._path / "order.json").read_text())
        return None

    @contextmanager
    def ordering(self) -> Iterator[Order | None]:
        """Hold the right to give the next order; yield the latest."""
        with (self._path / "order.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.read_order()

    def write_order(self, order: Order) -> None:
        """Give an order."""
        self._write("order.json", order.dump())

    def write_status(self, pid: int, status: Mapping[str, Any]) -> None:
        """Let the others know how the worker *pid* stands."""
        self._write(f"worker-{pid}.json", json.dumps(status))

    def read_statuses(self) -> dict[int, dict[str, Any]]:
        """Return how every live worker stands, by pid, and forget the dead."""
        statuses: dict[int, dict[str, Any]] = {}
        for file in self._path.glob("worker-*.json"):
            pid = int(file.stem.removeprefix("worker-"))
            with suppress(FileNotFoundError, ValueError):
                if _is_alive(pid):
                    statuses[pid] = json.loads(file.read_text())
                else:
                    file.unlink()
        return statuses

    def try_lock(self, name: str) -> bool:
        """Take a lock for as long as this process lives, or until `leave`; return whether it is ours."""
        if name in self._locks:
            return True
        lock = (self._path / f"{name}.lock").open("w")
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
        (self._path / f"worker-{pid}.json").unlink(missing_ok=True)
        if not self.read_statuses():
            for file in self._path.iterdir():
                file.unlink(missing_ok=True)
            self._path.rmdir()

    def _write(self, name: str, text: str) -> None:
        draft = self._path / f".{name}.{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        draft.replace(self._path / name)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
