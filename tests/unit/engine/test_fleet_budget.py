"""Many tasks, one budget: what they shed together, and what is told of it."""

import asyncio
import math
from random import Random

import pytest
from simulations.clock import in_virtual_time
from simulations.fleet import simulate_fleet
from worker_crowd import Crowd, Guest, soon

from starlette_drain import Drain, DrainCause
from starlette_drain._core.events import DrainStarted, PaceChanged
from starlette_drain.testing import RecordingObserver


@pytest.mark.unmeasured
@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "sessions", "delay", "spread"),
    [(1, 2000, 300, 0), (8, 2000, 300, 0), (8, 2000, 300, 30), (100, 8000, 900, 0), (100, 8000, 900, 60)],
)
@pytest.mark.parametrize("cause", ["target-health", "events", "bake"])
def test_the_fleet_keeps_to_its_budget(tasks, sessions, delay, spread, cause):
    """
    Of 1, 8 or 100 tasks that drain the sum stays within the budget, and everyone is gone by the deadline.

    So it does whether they begin at once or one after the other, and whoever tells them; but for what each draws by
    lot, less than a session for each task, which in the sum of many levels out: three times the root of their number is
    five sigma.
    """
    given = {"sessions": sessions, "delay": delay, "spread": spread, "cause": cause}
    figures = in_virtual_time(simulate_fleet(tasks, budget=40, **given))
    assert figures.sessions == sessions
    assert figures.busiest_10s * 10 <= 40 * 10 + 3 * math.sqrt(tasks)
    assert figures.after_deadline == 0


@pytest.mark.slow
def test_the_deadline_beats_the_budget():
    """More sessions than the budget allows in the time leave evenly, all in time."""
    figures = in_virtual_time(simulate_fleet(8, budget=5, sessions=4000, delay=200))
    assert figures.after_deadline == 0
    assert 4000 / 185 <= figures.busiest_10s <= 4000 / 170 * 1.1


def make(count, **options):
    """Return a drain with *count* sessions, and what it tells."""
    told = RecordingObserver()
    drain = Drain(triggers=[], observers=[told], rng=Random(7), **options)
    drain.host.attach()
    for _ in range(count):
        drain.host.engine.track(Guest(drain))
    return drain, told


def health(drain, window=280.0):
    """Return the cause that a deregistration brings."""
    now = drain.host.engine.time()
    return DrainCause("target-health", "the target is draining", now, now + window)


@pytest.mark.anyio
async def test_it_pauses_goes_on_and_gives_way_and_says_so():
    """No healthy target: a pause; one: its part; a short deadline: what that needs. Each told once."""
    drain, told = make(600, pacing="fleet:40")
    drain.host.engine.note_fleet(8, 0)
    drain.host.engine.claim(health(drain))
    assert drain.progress().pacing.startswith("paused, for at most 159 s: no other target is healthy")
    assert drain.progress().rate == 0
    await asyncio.sleep(30)
    assert drain.statistics().open == 600

    drain.host.engine.note_fleet(8, 8)
    await asyncio.sleep(20)
    assert drain.statistics().open == pytest.approx(500, abs=3)
    assert drain.progress().pacing == "at most 5/s, this task's part of the fleet's 40/s while 8 drain"

    drain.host.engine.claim(
        DrainCause("sigterm", "SIGTERM", drain.host.engine.time(), drain.host.engine.time() + 20, revocable=False)
    )
    assert "gives way to the deadline" in drain.progress().pacing
    await asyncio.sleep(21)
    assert drain.statistics().open == 0
    assert [each.pacing.split(",")[0].split(":")[-1].strip() for each in told.of(PaceChanged)] == ["at most 5/s", "5/s"]
    assert [each.waits for each in (*told.of(DrainStarted), *told.of(PaceChanged))] == [True, False, False]
    await drain.host.end()


@pytest.mark.anyio
async def test_whoever_is_told_by_others_than_the_balancer_takes_no_more_than_its_part_of_all():
    """Before the target is seen to drain, all that are healthy may drain unseen; afterwards those that are seen."""
    drain, _ = make(6000, pacing="fleet:40")
    drain.host.engine.note_fleet(0, 80, counted=False)
    await drain.start(window=3000)
    assert "0.5/s, this task's part of the fleet's 40/s while 80 may drain, gives way" in drain.progress().pacing
    drain.host.engine.note_fleet(2, 6, counted=True)
    assert drain.progress().pacing == "at most 10/s, this task's part of the fleet's 40/s while 2 drain and 2 more may"
    drain.host.engine.note_fleet(8, 8, counted=True)
    assert drain.progress().pacing == "at most 5/s, this task's part of the fleet's 40/s while 8 drain"
    await drain.host.end()


@pytest.mark.anyio
async def test_without_a_word_of_the_fleet_the_pace_is_the_gentlest():
    """Where nobody has told how many share the budget, no more is taken of it than the deadline needs."""
    drain, told = make(300, pacing="fleet:40")
    await drain.start(window=300)
    assert drain.progress().pacing == "evenly, 1 sessions/s"
    drain.host.engine.note_fleet(1, 1)
    assert drain.progress().pacing == "at most 40/s, this task's part of the fleet's 40/s while 1 drain"
    assert len(told.of(PaceChanged)) == 1
    await drain.host.end()


@pytest.mark.anyio
async def test_the_start_waits_until_all_old_ones_drain():
    """While more are healthy than drain nobody is shed; when the last old one drains, or the time is up, it begins."""
    drain, _ = make(100, start_delay=20)
    drain.host.engine.note_fleet(2, 14)
    drain.host.engine.claim(health(drain))
    assert drain.progress().pacing.startswith("waiting, for at most 19 s: some of 14 healthy targets")
    await asyncio.sleep(8)
    assert drain.statistics().open == 100
    drain.host.engine.note_fleet(4, 12)
    assert drain.progress().pacing.startswith("waiting, for at most 11 s: some of 12 healthy targets")
    drain.host.engine.note_fleet(8, 8)
    assert drain.progress().pacing.startswith("evenly")
    await asyncio.sleep(5)
    assert drain.statistics().open < 100
    await drain.host.end()

    drain, _ = make(100, start_delay=20)
    drain.host.engine.note_fleet(2, 14)
    drain.host.engine.claim(health(drain))
    await asyncio.sleep(19)
    assert drain.statistics().open == 100
    await asyncio.sleep(10)
    assert drain.statistics().open < 100
    await asyncio.sleep(251)
    assert drain.statistics().open == 0
    await drain.host.end()


@pytest.mark.anyio
@pytest.mark.parametrize("seen", [None, (0, 8), (8, 8)])
async def test_nothing_to_wait_for(seen):
    """Without a fleet, without others that drain, or with as many healthy as drain, the start is now."""
    drain, _ = make(100, start_delay=20)
    if seen:
        drain.host.engine.note_fleet(*seen)
    drain.host.engine.claim(health(drain))
    await asyncio.sleep(10)
    assert drain.statistics().open < 100
    await drain.host.end()


@pytest.mark.anyio
async def test_workers_that_do_not_poll_learn_the_fleet(tmp_path):
    """One worker of a task polls; its part of the budget is shared by all of them."""
    crowd = Crowd(tmp_path / "workers")
    workers = [crowd.hire(pacing="fleet:80") for _ in range(4)]
    for worker in workers:
        worker.seat(200)
    await soon()
    workers[2].drain.host.control().note_fleet(4, 4)
    await soon()
    await workers[0].drain.start(window=3000)
    await soon()
    assert [worker.drain.host.engine.fleet_seen for worker in workers] == [(4, 4, True)] * 4
    assert [worker.drain.progress().rate for worker in workers] == [80 / 4 / 4] * 4
    await crowd.dismiss()


@pytest.mark.anyio
async def test_a_start_that_the_budget_needs_is_not_delayed():
    """Where the part of the budget takes all the time there is, nobody waits for others to drain."""
    drain, _ = make(2800, start_delay=20, pacing="fleet:80")
    drain.host.engine.note_fleet(2, 14)
    drain.host.engine.claim(health(drain))
    assert not drain.progress().pacing.startswith("waiting")
    await asyncio.sleep(10)
    assert drain.statistics().open < 2800
    await drain.host.end()
