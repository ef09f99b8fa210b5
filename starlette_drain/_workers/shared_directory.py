# The directory is private to the user and named after the supervisor: its pid, and its start time, since pids are used
# again. So what a task that was killed leaves behind is never entered by another, and the next server removes it. Files
# survive a worker's death, need no open descriptors, and can be listed with `ls`.
#
# The worker that needs a drain most is the one whose machine is in trouble, so little is needed to hear of one:
#
#   - Where nothing is new no file is opened: whether the next command is there, and how old a heartbeat is, the kernel
#     tells without a descriptor. For what has to be opened, and for listing, a few descriptors are kept.
#   - The memory is preferred to the disk, which may be full. A command that cannot be written to a file becomes a
#     symbolic link that leads nowhere and whose target is the text, as the locks of Emacs and Firefox do: that takes
#     no descriptor, and little space. Where there is none at all, a file that was kept for this makes room.
#
# It is not named after just any parent process: two servers started from one shell would drain each other. Only a
# supervisor that starts workers counts: uvicorn's (the parent in the sense of multiprocessing) and gunicorn's.
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
    "socket_file",
]

PROC = Path("/proc")

MEMORY = "/dev/shm"  # noqa: S108 - a directory of our own in it, private to the user

ABANDONED = 3600.0
"""Seconds without a change after which the directory of a dead supervisor counts as left behind."""

WORKER = re.compile(r"worker-(\d+)-(\d+)\.json")
COMMAND = re.compile(r"command-(\d+)\.json")
DRAFT = re.compile(r"\.(?:draft|spare)-(\d+)(-\d+)?")
SOCKET = re.compile(r"socket-(\d+)")

NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

SPARE = 3
"""Descriptors that are kept to open files with when the process may open no more."""

ROOM = 2, 4096
"""Files that are kept to make room on a disk that is full, and their sizes: one for a drain and one to cancel it."""

MOST_READ = 64 * 1024
"""Bytes of a file that are read; ours have about a thousand."""

CYCLE = 64
"""A heartbeat that is written anew has another size than the last ones: the kernel gives inodes again at once."""

YOUNG = 2.0
"""Seconds after a beat in which a worker is alive unless its process has gone."""

LINKED = "starlette-drain/"
"""What a command begins with that is the target of a link. There is no such directory, so the link leads nowhere."""

ResultT = TypeVar("ResultT")

Read = tuple[tuple[int, int], Heartbeat]
"""What tells whether a file is the same, and the heartbeat that was read from it."""


class NoSharedDirectory(OSError):
    """There is no directory that the workers can share; the message says why."""


def find_supervisor(environ: Mapping[str, str]) -> int | None:
    """Return the pid of the process that started this worker; ``None`` where there are no workers."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        return parent.pid
    return os.getppid() if environ.get("SERVER_SOFTWARE", "").startswith("gunicorn") else None


def find_shared_directory(
    supervisor: int | None, where: str | None, environ: Mapping[str, str] = os.environ
) -> "SharedDirectory":
    """
    Make or enter the directory for the workers of *supervisor*.

    Args:
        supervisor: A pid; without one all share *where* itself.
        where: The directory in which to make it; by default the memory, which is not full when the disk is, or the
            temporary directory; that one first where TMPDIR is set.
        environ: The environment.

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
    parents = [lambda: MEMORY, tempfile.gettempdir]
    for parent in reversed(parents) if environ.get("TMPDIR") else parents:
        try:
            return _enter_in(Path(parent()), name)
        except OSError as error:  # tempfile's own, where nothing is writable
            problem = error
    raise NoSharedDirectory(str(problem))


def socket_file(directory: Path, pid: int) -> Path:
    """Return where the process *pid* answers the command."""
    return directory / f"socket-{pid}"


def find_sockets(environ: Mapping[str, str] = os.environ) -> dict[int, list[Path]]:
    """
    Return the sockets on which processes of this user may answer, by the process that stands for the task.

    That is the supervisor of its workers, or the only process. Root finds those of all users: it is who ECS Exec is.
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
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]


def _is_gone(pid: int) -> bool:
    """Return whether there is no such process, not even one that its parent has not looked after yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _is_listening(path: Path) -> bool:
    """Return whether a process listens on a socket, be it in another container."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)


def _is_private(path: Path, uid: int | None = None) -> bool:
    """Return whether *path* is a directory of this user, or of *uid*, alone; False where there is nothing."""
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
        msg = f"{path} cannot be made: {error.strerror}"
        raise NoSharedDirectory(msg) from None
    if not _is_private(path):
        msg = f"{path} is not a directory private to this user; remove it, or set TMPDIR to a directory of your own"
        raise NoSharedDirectory(msg)
    if not os.access(path, os.W_OK | os.X_OK):
        msg = f"{path} is not writable"
        raise NoSharedDirectory(msg)
    return path


class _Spares:
    """A few descriptors, one of which is given up for each file that could not be opened otherwise."""

    def __init__(self) -> None:
        self._kept: list[int] = []

    def fill(self) -> None:
        """Keep as many as there should be, or as many as there may be."""
        with suppress(OSError):
            while len(self._kept) < SPARE:
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def use(self, call: Callable[..., ResultT], *args: object) -> ResultT:
        """Return what *call* returns, which needs one descriptor."""
        try:
            return call(*args)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR or not self._kept:
                raise
        os.close(self._kept.pop())
        return call(*args)

    def close(self) -> None:
        """Keep none any more."""
        while self._kept:
            os.close(self._kept.pop())


class SharedDirectory:
    """
    The files in that directory. Every method may raise `OSError`, and none may be called on an event loop's thread.

    Args:
        path: The directory, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = _enter(path)
        self.spares = _Spares()
        self._births: dict[int, str | None] = {}
        self._room: list[Path] = []
        self._listed: list[str] | None = None
        self._read: dict[str, Read] = {}
        """What was read last, by the names of the files, with what tells whether they are the same."""
        self._sequence = 0
        self._written: tuple[int, ...] | None = None
        """What tells whether the heartbeat of this worker is as it was written."""

    def enter(self) -> None:
        """Make sure that it is still there, and private, and that there are spare descriptors."""
        self.spares.fill()
        if not _is_private(self.path):
            _enter(self.path)
            self._room.clear()

    def commands(self) -> dict[int, str]:
        """Return the names of the files with commands, by their numbers."""
        return {int(match[1]): match[0] for match in self._files(COMMAND)}

    def has_command(self, number: int) -> bool:
        """Return whether there is one with that *number*; that takes no descriptor."""
        try:
            os.lstat(self._command_file(number))
        except FileNotFoundError:
            return False
        return True

    def read_command(self, number: int) -> Entry:
        """
        Return the command with that *number*.

        Raises:
            ValueError: If it cannot be read.
        """
        path = self._command_file(number)
        try:
            text = os.readlink(path).removeprefix(LINKED)  # noqa: PTH115 - a Path would lose two slashes in a row
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is no link
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

    def keep_room(self, pid: int) -> None:
        """Keep files of the worker *pid* that make room for its commands on a disk that is full, or as many as go."""
        for file in self._room_of(pid):
            if file not in self._room:
                with suppress(OSError):
                    try:
                        file.touch(mode=0o600)
                        file.write_bytes(bytes(ROOM[1]))
                    except OSError:
                        file.unlink(missing_ok=True)
                        raise
                    self._room.append(file)

    def remove_command(self, number: int) -> None:
        """Remove the command with that *number*, if it is there."""
        Path(self._command_file(number)).unlink(missing_ok=True)

    def write_heartbeat(self, pid: int, heartbeat: Heartbeat) -> None:
        """Let the others know how the worker *pid* stands."""
        text, self._sequence = heartbeat.dump(), self._sequence + 1
        text += " " * ((self._sequence - len(text)) % CYCLE)
        draft, file = self._draft(pid, text), self._heartbeat_file(pid)
        _set_moment(draft, heartbeat.at)
        draft.replace(file)
        self._written = _version(file)

    def beat(self, pid: int, at: float) -> bool:
        """
        Let the others know that the heartbeat of the worker *pid* holds still, at the moment *at*.

        That is the time of the file, which is not opened for it. Return False if it is not there as it was written.
        """
        file = self._heartbeat_file(pid)
        with suppress(FileNotFoundError):
            if _version(file) == self._written:
                _set_moment(file, at)
                self._written = _version(file)
                return True
        return False

    def read_heartbeats(self, besides: int, now: float) -> tuple[dict[int, Heartbeat], dict[str, str]]:
        """
        Return the heartbeats of the live workers *besides* one, by pid, and why files could not be read, by name.

        The files of dead workers are removed. *now* is the present moment on the clock of the heartbeats.
        """
        heartbeats: dict[int, Heartbeat] = {}
        unreadable: dict[str, str] = {}
        read, self._read = self._read, {}
        for match in self._files(WORKER):
            pid, birth, name = int(match[1]), match[2], match[0]
            if pid == besides:
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
        """Return a heartbeat, opening its file only where that is not the one *before*; ``None`` of a dead worker."""
        found = os.stat(f"{self.path}/{name}")  # noqa: PTH116 - twice a second for each worker
        version, moment = (found.st_ino, found.st_size), found.st_mtime_ns / 1e9
        # A worker whose heartbeat is young is alive; of the others the kernel knows.
        is_young = before is not None and now - moment <= YOUNG
        if _is_gone(pid) or (not is_young and self.spares.use(_birth, pid) != birth):
            return None
        is_same = before is not None and before[0] == version and before[1].at <= moment <= now
        heartbeat = before[1] if before and is_same else Heartbeat.load(self._text(f"{self.path}/{name}"))
        at = moment if heartbeat.at <= moment <= now else min(heartbeat.at, now)
        return version, replace(heartbeat, at=at)

    def _forget(self, pid: int, name: str) -> None:
        """Remove the files of a dead worker."""
        for file in (self.path / name, *self._room_of(pid)):
            file.unlink(missing_ok=True)

    def live_workers(self) -> dict[int, str]:
        """Return the names of the files with the heartbeats of live workers, by pid; remove those of the dead."""
        alive: dict[int, str] = {}
        for match in self._files(WORKER):
            if self.spares.use(_birth, int(match[1])) == match[2]:
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
        for file in self._room:
            file.unlink(missing_ok=True)
        Path(self._heartbeat_file(pid)).unlink(missing_ok=True)
        if self.live_workers():
            return
        if supervisor is None or _birth(supervisor) is None or not is_draining:
            self.remove()

    def clear(self) -> None:
        """Remove the files, but none that another worker is writing now, or listens on."""
        for kind in (COMMAND, WORKER, DRAFT, SOCKET):
            for match in self._files(kind):
                pid = int(match[1])
                is_in_use = (kind is DRAFT and _birth(pid) is not None) or (
                    kind is SOCKET and pid != os.getpid() and _is_listening(self.path / match[0])
                )
                if not is_in_use:
                    (self.path / match[0]).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory, with its files."""
        self.clear()
        self.path.rmdir()

    def _room_of(self, pid: int) -> list[Path]:
        return [self.path / f".spare-{pid}-{number}" for number in range(ROOM[0])]

    def _write_link(self, text: str, path: str) -> bool:
        while True:
            try:
                return _link(lambda: os.symlink(text, path))  # noqa: PTH211 - as above
            except OSError as error:
                if error.errno not in NO_ROOM or not self._room:
                    raise
                self._room.pop().unlink(missing_ok=True)

    def _files(self, kind: re.Pattern[str]) -> list[re.Match[str]]:
        """Return the names of our files of one *kind*; others are left alone."""
        return [match for name in self._names() if (match := kind.fullmatch(name))]

    def _names(self) -> list[str]:
        """Return what is there; without a descriptor, what was there, and the commands that have come since."""
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
        """Return what is in a file; of one that never ends, or is much too long, the beginning."""
        descriptor = self.spares.use(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, MOST_READ).decode()
        finally:
            os.close(descriptor)
            self.spares.fill()

    def _draft(self, pid: int, text: str) -> Path:
        # Of the thread, too: two applications in one process write at the same time.
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
    """Make a link; return False where the name is taken."""
    try:
        make()
    except FileExistsError:
        return False
    return True


def _set_moment(file: Path | str, at: float) -> None:
    """Let the time of *file* be a moment on the monotonic clock, which all processes of a machine share."""
    os.utime(file, ns=(time.time_ns(), int(at * 1e9)))


def _version(file: str) -> tuple[int, ...]:
    """Return what tells whether a file is as it was written."""
    found = os.stat(file)  # noqa: PTH116 - once a second for each worker
    return found.st_ino, found.st_size, found.st_mtime_ns
