"""The leader does what is done once per task: which worker that is, and what happens when it cannot."""

import asyncio
import os
import signal
from contextlib import contextmanager

import pytest
from worker_crowd import Watcher, hang, soon

from starlette_drain import DrainCause, DrainState
from starlette_drain._core.events import WatchReported
from starlette_drain._workers.heartbeat import SILENCE

pytestmark = pytest.mark.anyio


@contextmanager
def fork():
    """Have a child that does nothing."""
    child = os.fork()
    if child == 0:
        signal.pause()
    yield
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


async def hire_all(crowd, watchers):
    """Hire one worker after the other; the first is the leader."""
    workers = []
    for watcher in watchers:
        workers.append(crowd.hire(triggers=[watcher]))
        await soon()
    return workers


def watching(watchers):
    """Return which of them watch."""
    return [watcher.control is not None for watcher in watchers]


async def test_a_trigger_that_one_is_enough_of_watches_in_one_worker_and_moves_when_it_dies(crowd):
    """One poller per task; when its worker is killed another takes over within a second."""
    watchers = [Watcher() for _ in range(3)]
    workers = await hire_all(crowd, watchers)
    assert [watcher.control is not None for watcher in watchers] == [True, False, False]
    assert workers[0].status("watcher") == {"state": "watching"}
    assert workers[1].status("watcher") == {
        "state": "another worker watches",
        "watched_by": workers[0].process.pid,
    }

    await workers[0].die()
    await asyncio.sleep(1)
    assert sum(watcher.control is not None for watcher in watchers[1:]) == 1


async def test_what_the_leader_claims_drains_all(crowd):
    """A claim of a trigger in the leader is one of the whole task, even where it is not revocable."""
    watcher = Watcher()
    _, other = await hire_all(crowd, [watcher, Watcher()])
    other.seat(5)
    now = watcher.control.time()
    watcher.control.claim(DrainCause("watcher", "the end is near", now, now + 30, revocable=False))
    await soon()
    assert other.drain.state is DrainState.DRAINING
    assert other.drain.progress().causes[0].trigger == "watcher"


async def test_where_the_leader_hangs_another_watches_too(crowd):
    """After twenty seconds without a heartbeat another worker watches as well."""
    watchers = [Watcher(), Watcher()]
    hung, _ = await hire_all(crowd, watchers)
    assert watchers[1].control is None
    hang(hung)
    await asyncio.sleep(SILENCE - 2)
    assert watchers[1].control is None
    await asyncio.sleep(4)
    assert watchers[1].control is not None


async def test_the_window_that_the_leader_finds_reaches_all_and_is_not_echoed(crowd):
    """The window that AWS leaves is known in every worker; a new one replaces the old everywhere, for good."""
    watcher = Watcher()
    one, other = await hire_all(crowd, [watcher, Watcher()])
    watcher.control.note_window(285.0)
    await soon()
    assert other.engine.advised_window == 285.0
    watcher.control.note_window(105.0)
    await asyncio.sleep(3)
    assert [one.engine.advised_window, other.engine.advised_window] == [105.0, 105.0]


async def test_a_forked_child_does_not_keep_the_role_of_its_dead_worker(crowd):
    """What a child inherits (the files that were open) keeps nobody from taking over."""
    watchers = [Watcher(), Watcher()]
    workers = await hire_all(crowd, watchers)
    with fork():
        await workers[0].die()
        await soon()
        assert watching(watchers) == [False, True]


async def test_of_many_one_takes_over_and_gives_it_up_when_the_one_that_stalled_goes_on(crowd):
    """A stall ends with one poller, as it began."""
    watchers = [Watcher() for _ in range(4)]
    workers = await hire_all(crowd, watchers)
    go_on = hang(workers[0])
    await asyncio.sleep(SILENCE + 2)
    assert watching(watchers) == [True, True, False, False]
    go_on()
    await asyncio.sleep(1)
    assert watching(watchers) == [True, False, False, False]


async def test_one_that_gives_the_watch_back_no_longer_reports_what_it_saw(crowd):
    """Its last report would otherwise stand for ever: a watch without polls, which is an alarm."""
    watchers = [Watcher(), Watcher()]
    hung, other = await hire_all(crowd, watchers)
    go_on = hang(hung)
    await asyncio.sleep(SILENCE + 2)
    watchers[1].control.emit(WatchReported(other.engine.time(), "watcher", "watching", "a in b"))
    go_on()
    await asyncio.sleep(1)
    assert [each.state for each in other.recording.of(WatchReported)] == ["watching", "elsewhere"]
    assert other.status()["watch"] is None


async def test_who_cannot_hear_the_others_for_a_moment_does_not_take_over(crowd, monkeypatch):
    """A few exchanges that fail are no reason to watch too; when no other worker is heard for long, all watch."""
    watchers = [Watcher(), Watcher()]
    _, deaf = await hire_all(crowd, watchers)

    def too_many(besides, now):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(deaf.directory, "read_heartbeats", too_many)
        await asyncio.sleep(5)
        assert watching(watchers) == [True, False]
        assert (deaf.status()["scope"], len(deaf.status()["workers"])) == ("worker", 2)
        await asyncio.sleep(SILENCE)
        assert len(deaf.status()["workers"]) == 1
        assert watching(watchers) == [True, True]
    await asyncio.sleep(1)
    assert watching(watchers) == [True, False]


class Faulty(Watcher):
    """One that fails."""

    async def watch(self, control):
        """Look once, and fail."""
        await asyncio.sleep(1)
        control.emit(WatchReported(control.time(), self.name, "watching", "a in b"))
        raise TimeoutError


async def test_a_trigger_that_fails_in_one_worker_is_run_by_another(crowd, caplog):
    """Its failure is logged; another worker takes its place, and it watches again where no other can."""
    watcher = Watcher()
    faulty, sound = await hire_all(crowd, [Faulty(), watcher])
    await asyncio.sleep(2)
    assert watcher.control is not None
    assert [each.state for each in faulty.recording.of(WatchReported)] == ["watching", "blind", "elsewhere"]
    assert faulty.status("watcher") == {"state": "another worker watches", "watched_by": sound.process.pid}
    assert sound.status("watcher") == {"state": "watching"}
    assert len(caplog.records) == 1

    await sound.die()
    await asyncio.sleep(2)
    assert len(caplog.records) == 2
    assert faulty.status("watcher")["failed"].startswith("TimeoutError")


async def test_the_status_says_nothing_of_other_workers_before_they_are_known(crowd):
    """Before the first exchange there is no leader; in one process alone the trigger speaks for itself."""
    worker = crowd.hire(triggers=[Watcher()], alone=True)
    assert worker.status("watcher") == {"state": "not started"}
    await soon()
    assert worker.status("watcher") == {"state": "watching"}


async def test_what_one_leader_finds_out_reaches_a_leader_for_something_else(crowd):
    """Each trigger may run in another worker; what one of them finds out holds in all, until it finds out more."""
    faulty, watcher, other = Faulty(), Watcher(), Watcher()
    other.name = "other"
    one = crowd.hire(triggers=[faulty, other])
    await soon()
    two = crowd.hire(triggers=[watcher])
    await asyncio.sleep(3)
    assert watcher.control is not None
    assert other.control is not None
    for advice, fleet in ((285.0, (4, 4)), (105.0, (8, 8))):
        watcher.control.note_window(advice)
        watcher.control.note_fleet(*fleet)
        await asyncio.sleep(3)
        assert [worker.engine.advised_window for worker in (one, two)] == [advice] * 2
        assert [worker.engine.fleet_seen[:2] for worker in (one, two)] == [fleet] * 2
