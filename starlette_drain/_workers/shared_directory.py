# The directory is private to the user and named after the supervisor: its pid and its start time, because pids are
# reused. So no other task ever enters the directory of a task that was killed, and the next server removes it. Files
# survive a worker's death, need no open descriptors, and can be listed with `ls`.
#
# A drain is needed most when the machine is in trouble, so following one must need few resources:
#
#   - If nothing is new, no file is opened: whether the next command exists, and how old a heartbeat is, can be read
#     without a descriptor. A few spare descriptors are kept for opening and listing files.
#   - Shared memory is preferred to the disk, which may be full. A command that cannot be written to a file becomes a
#     dangling symbolic link whose target is the text, like the locks of Emacs and Firefox. That needs no descriptor and
#     little space. If there is no space at all, a reserve file is removed to make room.
#
# It is not named after just any parent process: two servers started from one shell would drain each other. Only a
# supervisor that starts workers counts: uvicorn's (the parent process of multiprocessing) and gunicorn's.
"""A private directory that the worker processes of one task share."""

import errno
import multiprocessing
import os
import re
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from starlette_drain._workers.command import Entry
from starlette_drain._workers.heartbeat import Heartbeat

__all__ = [
    "NoSharedDirectory",
    "SharedDirectory",
    "find_shared_directory",
    "find_sockets",
    "find_supervisor",
    "has_ended",
    "socket_file",
]

PROC = Path("/proc")

MEMORY = "/dev/shm"  # noqa: S108 - we use a private directory in it

ABANDONED = 3600.0
"""Seconds without a change after which the directory of a dead supervisor is removed."""

WORKER = re.compile(r"worker-(\d+)-(\d+)\.json")
COMMAND = re.compile(r"command-(\d+)\.json")
DRAFT = re.compile(r"\.(?:draft|spare)-(\d+)(-\d+)?")
SOCKET = re.compile(r"socket-(\d+)")

NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

SPARE = 3
"""The number of spare descriptors, used when the process may open no more files."""

RESERVE = 2, 4096
"""The number and size of the reserve files that make room on a full disk: one for a drain and one to cancel it."""

MOST_READ = 64 * 1024
"""The most bytes of a file that are read; ours have about a thousand."""

CYCLE = 64
"""Heartbeats are padded to this many different sizes, because the kernel reuses inodes at once."""

YOUNG = 2.0
"""Seconds after a heartbeat in which a worker counts as alive if its pid exists."""

LINKED = "starlette-drain/"
"""The prefix of a link's target that is a command. There is no such directory, so the link dangles."""

ResultT = TypeVar("ResultT")

Read = tuple[tuple[int, int], Heartbeat]
"""The identity of a file, and the heartbeat that was read from it."""


class NoSharedDirectory(OSError):
    """There is no directory that the workers can share; the message says why."""


def find_supervisor(environ: Mapping[str, str]) -> int | None:
    """Return the pid of the supervisor that started this worker, or ``None`` if there is none."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return parent.pid
    return os.getppid() if environ.get("SERVER_SOFTWARE", "").startswith("gunicorn") else None


def find_shared_directory(
    supervisor: int | None, where: str | None, environ: Mapping[str, str] = os.environ
) -> "SharedDirectory":
    """
    Create or enter the directory for the workers of *supervisor*.

    Args:
        supervisor: Its pid; without one, *where* itself is shared.
        where: The parent directory. By default shared memory, which works if the disk is full, and then the temporary
            directory; in the reverse order if TMPDIR is set.
        environ: The environment variables.

    Raises:
        NoSharedDirectory: If none can be written, or the existing one is not private to this user.
    """
    if supervisor is None:
        directory = SharedDirectory(Path(where or tempfile.gettempdir()))
        if not directory.live_workers():
            directory.clear()  # the commands of an earlier run do not concern this one
        return directory
    name = f"{_prefix()}{supervisor}-{_birth(supervisor) or 0}"
    if where is not None:
        return _enter_in(_enter(Path(where)), name)
    problem: OSError = NoSharedDirectory("there is no temporary directory")
    parents = [lambda: MEMORY, tempfile.gettempdir]
    for parent in reversed(parents) if environ.get("TMPDIR") else parents:
        try:
            return _enter_in(Path(parent()), name)
        except OSError as error:  # also raised by tempfile, if nothing is writable
            problem = error
    raise NoSharedDirectory(str(problem))


def socket_file(directory: Path, pid: int) -> Path:
    """Return the path of the socket on which the process *pid* answers the command."""
    return directory / f"socket-{pid}"


def has_ended(pid: int) -> bool:
    """Return whether the process *pid* has ended."""
    return _birth(pid) is None


def find_sockets(environ: Mapping[str, str] = os.environ) -> dict[int, list[Path]]:
    """
    Return the sockets of this user's processes by the pid of the task's main process.

    That is the supervisor of the workers, or the only process. Root, the user of ECS Exec, finds those of all users.
    """
    own = os.geteuid()
    for parent in dict.fromkeys((environ.get("TMPDIR"), MEMORY, tempfile.gettempdir())):
        found: dict[int, list[Path]] = {}
        for path in Path(parent).glob("starlette-drain-*-*-*") if parent else ():
            uid, pid, birth = path.name.split("-")[2:5]
            if not (uid.isdecimal() and pid.isdecimal()) or (own and int(uid) != own):
                continue
            with suppress(OSError):
                if _is_private(path, int(uid)) and (_birth(int(pid)) or "0") == birth:
                    sockets = sorted(each for each in path.iterdir() if SOCKET.fullmatch(each.name))
                    found |= {int(pid): sockets} if sockets else {}
        if found:
            return found
    return {}


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
    """Return whether *path* is left over. A supervisor in another container only looks dead, so this waits long."""
    pid, birth = path.name.split("-")[-2:]
    return _birth(int(pid)) != birth and time.time() - path.lstat().st_mtime > ABANDONED


def _birth(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot (proc_pid_stat(5), field 22); ``None`` if it is dead."""
    if not PROC.exists():  # macOS: no protection against reused pids
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return "0"
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]


def _is_gone(pid: int) -> bool:
    """Return whether there is no process *pid*, not even a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _is_listening(path: Path) -> bool:
    """Return whether a process listens on a socket, even in another container."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)


def _is_private(path: Path, uid: int | None = None) -> bool:
    """Return whether *path* is a directory that only this user, or *uid*, may enter; False if it does not exist."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    owner = os.geteuid() if uid is None else uid
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077


def _enter(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        msg = f"{path} cannot be created: {error.strerror}"
        raise NoSharedDirectory(msg) from None
    if not _is_private(path):
        msg = f"{path} is not a directory private to this user; remove it, or set TMPDIR to a directory of your own"
        raise NoSharedDirectory(msg)
    if not os.access(path, os.W_OK | os.X_OK):
        msg = f"{path} is not writable"
        raise NoSharedDirectory(msg)
    return path


class _Spares:
    """A few spare descriptors. One is closed whenever a file cannot be opened for lack of descriptors."""

    def __init__(self) -> None:
        self._kept: list[int] = []

    def fill(self) -> None:
        """Open spare descriptors, up to `SPARE` or as many as possible."""
        with suppress(OSError):
            while len(self._kept) < SPARE:
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def use(self, call: Callable[..., ResultT], *args: object) -> ResultT:
        """Return what *call*, which needs one descriptor, returns."""
        try:
            return call(*args)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR or not self._kept:
                raise
        os.close(self._kept.pop())
        return call(*args)

    def close(self) -> None:
        """Close all spare descriptors."""
        while self._kept:
            os.close(self._kept.pop())


class SharedDirectory:
    """
    The files in that directory. Every method may raise `OSError`; call none on the event loop's thread.

    Args:
        path: The directory; it is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = _enter(path)
        self.spares = _Spares()
        self._births: dict[int, str | None] = {}
        self._reserve: list[Path] = []
        self._listed: list[str] | None = None
        self._read: dict[str, Read] = {}
        """What was read last, by file name."""
        self._sequence = 0
        self._written: tuple[int, ...] | None = None
        """The identity of this worker's heartbeat file as it was written."""

    def enter(self) -> None:
        """Make sure that the directory exists and is private, and that there are spare descriptors."""
        self.spares.fill()
        if not _is_private(self.path):
            _enter(self.path)
            self._reserve.clear()

    def commands(self) -> dict[int, str]:
        """Return the names of the command files, by number."""
        return {int(match[1]): match[0] for match in self._files(COMMAND)}

    def has_command(self, number: int) -> bool:
        """Return whether there is a command with that *number*, without using a descriptor."""
        try:
            os.lstat(self._command_file(number))
        except FileNotFoundError:
            return False
        return True

    def read_command(self, number: int) -> Entry:
        """
        Return the command with that *number*.

        Raises:
            ValueError: If its content is not a command that this version can read.
        """
        path = self._command_file(number)
        try:
            text = os.readlink(path).removeprefix(LINKED)  # noqa: PTH115 - a Path would merge double slashes
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: it is not a link
                raise
            text = self._text(path)
        return Entry.load(text)

    def write_command(self, entry: Entry) -> bool:
        """Write a command; return False if another worker has written one with that number."""
        path = self._command_file(entry.number)
        try:
            draft = self._draft(entry.pid, entry.dump())
        except OSError:
            return self._write_link(LINKED + entry.dump(), path)
        try:
            return _link(lambda: os.link(draft, path))
        except OSError:
            return self._write_link(LINKED + entry.dump(), path)
        finally:
            draft.unlink()

    def keep_reserve(self, pid: int) -> None:
        """Create the reserve files of the worker *pid*, as far as there is space for them."""
        for file in self._reserve_of(pid):
            if file not in self._reserve:
                with suppress(OSError):
                    try:
                        file.touch(mode=0o600)
                        file.write_bytes(bytes(RESERVE[1]))
                    except OSError:
                        file.unlink(missing_ok=True)
                        raise
                    self._reserve.append(file)

    def remove_command(self, number: int) -> None:
        """Remove the command with that *number*, if it exists."""
        Path(self._command_file(number)).unlink(missing_ok=True)

    def write_heartbeat(self, pid: int, heartbeat: Heartbeat) -> None:
        """Publish the status of the worker *pid*."""
        text, self._sequence = heartbeat.dump(), self._sequence + 1
        text += " " * ((self._sequence - len(text)) % CYCLE)
        draft, file = self._draft(pid, text), self._heartbeat_file(pid)
        _set_moment(draft, heartbeat.at)
        draft.replace(file)
        self._written = _version(file)

    def beat(self, pid: int, at: float) -> bool:
        """
        Publish that the heartbeat of the worker *pid* still holds at *at*, by the modification time of its file.

        The file is not opened. Return False if it does not exist as it was written.
        """
        file = self._heartbeat_file(pid)
        with suppress(FileNotFoundError):
            if _version(file) == self._written:
                _set_moment(file, at)
                self._written = _version(file)
                return True
        return False

    def read_heartbeats(self, own: int, now: float) -> tuple[dict[int, Heartbeat], dict[str, str]]:
        """
        Return the heartbeats of the other live workers, by pid, and why files could not be read, by file name.

        The files of dead workers are removed.

        Args:
            own: The pid of this worker.
            now: The time on the monotonic clock.
        """
        heartbeats: dict[int, Heartbeat] = {}
        unreadable: dict[str, str] = {}
        read, self._read = self._read, {}
        for match in self._files(WORKER):
            pid, birth, name = int(match[1]), match[2], match[0]
            if pid == own:
                continue
            before = read.get(name)
            try:
                found = self._read_heartbeat(pid, birth, name, before, now)
            except FileNotFoundError:  # it has just left
                continue
            except (ValueError, OSError) as error:
                if not isinstance(error, OSError) or error.errno not in NO_DESCRIPTOR:
                    unreadable[name] = str(error)
                    continue
                found = before
            else:
                if found is None:
                    self._forget(pid, name)
            if found is not None:
                self._read[name], heartbeats[pid] = found, found[1]
        return heartbeats, unreadable

    def _read_heartbeat(self, pid: int, birth: str, name: str, before: Read | None, now: float) -> Read | None:
        """Return a heartbeat, opening the file only if it has changed since *before*; ``None`` for a dead worker."""
        found = os.stat(f"{self.path}/{name}")  # noqa: PTH116 - twice a second for each worker
        version, moment = (found.st_ino, found.st_size), found.st_mtime_ns / 1e9
        # For a young heartbeat the pid is enough; otherwise it may have been reused.
        is_young = before is not None and now - moment <= YOUNG
        if _is_gone(pid) or (not is_young and self.spares.use(_birth, pid) != birth):
            return None
        is_same = before is not None and before[0] == version and before[1].at <= moment <= now
        heartbeat = before[1] if before and is_same else Heartbeat.load(self._text(f"{self.path}/{name}"))
        at = moment if heartbeat.at <= moment <= now else min(heartbeat.at, now)
        return version, replace(heartbeat, at=at)

    def _forget(self, pid: int, name: str) -> None:
        """Remove the files of a dead worker."""
        for file in (self.path / name, *self._reserve_of(pid)):
            file.unlink(missing_ok=True)

    def live_workers(self) -> dict[int, str]:
        """Return the names of the heartbeat files of live workers, by pid; remove those of dead workers."""
        alive: dict[int, str] = {}
        for match in self._files(WORKER):
            if self.spares.use(_birth, int(match[1])) == match[2]:
                alive[int(match[1])] = match[0]
            else:
                (self.path / match[0]).unlink(missing_ok=True)
        return alive

    def leave(self, pid: int, supervisor: int | None, *, is_draining: bool) -> None:
        """
        Remove the heartbeat of the worker *pid*; the last worker removes the directory, unless another may follow.

        A worker does not know whether its *supervisor* stops all workers or replaces this one. So while the task is
        draining, the last worker leaves the commands to its replacement. If there is none, the next server removes
        them.
        """
        for file in self._reserve:
            file.unlink(missing_ok=True)
        Path(self._heartbeat_file(pid)).unlink(missing_ok=True)
        if self.live_workers():
            return
        if supervisor is None or _birth(supervisor) is None or not is_draining:
            self.remove()

    def clear(self) -> None:
        """Remove the files, except those of a worker that is just joining, or of a socket in use."""
        for kind in (COMMAND, WORKER, DRAFT, SOCKET):
            for match in self._files(kind):
                pid = int(match[1])
                is_in_use = (
                    (kind is WORKER and _birth(pid) == match[2])
                    or (kind is DRAFT and _birth(pid) is not None)
                    or (kind is SOCKET and pid != os.getpid() and _is_listening(self.path / match[0]))
                )
                if not is_in_use:
                    (self.path / match[0]).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory and its files."""
        self.clear()
        self.path.rmdir()

    def _reserve_of(self, pid: int) -> list[Path]:
        return [self.path / f".spare-{pid}-{number}" for number in range(RESERVE[0])]

    def _write_link(self, text: str, path: str) -> bool:
        while True:
            try:
                return _link(lambda: os.symlink(text, path))  # noqa: PTH211 - as above
            except OSError as error:
                if error.errno not in NO_ROOM or not self._reserve:
                    raise
                self._reserve.pop().unlink(missing_ok=True)

    def _files(self, kind: re.Pattern[str]) -> list[re.Match[str]]:
        """Return the matches of our files of one *kind*."""
        return [match for name in self._names() if (match := kind.fullmatch(name))]

    def _names(self) -> list[str]:
        """
        Return the names of all files.

        Without a descriptor these are the names at the last listing, with the commands that have been added since.
        """
        try:
            self._listed = self.spares.use(os.listdir, self.path)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR or self._listed is None:
                raise
            numbers = [int(match[1]) for name in self._listed if (match := COMMAND.fullmatch(name))]
            known = {number for number in numbers if self.has_command(number)}
            number = max(numbers, default=0) + 1
            while self.has_command(number):
                known.add(number)
                number += 1
            self._listed = [name for name in self._listed if not COMMAND.fullmatch(name)]
            self._listed += [Path(self._command_file(number)).name for number in known]
        return self._listed

    def _command_file(self, number: int) -> str:
        return f"{self.path}/command-{number:06}.json"

    def _heartbeat_file(self, pid: int) -> str:
        if pid not in self._births:
            self._births[pid] = self.spares.use(_birth, pid)
        return f"{self.path}/worker-{pid}-{self._births[pid]}.json"

    def _text(self, path: str) -> str:
        """Return the content of a file, at most its first `MOST_READ` bytes."""
        descriptor = self.spares.use(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, MOST_READ).decode()
        finally:
            os.close(descriptor)
            self.spares.fill()

    def _draft(self, pid: int, text: str) -> Path:
        # Named after the thread too: two applications in one process may write at the same time.
        draft = self.path / f".draft-{pid}-{threading.get_ident()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            with os.fdopen(self.spares.use(os.open, draft, flags, 0o600), "w") as file:
                file.write(text)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            self.spares.fill()
        return draft


def _link(make: Callable[[], None]) -> bool:
    """Create a link; return False if the name is taken."""
    try:
        make()
    except FileExistsError:
        return False
    return True


def _set_moment(file: Path | str, at: float) -> None:
    """Set the modification time of *file* to a moment on the monotonic clock, which all processes share."""
    os.utime(file, ns=(time.time_ns(), int(at * 1e9)))


def _version(file: str) -> tuple[int, ...]:
    """Return the identity of a file: its inode, size and modification time."""
    found = os.stat(file)  # noqa: PTH116 - once a second for each worker
    return found.st_ino, found.st_size, found.st_mtime_ns
