"""The directory that the workers of one task share: private, keyed on the supervisor, tidy."""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from starlette_drain import DrainCause
from starlette_drain._workers import shared_directory
from starlette_drain._workers.command import Cancel, Claim, Entry
from starlette_drain._workers.heartbeat import PLAN, PROGRESS, SESSIONS, UNDER_WAY, Heartbeat
from starlette_drain._workers.shared_directory import (
    NoSharedDirectory,
    SharedDirectory,
    find_shared_directory,
    find_supervisor,
)

CAUSE = DrainCause("manual", "because", 1.0, 2.0)
HEARTBEAT = Heartbeat(
    at=2.0,
    since=1.0,
    applied=0,
    state="serving",
    sessions=dict.fromkeys(SESSIONS, 1),
    counts=dict.fromkeys((*UNDER_WAY, *PROGRESS, *PLAN), 0),
    report=None,
    failures={},
    window=[0.0, None],
    fleet=[0.0, None],
    is_done=False,
    rotation=[0.0, None],
)


@pytest.fixture
def alive():
    """Return the pid of a process that lives."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def directory(tmp_path):
    """Return a directory of its own."""
    return SharedDirectory(tmp_path / "directory")


# --- Whose workers these are ---


def test_a_process_of_its_own_has_no_supervisor():
    """A server started from a shell is no worker, whatever else was started from it."""
    assert find_supervisor({}) is None


def test_the_supervisor_is_the_parent_in_the_sense_of_multiprocessing(monkeypatch):
    """uvicorn, hypercorn and granian start their workers by multiprocessing."""
    monkeypatch.setattr(shared_directory.multiprocessing, "parent_process", lambda: SimpleNamespace(pid=77))
    assert find_supervisor({}) == 77


def test_the_supervisor_is_gunicorn_where_that_says_so():
    """Gunicorn forks, and leaves its name in the environment."""
    assert find_supervisor({"SERVER_SOFTWARE": "gunicorn/27.0.1"}) == os.getppid()


def test_the_directory_is_named_after_the_supervisor_and_its_start(tmp_path, monkeypatch, alive):
    """A pid that is used again names another directory: what a killed task leaves behind is not entered again."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = find_shared_directory(alive, None, {"TMPDIR": str(tmp_path)})
    assert directory.path.parent == tmp_path
    uid, pid, birth = directory.path.name.removeprefix("starlette-drain-").split("-")
    assert (uid, pid) == (str(os.geteuid()), str(alive))
    assert int(birth) > 0
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_two_supervisors_do_not_share_one_directory(tmp_path, alive):
    """Two servers of one task may be given the same directory."""
    first, second = (find_shared_directory(pid, str(tmp_path / "workers")) for pid in (alive, os.getpid()))
    assert first.path.parent == second.path.parent == tmp_path / "workers"
    assert first.path != second.path


def test_without_a_supervisor_all_share_the_directory_itself(tmp_path):
    """Processes that only their directory joins, such as those of supervisord."""
    assert find_shared_directory(None, str(tmp_path / "workers")).path == tmp_path / "workers"


def test_the_memory_is_preferred_to_a_disk_that_may_be_full(alive):
    """Where TMPDIR is not set, the directory is in the memory, and private."""
    directory = find_shared_directory(alive, None, {})
    assert directory.path.parent.as_posix() == "/dev/shm"
    assert directory.path.stat().st_mode & 0o777 == 0o700
    directory.path.rmdir()


def test_without_a_file_system_in_the_memory_the_temporary_directory_will_do(tmp_path, monkeypatch, alive):
    """Not every system has /dev/shm, and it may be read-only."""
    monkeypatch.setattr(shared_directory, "MEMORY", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert find_shared_directory(alive, None, {}).path.parent == tmp_path


def test_where_nothing_temporary_can_be_written_the_memory_will_do(monkeypatch, alive):
    """A read-only root file system has no temporary directory; Docker's /dev/shm is writable all the same."""

    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    directory = find_shared_directory(alive, None, {"TMPDIR": "/nowhere"})
    assert directory.path.parent.as_posix() == "/dev/shm"
    directory.path.rmdir()


# --- Which directories are trusted ---


def anybodys(path):
    """Let everybody in."""
    path.mkdir(mode=0o711)


def linked(path):
    """Lead elsewhere."""
    (path.parent / "target").mkdir(mode=0o700)
    path.symlink_to(path.parent / "target")


def file(path):
    """Be no directory."""
    path.write_text("")


@pytest.mark.parametrize("spoil", [anybodys, linked, file])
def test_what_is_not_a_private_directory_is_not_entered(tmp_path, spoil):
    """Another user may have made it first; the message says what to do."""
    path = tmp_path / "directory"
    spoil(path)
    with pytest.raises(NoSharedDirectory, match=str(path)):
        SharedDirectory(path)


def test_a_directory_of_another_user_is_not_entered(tmp_path, monkeypatch):
    """In a shared /tmp anybody can guess its name."""
    (tmp_path / "directory").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(NoSharedDirectory, match="not a directory private to this user"):
        SharedDirectory(tmp_path / "directory")


def test_a_directory_that_cannot_be_made_says_why(tmp_path):
    """A missing parent, a read-only file system."""
    with pytest.raises(NoSharedDirectory, match="cannot be created: No such file or directory"):
        SharedDirectory(tmp_path / "missing" / "directory")


def test_a_directory_that_is_not_writable_says_so(tmp_path, monkeypatch):
    """A read-only mount lets in, and takes nothing."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NoSharedDirectory, match="is not writable"):
        SharedDirectory(tmp_path / "directory")


# --- Commands ---


def test_commands_are_found_by_their_numbers(directory):
    """Each number is given once, however many digits it has."""
    assert directory.commands() == {}
    assert all(directory.write_command(Entry(number, 1, Claim(CAUSE))) for number in range(1, 12))
    assert sorted(directory.commands()) == list(range(1, 12))
    assert directory.read_command(11) == Entry(11, 1, Claim(CAUSE))
    directory.remove_command(11)
    directory.remove_command(11)
    assert 11 not in directory.commands()


def test_of_two_that_give_the_same_number_one_is_told(directory):
    """The first holds; nothing is overwritten, and no draft stays behind."""
    assert directory.write_command(Entry(1, 7, Claim(CAUSE)))
    assert not directory.write_command(Entry(1, 8, Cancel()))
    assert directory.read_command(1) == Entry(1, 7, Claim(CAUSE))
    assert [path.name for path in directory.path.iterdir()] == ["command-000001.json"]


# --- Heartbeats ---


def test_the_living_are_listed_and_the_dead_forgotten(directory, alive):
    """A process that was killed disappears, with its file."""
    dead = subprocess.Popen(["sleep", "1000"])
    directory.write_heartbeat(alive, HEARTBEAT)
    directory.write_heartbeat(dead.pid, HEARTBEAT)
    assert directory.read_heartbeats(1, 3.0) == ({alive: HEARTBEAT, dead.pid: HEARTBEAT}, {})
    assert directory.read_heartbeats(alive, 3.0) == ({dead.pid: HEARTBEAT}, {})
    dead.kill()
    dead.wait()
    assert directory.read_heartbeats(1, 3.0) == ({alive: HEARTBEAT}, {})
    assert len(list(directory.path.iterdir())) == 1


def test_a_zombie_is_dead(directory):
    """A supervisor that has not looked yet keeps a dead worker in the list of processes."""
    zombie = subprocess.Popen(["sleep", "1000"])
    directory.write_heartbeat(zombie.pid, HEARTBEAT)
    zombie.kill()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert directory.read_heartbeats(1, 3.0) == ({}, {})
    zombie.wait()


def test_another_process_with_the_same_pid_is_not_the_worker(directory, alive):
    """Pids are used again; start times are not."""
    (directory.path / f"worker-{alive}-1.json").write_text(HEARTBEAT.dump())
    assert directory.read_heartbeats(1, 3.0) == ({}, {})


def test_a_heartbeat_that_cannot_be_read_is_named(directory, alive):
    """The others are read all the same."""
    file = Path(directory._heartbeat_file(os.getpid()))
    file.write_text("{")
    directory.write_heartbeat(alive, HEARTBEAT)
    heartbeats, unreadable = directory.read_heartbeats(1, 3.0)
    assert heartbeats == {alive: HEARTBEAT}
    assert list(unreadable) == [file.name]


def test_files_of_others_are_left_alone(directory, alive):
    """A directory may hold anything: other files are neither read nor removed, nor is the file of a live worker."""
    directory.write_heartbeat(alive, HEARTBEAT)
    directory.write_command(Entry(1, 7, Cancel()))
    foreign = [directory.path / name for name in ("worker-old.json", "command-x.json", "worker-1-1.json.bak", "notes")]
    for file in foreign:
        file.write_text("not ours")
    assert directory.read_heartbeats(1, 3.0) == ({alive: HEARTBEAT}, {})
    assert directory.commands() == {1: "command-000001.json"}
    directory.clear()
    assert {*foreign, Path(directory._heartbeat_file(alive))} == set(directory.path.iterdir())


# --- The end ---


def test_the_last_to_leave_takes_everything_along(directory, alive):
    """Commands, drafts of the killed, and the directory itself."""
    directory.write_heartbeat(alive, HEARTBEAT)
    directory.write_heartbeat(os.getpid(), HEARTBEAT)
    directory.write_command(Entry(1, 7, Claim(CAUSE)))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (directory.path / f".draft-{dead.pid}").write_text("half")
    directory.leave(alive, None, is_draining=True)
    assert directory.path.exists()
    directory.leave(os.getpid(), None, is_draining=True)
    assert not directory.path.exists()


@pytest.mark.parametrize(
    ("is_draining", "supervised", "stays"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_a_drain_that_stands_is_left_to_the_next_worker(directory, alive, is_draining, supervised, stays):
    """Only while there is a supervisor that may start a worker again."""
    supervisor = subprocess.Popen(["sleep", "1000"])
    directory.write_heartbeat(alive, HEARTBEAT)
    directory.write_command(Entry(1, 7, Claim(CAUSE)))
    if not supervised:
        supervisor.kill()
        supervisor.wait()
    directory.leave(alive, supervisor.pid, is_draining=is_draining)
    assert directory.path.exists() is stays
    supervisor.kill()
    supervisor.wait()


@pytest.mark.parametrize(("dead", "silent_for", "stays"), [(True, 4000, False), (True, 60, True), (False, 4000, True)])
def test_the_next_server_clears_up_what_was_left_behind(tmp_path, alive, dead, silent_for, stays):
    """What belongs to a dead supervisor, and only after long silence: it may live in another container."""
    other = subprocess.Popen(["sleep", "1000"])
    left = find_shared_directory(other.pid, str(tmp_path))
    left.write_command(Entry(1, 7, Claim(CAUSE)))
    if dead:
        other.kill()
        other.wait()
    then = time.time() - silent_for
    os.utime(left.path, (then, then))
    (tmp_path / f"starlette-drain-{os.geteuid()}-not-ours").mkdir(mode=0o700)

    find_shared_directory(alive, str(tmp_path))
    assert left.path.exists() is stays
    other.kill()
    other.wait()
    assert (tmp_path / f"starlette-drain-{os.geteuid()}-not-ours").exists()
