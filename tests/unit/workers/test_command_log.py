"""Commands among the workers of a task: none is lost, whichever worker publishes it, and whenever."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from worker_crowd import GUNICORN, Watcher, deadline, soon, states

from starlette_drain import Drain, DrainCause, DrainState
from starlette_drain._core.events import TriggerImpaired
from starlette_drain._workers.group import WorkerGroup
from starlette_drain._workers.shared_directory import SharedDirectory

pytestmark = pytest.mark.anyio


@pytest.fixture
def pids():
    """Return the pids of two processes that live."""
    processes = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


async def hire(crowd, *sessions):
    """Hire a worker for each number of sessions."""
    workers = [crowd.hire() for _ in sessions]
    for worker, count in zip(workers, sessions, strict=True):
        worker.seat(count)
    await soon()
    return workers


async def test_a_worker_that_has_drained_passes_a_nearer_deadline_on(crowd):
    """The worker that is asked may have no session left; the others still have."""
    busy, idle = await hire(crowd, 10, 0)
    await busy.drain.start(window=3000)
    await soon()
    assert idle.drain.state is DrainState.DRAINED
    at = idle.engine.time()
    await idle.drain.start(window=20)
    await soon()
    assert round(deadline(busy), 6) == round(at + 20, 6)


async def test_a_trigger_whose_worker_has_drained_brings_the_deadline_forward_for_all(crowd):
    """The leader may have no session left; the balancer cuts those of the others all the same."""
    watcher = Watcher()
    crowd.hire(triggers=[watcher])
    await soon()
    busy = crowd.hire(triggers=[Watcher()])
    busy.seat(10)
    await soon()
    await busy.drain.start(window=3600)
    await soon()
    at = watcher.control.time()
    watcher.control.claim(DrainCause("watcher", "the balancer cuts", at, at + 285))
    await soon()
    assert round(deadline(busy), 6) == round(at + 285, 6)


async def test_a_further_cause_is_known_in_all_workers(crowd):
    """Also one that changes no deadline: what is drained for is the same everywhere."""
    one, other = await hire(crowd, 10, 10)
    await one.drain.start(window=30)
    await soon()
    now = one.engine.time()
    one.control.claim(DrainCause("watcher", "the end is near", now, now + 300))
    await soon()
    assert [cause.trigger for cause in other.drain.progress().causes] == ["manual", "watcher"]
    assert round(deadline(one), 6) == round(deadline(other), 6)


@pytest.mark.parametrize("windows", [(60, 30), (30, 60)])
async def test_a_worker_that_comes_later_keeps_the_deadline_that_holds(crowd, windows):
    """Of two commands in the same moment the later one has the later deadline, and no worker keeps to that."""
    one, other = await hire(crowd, 10, 10)
    at = one.engine.time()
    await one.drain.start(window=windows[0])
    await other.drain.start(window=windows[1])
    await soon()
    (new,) = await hire(crowd, 10)
    assert {round(at + 30, 6)} == {round(deadline(worker), 6) for worker in (one, other, new)}


async def test_commands_are_applied_after_the_directory_was_removed(crowd):
    """Their numbers do not begin again below those applied before."""
    one, other = await hire(crowd, 10, 10)
    await one.drain.start(window=60)
    await soon()
    await one.drain.cancel()
    await soon()
    for file in crowd.directory.iterdir():
        file.unlink()
    crowd.directory.rmdir()
    await soon()
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DrainState.DRAINING] * 2
    await other.drain.cancel()
    await soon()
    assert states(crowd) == [DrainState.SERVING] * 2


async def test_a_drain_that_begins_before_the_first_exchange_is_published(crowd):
    """An application may start one at once, or the first request be the one that asks for it."""
    (old,) = await hire(crowd, 10)
    new = crowd.hire()
    await new.drain.start(window=60)
    await soon()
    assert old.drain.state is DrainState.DRAINING
    assert round(deadline(old), 6) == round(deadline(new), 6)


async def test_a_drain_asked_for_right_after_a_cancellation_elsewhere_is_a_new_one(crowd):
    """The worker that is asked may not have heard of the cancellation: it hears of it first."""
    one, other = await hire(crowd, 10, 10)
    await one.drain.start(window=60)
    await soon()
    await one.drain.cancel()
    at = other.engine.time()
    await other.drain.start(window=300)
    await soon()
    assert {round(at + 300, 6)} == {round(deadline(worker), 6) for worker in (one, other)}


async def test_a_drain_asked_for_elsewhere_can_be_cancelled_at_once(crowd):
    """The worker that is asked may not have heard of the drain: it hears of it first."""
    one, other = await hire(crowd, 10, 10)
    await one.drain.start(window=60)
    await other.drain.cancel()
    await soon()
    assert states(crowd) == [DrainState.SERVING] * 2


async def test_a_worker_that_is_told_to_stop_waits_for_no_other(crowd):
    """The others may go on for an hour, and the server waits for open requests."""
    stopped, other = await hire(crowd, 5, 10)
    await other.drain.start(window=3000)
    await soon()
    now = stopped.engine.time()
    stopped.control.claim(DrainCause("sigterm", "SIGTERM", now, now + 5, revocable=False))
    assert await stopped.control.wait_all_drained()
    assert stopped.engine.time() - now < 7
    assert other.drain.state is DrainState.DRAINING


async def test_a_worker_that_takes_the_place_of_the_only_one_joins_the_drain(crowd):
    """A supervisor restarts its only worker (or all of them at once), and the drain stands."""
    old = crowd.hire(environ=GUNICORN)
    old.seat(10)
    await soon()
    await old.drain.start(window=60)
    await asyncio.sleep(5)
    ends = deadline(old)
    await old.leave()
    new = crowd.hire(environ=GUNICORN, late_arrivals="accept")
    await soon()
    assert not old.drain.host.is_running
    assert round(ends, 6) == round(deadline(new), 6)


async def test_workers_made_in_the_supervisor_are_told_apart(tmp_path, monkeypatch, pids):
    """With gunicorn --preload the supervisor makes the application: the pid is that of the process that watches."""
    drains = [Drain(triggers=[], observers=[]) for _ in range(2)]
    for drain in drains:
        drain.host.equip(triggers=tuple, observers=tuple)
        group = WorkerGroup({}, directory=str(tmp_path / "shared"))
        drain.host.coordinate(lambda life, group=group: group.join(life, tuple), group.lead)
        drain.host.add(group)
    for drain, pid in zip(drains, pids, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda pid=pid: pid)
            drain.host.begin()
            await asyncio.sleep(0)
    await soon()
    assert [drain.host.engine.workers for drain in drains] == [2, 2]
    for drain in drains:
        await drain.host.end()


async def test_a_foreign_file_in_the_directory_is_no_harm(crowd):
    """The user may have kept something there."""
    crowd.directory.mkdir(mode=0o700)
    for name in ("worker-old.json", "command-old.json", "order-000001.json"):
        (crowd.directory / name).write_text("{}")
    one, other = await hire(crowd, 10, 10)
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DrainState.DRAINING] * 2
    assert other.recording.of(TriggerImpaired) == []


async def test_a_file_that_cannot_be_read_impairs_the_agreement(crowd):
    """It is said, with the remedy; the worker goes on by itself."""
    file = Path(SharedDirectory(crowd.directory)._heartbeat_file(os.getpid()))
    file.write_text("{")  # noqa: ASYNC240 - a test
    (worker,) = await hire(crowd, 10)
    assert (worker.status()["scope"], len(worker.status()["workers"])) == ("worker", 1)
    (impaired,) = worker.recording.of(TriggerImpaired)
    assert str(file) in impaired.problem
    assert "remove the file" in impaired.remedy
    await worker.drain.start(window=60)
    assert worker.drain.state is DrainState.DRAINING
