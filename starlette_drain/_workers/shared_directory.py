# The directory is private to the user and named after the supervisor: its pid, and its start time, since pids are used
# again. So what a task that was killed leaves behind is never entered by another, and the next server removes it. Files
# survive a worker's death, need no open descriptors, and can be listed with `ls`.
#
# It is not named after just any parent process: two servers started from one shell would drain each other. Only a
# supervisor that starts workers counts: uvicorn's (the parent in the sense of multiprocessing) and gunicorn's.
"""A private directory that the worker processes of one task share."""

import multiprocessing
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from starlette_drain._workers.command import Entry
from starlette_drain._workers.heartbeat import Heartbeat

__all__ = ["NoSharedDirectory", "SharedDirectory", "find_shared_directory", "find_supervisor"]

PROC = Path("/proc")

ABANDONED = 3600.0
"""Seconds without a change after which the directory of a dead supervisor counts as left behind."""

WORKER = re.compile(r"worker-(\d+)-(\d+)\.json")
COMMAND = re.compile(r"command-(\d+)\.json")
DRAFT = re.compile(r"\.draft-(\d+)(-\d+)?")


class NoSharedDirectory(OSError):
    """There is no directory that the workers can share; the message says why."""


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
        supervisor: A pid; without one all share *where* itself.
        where: The directory in which to make it; by default the temporary one, or the memory where that is read-only.

    Raises:
        NoSharedDirectory: If none can be written, or the one there is not private to this user.
    """
    if supervisor is None:
        directory = SharedDirectory(Path(where or tempfile.gettempdir()))
        if not directory.live_workers():
            directory.clear()  # the commands of an earlier life do not concern this one
        return directory
    name = f"{_prefix()}{supervisor}-{_birth(supervisor) or 0}"
    if where is not None:
        return _enter_in(_enter(Path(where)), name)
    problem: OSError = NoSharedDirectory("there is no temporary directory")
    for parent in (tempfile.gettempdir, lambda: "/dev/shm"):  # noqa: S108
        try:
            return _enter_in(Path(parent()), name)
        except OSError as error:  # tempfile's own, where nothing is writable
            problem = error
    raise NoSharedDirectory(str(problem))


def _prefix() -> str:
    return f"starlette-drain-{os.geteuid()}-"


def _enter_in(parent: Path, name: str) -> "SharedDirectory":
    directory = SharedDirectory(parent / name)
    for path in parent.glob(f"{_prefix()}*-*"):
        with suppress(OSError, ValueError):
            if _is_abandoned(path):
                SharedDirectory(path).remove()
    return directory


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


def _is_private(path: Path) -> bool:
    """Return whether *path* is a directory of this user alone; False where there is nothing."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _enter(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        msg = f"{path} cannot be made: {error.strerror}"
        raise NoSharedDirectory(msg) from None
    if not _is_private(path):
        msg = f"{path} is not a directory private to this user; remove it, or set TMPDIR to a directory of your own"
        raise NoSharedDirectory(msg)
    if not os.access(path, os.W_OK | os.X_OK):
        msg = f"{path} is not writable"
        raise NoSharedDirectory(msg)
    return path


class SharedDirectory:
    """
    The files in that directory. Every method may raise `OSError`, and none may be called on an event loop's thread.

    Args:
        path: The directory, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = _enter(path)
        self._births: dict[int, str | None] = {}
        self._read: dict[str, tuple[tuple[int, int], Heartbeat]] = {}
        """What was read last, by the names of the files, with what tells whether they are the same."""

    def enter(self) -> None:
        """Make sure that it is still there, and private."""
        if not _is_private(self.path):
            _enter(self.path)

    def commands(self) -> dict[int, str]:
        """Return the names of the files with commands, by their numbers."""
        return {int(match[1]): match[0] for match in self._files(COMMAND)}

    def read_command(self, number: int) -> Entry:
        """
        Return the command with that *number*.

        Raises:
            ValueError: If it cannot be read.
        """
        return Entry.load(self._command_file(number).read_text())

    def write_command(self, entry: Entry) -> bool:
        """Write a command; return False if another worker has written one with that number."""
        draft = self._draft(entry.pid, entry.dump())
        try:
            os.link(draft, self._command_file(entry.number))
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def remove_command(self, number: int) -> None:
        """Remove the command with that *number*, if it is there."""
        self._command_file(number).unlink(missing_ok=True)

    def write_heartbeat(self, pid: int, heartbeat: Heartbeat) -> None:
        """Let the others know how the worker *pid* stands."""
        self._draft(pid, heartbeat.dump()).replace(self._heartbeat_file(pid))

    def has_heartbeat(self, pid: int) -> bool:
        """Return whether that of the worker *pid* is there."""
        return self._heartbeat_file(pid).exists()

    def read_heartbeats(self, besides: int) -> tuple[dict[int, Heartbeat], dict[str, str]]:
        """
        Return the heartbeats of the live workers *besides* one, by pid, and why files could not be read, by name.

        The files of dead workers are removed.
        """
        heartbeats: dict[int, Heartbeat] = {}
        unreadable: dict[str, str] = {}
        read, self._read = self._read, {}
        for match in self._files(WORKER):
            pid, birth, name = int(match[1]), match[2], match[0]
            if pid == besides:
                continue
            try:
                found = os.stat(f"{self.path}/{name}")  # noqa: PTH116 - four times a second for each worker
                version = found.st_mtime_ns, found.st_ino
                before = read.get(name)
                is_same = before is not None and before[0] == version
                # A worker that has written since the last time is alive; of the others the kernel knows.
                if (before is None or is_same) and _birth(pid) != birth:
                    (self.path / name).unlink(missing_ok=True)
                    continue
                heartbeat = before[1] if before and is_same else Heartbeat.load((self.path / name).read_text())
            except ValueError as error:
                unreadable[name] = str(error)
            except FileNotFoundError:  # it has just left
                continue
            else:
                heartbeats[pid] = heartbeat
                self._read[name] = version, heartbeat
        return heartbeats, unreadable

    def live_workers(self) -> dict[int, str]:
        """Return the names of the files with the heartbeats of live workers, by pid; remove those of the dead."""
        alive: dict[int, str] = {}
        for match in self._files(WORKER):
            if _birth(int(match[1])) == match[2]:
                alive[int(match[1])] = match[0]
            else:
                (self.path / match[0]).unlink(missing_ok=True)
        return alive

    def leave(self, pid: int, supervisor: int | None, *, is_draining: bool) -> None:
        """
        Remove the heartbeat of the worker *pid*; the last one removes the directory, unless another may come after it.

        A worker is not told whether its *supervisor* stops all workers or replaces this one. So while the task is
        draining the last one leaves the commands to the worker that takes its place. If none does, the next server
        removes them.
        """
        self._heartbeat_file(pid).unlink(missing_ok=True)
        if self.live_workers():
            return
        if supervisor is None or _birth(supervisor) is None or not is_draining:
            self.remove()

    def clear(self) -> None:
        """Remove the files, but none that another worker is writing now."""
        for kind in (COMMAND, WORKER, DRAFT):
            for match in self._files(kind):
                if kind is not DRAFT or _birth(int(match[1])) is None:
                    (self.path / match[0]).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory, with its files."""
        self.clear()
        self.path.rmdir()

    def _files(self, kind: re.Pattern[str]) -> list[re.Match[str]]:
        """Return the names of our files of one *kind*; others are left alone."""
        names = os.listdir(self.path)  # noqa: PTH208 - four times a second, and iterdir() makes a Path of each
        return [match for name in names if (match := kind.fullmatch(name))]

    def _command_file(self, number: int) -> Path:
        return self.path / f"command-{number:06}.json"

    def _heartbeat_file(self, pid: int) -> Path:
        if pid not in self._births:
            self._births[pid] = _birth(pid)
        return self.path / f"worker-{pid}-{self._births[pid]}.json"

    def _draft(self, pid: int, text: str) -> Path:
        # Of the thread, too: two applications in one process write at the same time.
        draft = self.path / f".draft-{pid}-{threading.get_ident()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return draft
