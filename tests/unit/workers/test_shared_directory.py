"""The directory in which the workers of one task meet: private, keyed on the supervisor, tidy."""

import os
import subprocess
import tempfile
import time
from types import SimpleNamespace

import pytest

from starlette_drain import DrainCause
from starlette_drain._workers import shared_directory
from starlette_drain._workers.command import Order
from starlette_drain._workers.shared_directory import (
    NoMeetingPlace,
    SharedDirectory,
    find_shared_directory,
    find_supervisor,
)

CAUSE = DrainCause("manual", "because", 1.0, 2.0)


@pytest.fixture
def alive():
    """Return the pid of a process that lives."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def place(tmp_path):
    """Return a place of its own."""
    return SharedDirectory(tmp_path / "place")


# --- Whose workers these are ---


def test_a_process_of_its_own_has_no_supervisor():
    """A server started from a shell is nobody's worker, whoever else was started from it."""
    assert find_supervisor({}) is None


def test_the_supervisor_is_the_parent_in_the_sense_of_multiprocessing(monkeypatch):
    """uvicorn, hypercorn and granian start their workers by multiprocessing."""
    monkeypatch.setattr(shared_directory.multiprocessing, "parent_process", lambda: SimpleNamespace(pid=77))
    assert find_supervisor({}) == 77


def test_the_supervisor_is_gunicorn_where_that_says_so():
    """Gunicorn forks, and leaves its name in the environment."""
    assert find_supervisor({"SERVER_SOFTWARE": "gunicorn/27.0.1"}) == os.getppid()


def test_the_place_is_named_after_the_supervisor_and_its_start(tmp_path, monkeypatch, alive):
    """A pid that is used again names another place: what a killed task leaves behind is entered by nobody."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = find_shared_directory(alive, None)
    assert place.path.parent == tmp_path
    uid, pid, birth = place.path.name.removeprefix("starlette-drain-").split("-")
    assert (uid, pid) == (str(os.geteuid()), str(alive))
    assert int(birth) > 0
    assert place.path.stat().st_mode & 0o777 == 0o700


def test_two_supervisors_do_not_meet_in_one_workers_dir(tmp_path, alive):
    """Two servers of one task may be given the same directory."""
    first, second = (find_shared_directory(pid, str(tmp_path / "workers")) for pid in (alive, os.getpid()))
    assert first.path.parent == second.path.parent == tmp_path / "workers"
    assert first.path != second.path


def test_without_a_supervisor_everybody_meets_in_the_directory_itself(tmp_path):
    """Processes that only their directory joins, such as those of supervisord."""
    assert find_shared_directory(None, str(tmp_path / "workers")).path == tmp_path / "workers"


def test_where_nothing_temporary_can_be_written_the_memory_will_do(monkeypatch, alive):
    """A read-only root file system has no temporary directory; Docker's /dev/shm is writable all the same."""

    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    place = find_shared_directory(alive, None)
    assert place.path.parent.as_posix() == "/dev/shm"
    place.path.rmdir()


# --- Whom it lets in ---


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
    path = tmp_path / "place"
    spoil(path)
    with pytest.raises(NoMeetingPlace, match=str(path)):
        SharedDirectory(path)


def test_a_directory_of_another_user_is_not_entered(tmp_path, monkeypatch):
    """In a shared /tmp anybody can guess its name."""
    (tmp_path / "place").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(NoMeetingPlace, match="not a directory private to this user"):
        SharedDirectory(tmp_path / "place")


def test_a_directory_that_cannot_be_made_says_why(tmp_path):
    """A missing parent, a read-only file system."""
    with pytest.raises(NoMeetingPlace, match="cannot be made: No such file or directory"):
        SharedDirectory(tmp_path / "missing" / "place")


def test_a_directory_that_is_not_writable_says_so(tmp_path, monkeypatch):
    """A read-only mount lets in, and takes nothing."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NoMeetingPlace, match="is not writable"):
        SharedDirectory(tmp_path / "place")


# --- Orders ---


def test_orders_are_read_in_the_order_in_which_they_were_given(place):
    """Each number is given once, however many digits it has."""
    assert place.last_number() == 0
    assert all(place.write_order(Order(number, CAUSE)) for number in range(1, 12))
    assert place.last_number() == 11
    assert [order.number for order in place.read_orders(8)] == [9, 10, 11]


def test_of_two_who_give_the_same_number_one_is_told(place):
    """The first holds; nothing is overwritten, and no draft stays behind."""
    assert place.write_order(Order(1, CAUSE))
    assert not place.write_order(Order(1, None))
    assert place.read_orders(0) == [Order(1, CAUSE)]
    assert [path.name for path in place.path.iterdir()] == ["order-000001.json"]


# --- Statuses ---


def test_the_living_are_listed_and_the_dead_forgotten(place, alive):
    """A process that was killed disappears, with its file."""
    dead = subprocess.Popen(["sleep", "1000"])
    place.write_status(alive, {"state": "serving"})
    place.write_status(dead.pid, {"state": "serving"})
    assert place.read_statuses().keys() == {alive, dead.pid}
    dead.kill()
    dead.wait()
    assert place.read_statuses() == {alive: {"state": "serving"}}
    assert len(list(place.path.iterdir())) == 1


def test_a_zombie_is_dead(place, alive):
    """A supervisor that has not looked yet keeps a dead worker in the list of processes."""
    zombie = subprocess.Popen(["sleep", "1000"])
    place.write_status(zombie.pid, {})
    zombie.kill()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert place.read_statuses() == {}
    zombie.wait()


def test_another_process_with_the_same_pid_is_not_the_worker(place, alive):
    """Pids are used again; start times are not."""
    (place.path / f"worker-{alive}-1.json").write_text("{}")
    assert place.read_statuses() == {}


def test_files_of_others_are_let_be(place, alive):
    """In a directory of the user's choice may lie anything: it is neither read nor removed."""
    place.write_status(alive, {})
    place.write_order(Order(1, CAUSE))
    foreign = [place.path / name for name in ("worker-old.json", "order-old.json", "worker-1-1.json.bak", "notes")]
    for file in foreign:
        file.write_text("not ours")
    assert place.read_statuses() == {alive: {}}
    assert place.last_number() == 1
    assert place.read_orders(0) == [Order(1, CAUSE)]
    place.clear()
    assert set(foreign) == set(place.path.iterdir())


# --- The end ---


def test_the_last_to_leave_takes_everything_along(place, alive):
    """Orders, drafts of the killed, and the directory itself."""
    place.write_status(alive, {})
    place.write_status(os.getpid(), {})
    place.write_order(Order(1, CAUSE))
    (place.path / ".draft-1").write_text("half")
    place.leave(alive, None)
    assert place.path.exists()
    place.leave(os.getpid(), None)
    assert not place.path.exists()


@pytest.mark.parametrize(
    ("causes", "supervised", "stays"),
    [([CAUSE], True, True), ([], True, False), ([CAUSE, None], True, False), ([CAUSE], False, False)],
)
def test_a_drain_that_stands_is_left_to_whoever_comes_next(place, alive, causes, supervised, stays):
    """Only while there is a supervisor that may start a worker again."""
    supervisor = subprocess.Popen(["sleep", "1000"])
    place.write_status(alive, {})
    for number, cause in enumerate(causes, 1):
        place.write_order(Order(number, cause))
    if not supervised:
        supervisor.kill()
        supervisor.wait()
    place.leave(alive, supervisor.pid)
    assert place.path.exists() is stays
    supervisor.kill()
    supervisor.wait()


@pytest.mark.parametrize(("dead", "silent_for", "stays"), [(True, 4000, False), (True, 60, True), (False, 4000, True)])
def test_the_next_server_clears_up_what_was_left_behind(tmp_path, alive, dead, silent_for, stays):
    """What belongs to a dead supervisor, and only after long silence: it may live in another container."""
    other = subprocess.Popen(["sleep", "1000"])
    left = find_shared_directory(other.pid, str(tmp_path))
    left.write_order(Order(1, CAUSE))
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
