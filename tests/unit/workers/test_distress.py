"""A worker in trouble: no descriptors, no space, damaged files, others of another version. It hears all the same."""

import errno
import json
import os
from pathlib import Path

import pytest
from worker_crowd import soon, states

from starlette_drain import DrainCause, DrainState
from starlette_drain._core.events import TriggerImpaired
from starlette_drain._workers import shared_directory
from starlette_drain._workers.command import Cancel, Claim, Entry
from starlette_drain._workers.heartbeat import Heartbeat
from starlette_drain._workers.shared_directory import SharedDirectory

pytestmark = pytest.mark.anyio

DRAINING, SERVING = DrainState.DRAINING, DrainState.SERVING
CAUSE = DrainCause("manual", 'because // of "this"', 1.0, 2.0)


def full(*_, **__):
    """Have no space."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def no_descriptors(monkeypatch):
    """Let no file be opened while every spare descriptor is kept; return the descriptors that were given up."""
    given_up = []
    close, opens, lists = os.close, os.open, os.listdir

    def limited(call):
        def wrapper(*args, **kwargs):
            if not given_up:
                raise OSError(errno.EMFILE, "Too many open files")
            return call(*args, **kwargs)

        return wrapper

    def release(descriptor):
        given_up.append(descriptor)
        close(descriptor)

    def limit():
        monkeypatch.setattr(os, "open", limited(opens))
        monkeypatch.setattr(os, "listdir", limited(lists))
        monkeypatch.setattr(os, "close", release)
        return given_up

    return limit


async def two(crowd):
    """Hire two workers with ten sessions each."""
    for _ in range(2):
        crowd.hire().seat(10)
    await soon()
    return crowd.everyone


# --- No descriptors ---


def test_a_spare_descriptor_reads_the_next_command(tmp_path, no_descriptors):
    """What the process may not open any more is read with one of those that were kept from the start."""
    directory = SharedDirectory(tmp_path / "workers")
    directory.enter()
    directory.write_command(Entry(1, 7, Claim(CAUSE)))
    given_up = no_descriptors()
    assert directory.commands() == {1: "command-000001.json"}
    assert directory.read_command(1) == Entry(1, 7, Claim(CAUSE))
    assert given_up
    directory.spares.close()


def test_without_any_descriptor_the_next_commands_are_found(tmp_path, monkeypatch):
    """They have the numbers after the last one; a command that is a link needs no descriptor to be read."""
    directory = SharedDirectory(tmp_path / "workers")
    directory.write_command(Entry(1, 7, Claim(CAUSE)))
    assert list(directory.commands()) == [1]
    with monkeypatch.context() as patch:
        patch.setattr(directory, "_draft", full)
        assert directory.write_command(Entry(2, 7, Cancel()))
        assert directory.write_command(Entry(3, 7, Claim(CAUSE)))
        assert not directory.write_command(Entry(3, 8, Cancel()))
    directory.remove_command(1)

    def none(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "listdir", none)
    monkeypatch.setattr(os, "open", none)
    assert sorted(directory.commands()) == [2, 3]
    assert directory.read_command(3) == Entry(3, 7, Claim(CAUSE))


def test_a_worker_without_descriptors_takes_no_other_for_dead(tmp_path, monkeypatch):
    """Whether a process lives is read from a file; not to be able to read it says nothing of the process."""
    directory = SharedDirectory(tmp_path / "workers")
    directory.write_command(Entry(1, 7, Claim(CAUSE)))
    file = Path(directory._heartbeat_file(os.getpid()))
    file.write_text("{}")
    directory.commands()

    def none(pid):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shared_directory, "_birth", none)
    directory.read_heartbeats(1, 3.0)
    assert file.exists()


# --- No space ---


async def test_an_order_is_obeyed_before_anything_is_written(crowd, monkeypatch):
    """A worker that can write nothing at all does what the others have published."""
    one, other = await two(crowd)
    monkeypatch.setattr(other.directory, "_draft", full)
    monkeypatch.setattr(other.directory, "write_heartbeat", full)
    monkeypatch.setattr(other.directory, "beat", full)
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DRAINING] * 2


async def test_an_order_is_given_although_no_file_can_be_written(crowd, monkeypatch):
    """It becomes a link whose target is the text; the others read it, and obey."""
    one, other = await two(crowd)
    monkeypatch.setattr(one.directory, "_draft", full)
    await one.drain.start(window=60, reason="the disk // is full")
    await soon()
    assert states(crowd) == [DRAINING] * 2
    assert other.drain.progress().causes[0].reason == "the disk // is full"
    assert (crowd.directory / "command-000001.json").is_symlink()


def test_a_disk_without_any_room_takes_a_drain_and_its_cancellation(tmp_path, monkeypatch):
    """Each worker keeps files that make room; they come back when there is room again, and go with the worker."""
    directory = SharedDirectory(tmp_path / "workers")
    directory.keep_reserve(7)
    symlink, files = os.symlink, set(directory.path.iterdir())
    assert len(files) == 2

    def only_with_room(text, path):
        if set(directory.path.iterdir()) >= files:
            full()
        files.intersection_update(directory.path.iterdir())
        symlink(text, path)

    with monkeypatch.context() as patch:
        patch.setattr(directory, "_draft", full)
        patch.setattr(os, "symlink", only_with_room)
        assert directory.write_command(Entry(1, 7, Claim(CAUSE)))
        assert directory.write_command(Entry(2, 7, Cancel()))
        with pytest.raises(OSError, match="No space"):
            directory.write_command(Entry(3, 7, Cancel()))
    assert [directory.read_command(number).command for number in (1, 2)] == [Claim(CAUSE), Cancel()]
    directory.keep_reserve(7)
    assert len(list(directory.path.glob(".spare-7-*"))) == 2
    directory.leave(7, os.getpid(), is_draining=True)
    assert not list(directory.path.glob(".spare-*"))


# --- Damaged files ---


def directory_there(path):
    """Be a directory."""
    path.mkdir()


def pipe_there(path):
    """Be a pipe, which nobody writes to."""
    os.mkfifo(path)


def nested_there(path):
    """Be nested deeper than can be read."""
    path.write_text("[" * 200_000)


def loop_there(path):
    """Be a link to itself."""
    path.symlink_to(path)


def endless_there(path):
    """Be far too long."""
    path.write_text("x" * 5_000_000)


@pytest.mark.parametrize("spoil", [directory_there, pipe_there, nested_there, loop_there, endless_there])
@pytest.mark.parametrize("name", ["command-000001.json", "worker-{}.json"])
async def test_whatever_stands_where_a_file_should_is_named_and_stepped_over(crowd, spoil, name):
    """The log says which file it is, and the next command reaches all."""
    one, _ = await two(crowd)
    other = Path(crowd.everyone[1].directory._heartbeat_file(os.getpid()))  # of a process that lives
    path = other if name.startswith("worker") else crowd.directory / name
    spoil(path)
    await soon()
    assert one.status()["scope"] == "worker"
    assert path.name in one.recording.of(TriggerImpaired)[0].problem
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DRAINING] * 2


async def test_a_heartbeat_that_was_damaged_is_written_anew(crowd):
    """Its worker sees that it is not as it was written, although it has no news."""
    one, other = await two(crowd)
    (file,) = crowd.directory.glob(f"worker-{other.process.pid}-*")
    file.write_text("{half")
    for _ in range(3):
        await soon()
    assert one.status()["scope"] == "task"
    assert len(one.status()["workers"]) == 2


# --- Two versions ---


def doctored(crowd, worker):
    """Return the file of a worker, and what is in it."""
    (file,) = crowd.directory.glob(f"worker-{worker.process.pid}-*")
    return file, json.loads(file.read_text())


async def test_a_newer_version_that_this_one_understands_is_read(crowd):
    """It says which versions understand it; what this one does not know it passes over."""
    one, other = await two(crowd)
    command = json.loads(Entry(1, 1, Claim(DrainCause("manual", "because", 1.0, one.engine.time() + 60))).dump())
    command |= {"version": 9, "oldest": 1, "mood": "good"}
    command["claim"]["mood"] = "good"
    (crowd.directory / "command-000001.json").write_text(json.dumps(command))
    await soon()
    assert states(crowd) == [DRAINING] * 2
    _, content = doctored(crowd, other)
    content |= {"version": 9, "oldest": 1, "mood": "good"}
    content["sessions"]["dreaming"] = 3
    assert Heartbeat.load(json.dumps(content)).sessions == Heartbeat.load(other.member._own.dump()).sessions


async def test_a_newer_version_that_this_one_cannot_understand_is_named(crowd):
    """It is stepped over, and what comes after it is obeyed."""
    one, _ = await two(crowd)
    text = '{"version": 9, "oldest": 9, "number": 1, "pid": 1, "cancel": true}'
    (crowd.directory / "command-000001.json").write_text(text)
    await soon()
    assert "version 9" in one.recording.of(TriggerImpaired)[0].problem
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DRAINING] * 2


async def test_an_older_version_that_writes_less_is_read(crowd):
    """A number that it does not write is 0, a field that it does not know has its default."""
    one, other = await two(crowd)
    _, content = doctored(crowd, other)
    del content["oldest"], content["sessions"]["held"], content["counts"]["forced"]
    heartbeat = Heartbeat.load(json.dumps(content))
    assert (heartbeat.sessions["held"], heartbeat.counts["forced"]) == (0, 0)
    command = json.loads(Entry(1, 1, Claim(DrainCause("manual", "because", 1.0, one.engine.time() + 60))).dump())
    del command["oldest"], command["claim"]["by_hand"], command["claim"]["follows"]
    (crowd.directory / "command-000001.json").write_text(json.dumps(command))
    await soon()
    assert states(crowd) == [DRAINING] * 2


# --- Heartbeats ---


async def test_a_worker_without_news_is_no_older_than_its_last_beat(crowd):
    """It does not write its file again, and the others see that it lives."""
    one, other = await two(crowd)
    file, _ = doctored(crowd, other)
    await soon()
    before = file.stat().st_ino, file.read_text()
    for _ in range(20):
        await soon()
    assert (file.stat().st_ino, file.read_text()) == before
    (ago,) = [each["seconds_ago"] for each in one.status()["workers"] if each["pid"] == other.process.pid]
    assert 0 <= ago <= 2.1


def test_a_moment_that_has_not_come_is_not_believed(tmp_path):
    """A heartbeat that was copied or restored has the time of a calendar; what stands in it counts."""
    directory = SharedDirectory(tmp_path / "workers")
    from test_shared_directory import HEARTBEAT  # noqa: PLC0415

    directory.write_heartbeat(os.getpid(), HEARTBEAT)
    os.utime(directory._heartbeat_file(os.getpid()))
    ((_, heartbeat),) = directory.read_heartbeats(1, 3.0)[0].items()
    assert heartbeat.at == HEARTBEAT.at
