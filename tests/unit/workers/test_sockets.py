"""Where the command finds the processes of this container: what is private, alive and this user's, and nothing else."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from starlette_drain._workers import shared_directory
from starlette_drain._workers.shared_directory import SharedDirectory, _birth, find_sockets, socket_file


@pytest.fixture
def place(monkeypatch):
    """Return the only place to look in; its path is short, as those of sockets must be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        monkeypatch.setattr(shared_directory, "MEMORY", path)
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)


@pytest.fixture
def listen():
    """Return what listens on the socket of a process in a directory."""
    opened = []

    def listen(directory, pid):
        made = socket.socket(socket.AF_UNIX)
        opened.append(made)
        made.bind(str(socket_file(directory, pid)))
        made.listen()
        return socket_file(directory, pid)

    yield listen
    for each in opened:
        each.close()


def directory_of(place, pid, uid=None, birth=None, mode=0o700):
    """Make the directory of a process."""
    uid = os.geteuid() if uid is None else uid
    made = place / f"starlette-drain-{uid}-{pid}-{birth or _birth(pid) or 0}"
    made.mkdir(mode=mode)
    made.chmod(mode)
    return made


def test_all_workers_of_a_task(place, listen):
    """They are found by the process that stands for the task; heartbeats and commands are none of them."""
    made = directory_of(place, os.getpid())
    sockets = [listen(made, 7), listen(made, 8)]
    (made / "worker-7-1.json").touch()
    assert find_sockets({}) == {os.getpid(): sockets}


@pytest.mark.parametrize(
    "options", [{"mode": 0o755}, {"birth": "1"}, {"uid": 54321}], ids=["open to all", "of a dead process", "another's"]
)
def test_what_is_passed_over(place, listen, options):
    """A directory that others can enter, that a dead process has left, or that is another user's."""
    listen(directory_of(place, os.getpid(), **options), 7)
    assert find_sockets({}) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_root_finds_those_of_all_users(place, listen):
    """ECS Exec comes as root, and the server may be another user's; the name must say whose."""
    made = directory_of(place, os.getpid(), uid=54321)
    listen(made, 7)
    assert find_sockets({}) == {}
    os.chown(made, 54321, -1)
    assert list(find_sockets({})) == [os.getpid()]


def test_the_temporary_directory_comes_first(place, listen, tmp_path):
    """As for the workers: where TMPDIR is set the server is there, and nothing else is looked at."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        own = listen(directory_of(Path(path), os.getpid()), 7)
        listen(directory_of(place, os.getppid()), 8)
        assert find_sockets({"TMPDIR": path}) == {os.getpid(): [own]}
    assert list(find_sockets({"TMPDIR": str(tmp_path)})) == [os.getppid()]


def test_a_socket_that_is_listened_on_is_not_removed(place, listen):
    """Another container may share the directory, where no process seems to be alive; sockets of the dead do go."""
    made = directory_of(place, os.getpid())
    alive, dead = listen(made, 7), socket_file(made, 8)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    SharedDirectory(made).clear()
    assert alive.exists()
    assert not dead.exists()
