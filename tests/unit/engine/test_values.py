"""What triggers give may be anything: a number is taken, and what is none is replaced, logged, and never believed."""

import asyncio
import json
import math

import pytest
from guests import Stubborn, open_guests

from starlette_drain import Drain, DrainCause, DrainState
from starlette_drain._core.run import MOST_CAUSES

pytestmark = pytest.mark.anyio

NONSENSE = [math.nan, math.inf, -math.inf, "soon", True, [60], 10**400, 1j]


@pytest.fixture
async def drain():
    """Return a drain of 100 sessions, with a window of 60 s."""
    drain = Drain(triggers=[], observers=[], window=60)
    async with drain.run():
        open_guests(drain, 100)
        yield drain


def engine_of(drain):
    """Return the engine and the time."""
    return drain.host.engine, drain.host.engine.time()


@pytest.mark.parametrize("deadline", NONSENSE)
async def test_a_deadline_that_is_no_moment_is_replaced_by_the_usual_window(drain, deadline, caplog):
    """Not everybody at once, and not nobody for ever; said once, however often it is claimed."""
    engine, now = engine_of(drain)
    assert engine.claim(DrainCause("mine", "a sum went wrong", now, deadline)) is True
    assert drain.progress().time_left == 60
    assert engine.claim(DrainCause("mine", "and again", now, deadline)) is False
    assert [record.getMessage().split(" gave ")[0] for record in caplog.records] == ["Trigger 'mine'"]
    await asyncio.sleep(30)
    assert drain.statistics().open == pytest.approx(50, abs=2)
    assert await drain.wait_drained()
    assert drain.report.slack >= 0
    json.dumps(drain.report.window, allow_nan=False)


@pytest.mark.parametrize("deadline", NONSENSE)
async def test_a_deadline_that_becomes_nonsense_leaves_the_one_there_was(drain, deadline):
    """A trigger whose sum goes wrong during its drain moves no deadline."""
    engine, now = engine_of(drain)
    engine.claim(DrainCause("mine", "draining", now, now + 40))
    await asyncio.sleep(10)
    for _ in range(3):
        assert engine.claim(DrainCause("mine", "a sum went wrong", now, deadline)) is False
    assert drain.progress().time_left == 30


@pytest.mark.parametrize("deadline", [-1e300, -5.0, 0, 0.0])
async def test_a_moment_long_ago_means_now_once(drain, deadline):
    """Everybody is asked at once; told again it moves nothing, and the report is no worse for it."""
    engine, now = engine_of(drain)
    for _ in range(3):
        engine.claim(DrainCause("mine", "too late", now, deadline))
        await asyncio.sleep(1)
    assert drain.state is DrainState.DRAINED
    assert (drain.report.shed, drain.report.window) == (100, 0)
    assert drain.report.slack == pytest.approx(0, abs=0.1)


async def test_a_moment_that_has_passed_does_not_move_a_deadline_later():
    """Another trigger with a passed deadline, after the first: the drain is overdue since the first one."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        open_guests(drain, 5, Stubborn)
        engine, now = engine_of(drain)
        engine.claim(DrainCause("a", "too late", now, now - 5))
        await asyncio.sleep(2)
        engine.claim(DrainCause("b", "too late too", now, now - 50))
        assert drain.progress().window == 0
        assert [cause.trigger for cause in drain.progress().causes] == ["a", "b"]


@pytest.mark.parametrize("value", [*NONSENSE, None])
async def test_moments_and_lags_that_are_none_are_replaced(drain, value):
    """What is only told of is made fit to be told: every figure is one that JSON knows."""
    engine, now = engine_of(drain)
    engine.claim(DrainCause("mine", "draining", value, now + 60, lag=value))
    (cause,) = drain.progress().causes
    assert (cause.at, cause.lag) == (now, 0.0)
    engine.claim(DrainCause("other", "draining", now - 5, now + 90, lag=-3.0))
    assert drain.progress().causes[1].lag == 0.0
    await drain.cancel()
    assert drain.report.detection_lag == 0.0


@pytest.mark.parametrize("window", [*NONSENSE, -1.0, None])
async def test_a_window_that_is_none_is_not_taken_note_of(drain, window, caplog):
    """An advice that makes no sense leaves the one there was."""
    engine, _ = engine_of(drain)
    engine.note_window(50)
    engine.note_window(window)
    await drain.start()
    assert drain.progress().window == 50
    assert len(caplog.records) == 1


@pytest.mark.parametrize("count", [*NONSENSE, -1, 2.5, None])
async def test_counts_that_are_none_are_not_taken_note_of(count, caplog):
    """The fleet is what was last told in whole numbers."""
    drain = Drain(triggers=[], observers=[], pacing="fleet:40")
    async with drain.run():
        open_guests(drain, 100)
        engine, _ = engine_of(drain)
        engine.note_fleet(4, 4)
        await drain.start(window=1000)
        engine.note_fleet(count, 4)
        engine.note_fleet(4, count)
        assert engine.fleet_seen == (4, 4, True)
        assert drain.progress().rate == 10
    assert len(caplog.records) == 2


async def test_a_trigger_that_flickers_fills_no_memory(drain):
    """A hundred causes are kept of a drain, and no more."""
    engine, now = engine_of(drain)
    for step in range(3 * MOST_CAUSES):
        engine.claim(DrainCause(f"t{step}", "flickers", now, now + 1000 - step))
        engine.withdraw(f"t{step - 1}")
    assert len(drain.progress().causes) == 1
    await drain.cancel()
    assert len(drain.report.causes) == MOST_CAUSES
