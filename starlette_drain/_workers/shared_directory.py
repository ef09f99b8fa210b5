# Where the workers of one task meet.
#
# A directory, private to the user, named after the supervisor: its pid, and its start time against the reuse of pids.
# What a task that was killed leaves behind is therefore never entered by another, and the next one clears it up. Files
# survive a worker's death, need no open descriptors, and can be looked at with `ls`.
#
# Not keyed on the parent of the process: two servers started from one shell would drain each other. Only a supervisor
# that starts workers counts: uvicorn's (the parent in the sense of multiprocessing) and gunicorn's (which says so).
"""A private directory that the worker processes of one task share."""

import json
import multiprocessing
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette_drain._workers.command import Order

__all__ = ["NoMeetingPlace", "SharedDirectory", "find_shared_directory", "find_supervisor"]

PROC = Path("/proc")

ABANDONED = 3600.0
"""Seconds without a word after which the directory of a dead supervisor counts as left behind."""

WORKER = re.compile(r"worker-(\d+)-(\d+)\.json")
ORDER = re.compile(r"order-(\d+)\.json")
DRAFT = re.compile(r"\.draft-(\d+)")


class NoMeetingPlace(OSError):
    """There is no directory to meet in; the message says why."""


def find_supervisor(environ: Mapping[str, str]) -> int | None:
    """Return the pid of the process that started this worker; ``None`` where there are no workers."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return parent.pid
    return os.getppid() if environ.get("SERVER_SOFTWARE", "").startswith("gunicorn") else None


def find_shared_directory(supervisor: int | None, where: str | None) -> "SharedDirectory":
    """
    Make or enter the directory for the workers of *supervisor*.

    Args:
        supervisor: A pid. Where it is not known everybody meets in *where*.
        where: The directory in which to make it; by default the temporary one, or the memory where that is read-only.

    Raises:
        NoMeetingPlace: If none can be written, or the one there is not private to this user.
    """
    if supervisor is None:
        place = SharedDirectory(Path(where or tempfile.gettempdir()))
        if not place.read_statuses():
            place.clear()  # what an earlier life left behind is no order to this one
        return place
    name = f"{_prefix()}{supervisor}-{_birth(supervisor) or 0}"
    if where is not None:
        return _place_in(_enter(Path(where)), name)
    problem: OSError = NoMeetingPlace("there is no temporary directory")
    for parent in (tempfile.gettempdir, lambda: "/dev/shm"):  # noqa: S108
        try:
            return _place_in(Path(parent()), name)
        except OSError as error:  # tempfile's own, where nothing is writable
            problem = error
    raise NoMeetingPlace(str(problem))


def _prefix() -> str:
    return f"starlette-drain-{os.geteuid()}-"


def _place_in(parent: Path, name: str) -> "SharedDirectory":
    place = SharedDirectory(parent / name)
    for path in parent.glob(f"{_prefix()}*-*"):
        with suppress(OSError, ValueError):
            if _is_abandoned(path):
                SharedDirectory(path).remove()
    return place


def _is_abandoned(path: Path) -> bool:
    """Tell whether a task has left *path* behind: a supervisor in another container only seems dead, so wait long."""
    pid, birth = path.name.split("-")[-2:]
    return _birth(int(pid)) != birth and time.time() - path.lstat().st_mtime > ABANDONED


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


class SharedDirectory:
    """
    The files in that directory. Every method may raise `OSError`.

    Args:
        path: The directory, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = _enter(path)

    def last_number(self) -> int:
        """Return the number of the latest order; 0 where there is none."""
        return max(self._order_files(), default=0)

    def read_orders(self, after: int) -> list[Order]:
        """
        Return the orders since number *after*, in order.

        Raises:
            ValueError: If one cannot be read.
        """
        files = sorted(self._order_files().items())
        return [Order.load(file.read_text()) for number, file in files if number > after]

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
        """
        Return how every live worker stands, by pid, and forget the dead.

        Raises:
            ValueError: If one cannot be read.
        """
        statuses: dict[int, dict[str, Any]] = {}
        for file, (pid, birth) in self._files("worker-*", WORKER):
            with suppress(FileNotFoundError):
                if _birth(int(pid)) == birth:
                    statuses[int(pid)] = json.loads(file.read_text())
                else:
                    file.unlink()
        return statuses

    def leave(self, pid: int, supervisor: int | None) -> None:
        """
        Take the worker *pid* out of the list. The last one clears the place up, unless somebody may come after it.

        Whether its *supervisor* stops them all or has this one replaced, a worker is not told. So while a drain stands
        the last one leaves the orders to whoever takes its place; if nobody does, the next server clears them up.
        """
        self._status_file(pid).unlink(missing_ok=True)
        if self.read_statuses():
            return
        orders = self.read_orders(0)
        does_drain = bool(orders) and orders[-1].cause is not None
        if supervisor is None or _birth(supervisor) is None or not does_drain:
            self.remove()

    def clear(self) -> None:
        """Remove what lies there."""
        for pattern, name in (("order-*", ORDER), ("worker-*", WORKER), (".draft-*", DRAFT)):
            for file, _ in self._files(pattern, name):
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the place, with what lies there."""
        self.clear()
        self.path.rmdir()

    def _order_files(self) -> dict[int, Path]:
        return {int(number): file for file, (number,) in self._files("order-*", ORDER)}

    def _files(self, pattern: str, name: re.Pattern[str]) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Yield the files that are ours; others are let be."""
        for file in self.path.glob(pattern):
            if match := name.fullmatch(file.name):
                yield file, match.groups()

    def _status_file(self, pid: int) -> Path:
        return self.path / f"worker-{pid}-{_birth(pid)}.json"

    def _draft(self, text: str) -> Path:
        draft = self.path / f".draft-{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return draft
