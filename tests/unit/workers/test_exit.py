"""exit_when_drained: who is told to end, when, and who is not."""

import asyncio
import os
import signal

import pytest
from worker_crowd import GUNICORN, soon

from starlette_drain import DrainCause, DrainState
from starlette_drain._core.events import TriggerImpaired

pytestmark = pytest.mark.anyio


@pytest.fixture
def told(monkeypatch):
    """Return who was told to stop, instead of telling them."""
    told = []
    kill = os.kill

    def note(pid, number):
        return told.append(pid) if number == signal.SIGTERM else kill(pid, number)

    monkeypatch.setattr(os, "kill", note)
    return told


async def test_one_process_ends_itself_when_its_last_session_has_gone(crowd, told):
    """exit_when_drained sends one SIGTERM to the process, soon after the drain and not before."""
    worker = crowd.hire(alone=True, exit_when_drained=True)
    worker.seat(10)
    await soon()
    assert told == []
    await worker.drain.start(window=10)
    await asyncio.sleep(9)
    assert told == []
    await asyncio.sleep(5)
    assert [worker.process.pid] == told


async def test_by_default_nobody_is_told_to_stop(crowd, told):
    """Early exit is off unless asked for."""
    worker = crowd.hire(alone=True)
    await worker.drain.start(window=1)
    await asyncio.sleep(5)
    assert told == []


async def test_the_supervisor_is_told_once_when_all_have_drained(crowd, told):
    """With several workers it is their supervisor that ends, when the last of them is empty."""
    workers = [crowd.hire(environ=GUNICORN, exit_when_drained=True) for _ in range(3)]
    workers[2].seat(20)
    await soon()
    await workers[0].drain.start(window=10)
    await asyncio.sleep(8)
    assert told == []
    await asyncio.sleep(5)
    assert [os.getppid()] == told


async def test_workers_that_cannot_agree_end_nobody(crowd, told):
    """Who does not know of the others does not end their supervisor."""
    crowd.directory.mkdir(mode=0o755)
    worker = crowd.hire(environ=GUNICORN, exit_when_drained=True)
    await soon()
    await worker.drain.start(window=1)
    await asyncio.sleep(5)
    assert told == []


async def test_where_late_arrivals_are_accepted_the_process_stays_until_the_deadline(crowd, told):
    """An early moment without sessions is no end while new ones may come."""
    worker = crowd.hire(alone=True, exit_when_drained=True, late_arrivals="accept")
    await worker.drain.start(window=10)
    await asyncio.sleep(9)
    assert worker.drain.state is DrainState.DRAINED
    assert told == []
    await asyncio.sleep(2)
    assert [worker.process.pid] == told


async def test_answers_under_way_put_the_exit_off_until_the_deadline(crowd, told):
    """A download that began before the drain may finish within the window."""
    worker = crowd.hire(alone=True, exit_when_drained=True)
    worker.engine.answers.under_way += 1
    await worker.drain.start(window=10)
    await asyncio.sleep(9)
    assert told == []
    await asyncio.sleep(2)
    assert [worker.process.pid] == told


async def test_whoever_was_told_to_stop_tells_nobody(crowd, told):
    """A worker that a supervisor restarts (SIGTERM) does not take the supervisor with it."""
    worker = crowd.hire(environ=GUNICORN, exit_when_drained=True)
    await soon()
    now = worker.engine.time()
    worker.control.claim(DrainCause("sigterm", "SIGTERM", now, now + 5, revocable=False))
    await asyncio.sleep(10)
    assert worker.drain.state is DrainState.DRAINED
    assert told == []


async def test_a_heartbeat_from_before_a_cancellation_ends_no_process(crowd, told):
    """A worker that was done, serves again and drains again is not taken to be done still."""
    one, other = (crowd.hire(environ=GUNICORN, exit_when_drained=True) for _ in range(2))
    one.engine.answers.under_way += 1
    await soon()
    await one.drain.start(window=5)
    await soon()
    await one.drain.cancel()
    one.engine.answers.ended(one)
    other.seat(10)
    await one.drain.start(window=60)
    await soon()
    assert told == []
    await asyncio.sleep(60)
    assert told == [os.getppid()]


async def test_a_supervisor_that_may_not_be_told_to_end_is_no_harm(crowd, monkeypatch):
    """Gunicorn's workers may run as another user than the arbiter: that is said once, and the agreement goes on."""

    def refuse(pid, number):
        raise PermissionError(1, "Operation not permitted")

    worker = crowd.hire(environ=GUNICORN, exit_when_drained=True)
    await soon()
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        await worker.drain.start(window=1)
        await asyncio.sleep(5)
    (impaired,) = worker.recording.of(TriggerImpaired)
    assert f"process {os.getppid()} cannot be signalled: Operation not permitted" in impaired.problem
    assert "exit_when_drained=False" in impaired.remedy
    await worker.drain.cancel()
    other = crowd.hire(environ=GUNICORN)
    await soon()
    assert len(worker.status()["workers"]) == 2
    assert other.drain.state is DrainState.SERVING


async def test_work_is_waited_for_until_the_deadline_and_a_minute_after_the_drain(crowd, told):
    """An application that saves something after its connection has ended keeps the process alive, up to a limit."""
    for window, limit in ((300, 300), (1, 60)):
        worker = crowd.hire(alone=True, exit_when_drained=True)
        worker.engine.working.add(worker)
        await soon()
        await worker.drain.start(window=window)
        await asyncio.sleep(limit - 3)
        assert worker.drain.state is DrainState.DRAINED
        assert told == []
        await asyncio.sleep(6)
        assert [worker.process.pid] == told
        told.clear()


async def test_the_process_ends_as_soon_as_the_work_is_done(crowd, told):
    """Work that ends does not keep the process until the limit."""
    worker = crowd.hire(alone=True, exit_when_drained=True)
    worker.engine.working.add(worker)
    await soon()
    await worker.drain.start(window=1)
    await asyncio.sleep(10)
    assert told == []
    worker.engine.working.clear()
    await asyncio.sleep(1)
    assert [worker.process.pid] == told
