"""One of several workers does what is done once per task: which, and what happens when it cannot."""

import asyncio
import os
import signal
from contextlib import contextmanager

import pytest
from worker_crowd import Lookout, hang, soon

from starlette_drain import DrainCause, DrainState
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


async def hire_all(crowd, lookouts):
    """Hire one worker after the other, the first to be elected first."""
    workers = []
    for lookout in lookouts:
        workers.append(crowd.hire(triggers=[lookout]))
        await soon()
    return workers


def watching(lookouts):
    """Return which of them watch."""
    return [lookout.control is not None for lookout in lookouts]


async def test_a_trigger_that_one_is_enough_of_watches_in_one_worker_and_moves_when_it_dies(crowd):
    """One poller per task; when its worker is killed another takes over within a second."""
    lookouts = [Lookout() for _ in range(3)]
    workers = await hire_all(crowd, lookouts)
    assert [lookout.control is not None for lookout in lookouts] == [True, False, False]
    assert workers[0].drain.trigger_status()["lookout"] == {"state": "watching"}
    assert workers[1].drain.trigger_status()["lookout"] == {
        "state": "another worker watches",
        "watched_by": workers[0].process.pid,
    }

    await workers[0].die()
    await asyncio.sleep(1)
    assert sum(lookout.control is not None for lookout in lookouts[1:]) == 1


async def test_the_one_that_watches_drains_all(crowd):
    """What the elected trigger says is an order to all, even where it cannot be taken back."""
    lookout = Lookout()
    _, other = await hire_all(crowd, [lookout, Lookout()])
    other.seat(5)
    now = lookout.control.time()
    lookout.control.request(DrainCause("lookout", "the end is near", now, now + 30, revocable=False))
    await soon()
    assert other.drain.state is DrainState.DRAINING
    assert other.drain.progress().causes[0].trigger == "lookout"


async def test_where_the_one_that_watches_hangs_another_watches_too(crowd):
    """After twenty seconds of silence somebody else looks as well."""
    lookouts = [Lookout(), Lookout()]
    hung, _ = await hire_all(crowd, lookouts)
    assert lookouts[1].control is None
    hang(hung)
    await asyncio.sleep(SILENCE - 2)
    assert lookouts[1].control is None
    await asyncio.sleep(4)
    assert lookouts[1].control is not None


async def test_advice_of_the_one_that_watches_reaches_all_and_is_not_echoed(crowd):
    """The window that AWS leaves is known in every worker; a new advice replaces the old one everywhere, for good."""
    lookout = Lookout()
    one, other = await hire_all(crowd, [lookout, Lookout()])
    lookout.control.advise(285.0)
    await soon()
    assert other.drain.advised_window == 285.0
    lookout.control.advise(105.0)
    await asyncio.sleep(3)
    assert [one.drain.advised_window, other.drain.advised_window] == [105.0, 105.0]


async def test_a_child_that_the_application_forked_does_not_keep_the_role_of_its_dead_worker(crowd):
    """What a child inherits (the files that were open) keeps nobody from taking over."""
    lookouts = [Lookout(), Lookout()]
    workers = await hire_all(crowd, lookouts)
    with fork():
        await workers[0].die()
        await soon()
        assert watching(lookouts) == [False, True]


async def test_of_many_one_takes_over_and_gives_it_up_when_the_one_that_stalled_goes_on(crowd):
    """A stall ends with one poller, as it began."""
    lookouts = [Lookout() for _ in range(4)]
    workers = await hire_all(crowd, lookouts)
    go_on = hang(workers[0])
    await asyncio.sleep(SILENCE + 2)
    assert watching(lookouts) == [True, True, False, False]
    go_on()
    await asyncio.sleep(1)
    assert watching(lookouts) == [True, False, False, False]


async def test_who_cannot_hear_the_others_for_a_moment_does_not_take_over(crowd, monkeypatch):
    """Too many open files at one look are no reason to watch too; when nobody is heard for long, all watch."""
    lookouts = [Lookout(), Lookout()]
    _, deaf = await hire_all(crowd, lookouts)
    place = deaf.workers._place

    def too_many():
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(place, "read_statuses", too_many)
        await asyncio.sleep(5)
        assert watching(lookouts) == [True, False]
        assert deaf.status() == {"scope": "worker"}
        await asyncio.sleep(SILENCE)
        assert watching(lookouts) == [True, True]
    await asyncio.sleep(1)
    assert watching(lookouts) == [True, False]


class Faulty(Lookout):
    """A lookout that gives out."""

    async def watch(self, control):  # noqa: ARG002
        """Look once, and fail."""
        await asyncio.sleep(1)
        raise TimeoutError


async def test_a_trigger_that_fails_in_one_worker_is_run_by_another(crowd, caplog):
    """Its failure is logged once and shown; another worker takes its place, and no one does when it fails in all."""
    lookout = Lookout()
    faulty, sound = await hire_all(crowd, [Faulty(), lookout])
    await asyncio.sleep(2)
    assert lookout.control is not None
    assert faulty.drain.trigger_status()["lookout"] == {"state": "failed", "watched_by": sound.process.pid}
    assert sound.drain.trigger_status()["lookout"] == {"state": "watching"}
    assert len(caplog.records) == 1

    await sound.die()
    await soon()
    assert faulty.drain.trigger_status()["lookout"] == {"state": "failed"}


async def test_the_status_says_nothing_of_other_workers_before_it_is_known(crowd):
    """Before the first look nobody is elected; in one process alone the trigger speaks for itself."""
    worker = crowd.hire(triggers=[Lookout()], workers_dir=None)
    assert worker.drain.trigger_status()["lookout"] == {"state": "not started"}
    await soon()
    assert worker.drain.trigger_status()["lookout"] == {"state": "watching"}


async def test_advice_is_heeded_by_a_worker_that_is_elected_for_something_else(crowd):
    """Each trigger may run in another worker; what one of them finds out holds in all, until it finds out more."""
    faulty, lookout, other = Faulty(), Lookout(), Lookout()
    other.name = "other"
    one = crowd.hire(triggers=[faulty, other])
    await soon()
    two = crowd.hire(triggers=[lookout])
    await asyncio.sleep(3)
    assert lookout.control is not None
    assert other.control is not None
    for advice, fleet in ((285.0, (4, 4)), (105.0, (8, 8))):
        lookout.control.advise(advice)
        lookout.control.fleet(*fleet)
        await asyncio.sleep(3)
        assert [worker.drain.advised_window for worker in (one, two)] == [advice] * 2
        assert [worker.drain.fleet_seen[:2] for worker in (one, two)] == [fleet] * 2
