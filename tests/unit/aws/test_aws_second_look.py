"""What one answer about the target may do to a real drain, and what it takes to serve again; on virtual time."""

import asyncio
import contextlib
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf
from worker_crowd import soon, states

from starlette_drain import Drain, DrainState
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import DrainCancelled, DrainStarted
from starlette_drain._core.session import Session
from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.testing import FakeRegistration, RecordingObserver

pytestmark = pytest.mark.anyio

POLL = "DescribeTargetHealth"
INTERVAL = 5
SERVING, DRAINING, DRAINED = DrainState.SERVING, DrainState.DRAINING, DrainState.DRAINED


def listed(state, reason=None, target_id="10.0.0.5", port=8000):
    """Return one entry of an answer."""
    return {"Target": {"Id": target_id, "Port": port}, "TargetHealth": {"State": state, "Reason": reason}}


def listing(*entries):
    """Return an answer."""
    return {"TargetHealthDescriptions": list(entries)}


WITHOUT_OUR_TARGET = {
    "an empty list": listing(),
    "{}": {},
    "null": {"TargetHealthDescriptions": None},
    "foreign targets": listing(listed("healthy", target_id="10.0.0.6"), listed("draining", port=9000)),
    "an empty entry": listing({}),
    "a garbage entry": listing("garbage", None, 7, {"Target": "10.0.0.5"}, {"Target": None, "TargetHealth": 7}),
    "unused": listing(listed("unused", "Target.NotRegistered")),
    "InvalidTarget": ClientError("InvalidTarget"),
}


class Guest(Session):
    """A session that leaves as soon as it is asked to."""

    def __init__(self, drain):
        super().__init__("/", drain.host.engine.time())
        self._drain = drain

    def begin_close(self, _policy):
        """Go at once."""
        self._drain.host.engine.closed(self, forced=False)


class Scene:
    """A task whose drain listens to target health."""

    def __init__(self, stage, task, drain, recording):
        self.fake, self.clients, self.task = stage.fake, stage.clients, task
        self.drain, self.recording = drain, recording

    async def show(self, answer, times):
        """Let the next polls, *times* of them, be answered so."""
        said = self.clients.failures if isinstance(answer, Exception) else self.clients.answers
        said[POLL] = answer
        await asyncio.sleep(times * INTERVAL)
        del said[POLL]

    def drains(self):
        """Return how many drains have begun, and how many of them were cancelled."""
        return len(self.recording.of(DrainStarted)), len(self.recording.of(DrainCancelled))


@contextlib.asynccontextmanager
async def serving(stage, *registrations, guests=0, policy="any", **options):
    """Serve as a task that target health has seen in service."""
    entries = {"registrations": registrations} if registrations else {"delay": 60}
    task = stage.fake.add_task(stage.fake.add_service(**entries))
    trigger = TargetHealthTrigger(
        policy=policy, clients=stage.clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(task)
    )
    recording = RecordingObserver()
    drain = Drain(triggers=[trigger], observers=[recording], rng=Random(7), **options)
    drain.host.equip(list, list)
    async with drain.run():
        await asyncio.sleep(20)
        for _ in range(guests):
            drain.host.engine.track(Guest(drain))
        yield Scene(stage, task, drain, recording)


@pytest.mark.parametrize("answer", WITHOUT_OUR_TARGET.values(), ids=WITHOUT_OUR_TARGET)
async def test_an_answer_without_our_target_needs_a_second_one(stage, answer):
    """Shown once it changes nothing, however often that happens; shown by two polls in a row it means a drain."""
    async with serving(stage, guests=20) as scene:
        for _ in range(3):
            await scene.show(answer, times=1)
            await asyncio.sleep(INTERVAL)
        assert scene.drains() == (0, 0)
        assert scene.drain.host.statuses()["target-health"]["target_groups"][0]["targets"] == 1

        await scene.show(answer, times=2)
        assert scene.drain.state is not SERVING


async def test_a_failure_in_between_neither_confirms_nor_denies(stage):
    """Two answers in a row may have a poll between them that failed."""
    async with serving(stage, guests=20) as scene:
        await scene.show(listing(), times=1)
        await scene.show(TimeoutError(), times=1)
        assert scene.drains() == (0, 0)
        await scene.show(listing(), times=1)
        assert scene.drains() == (1, 0)


async def test_garbage_does_not_hide_our_target(stage):
    """An answer with a garbage entry still tells how our target is."""
    async with serving(stage, guests=20) as scene:
        await scene.show(listing("garbage", {"Target": 7}, listed("healthy")), times=4)
        assert scene.drains() == (0, 0)
        await scene.show(listing(None, listed("draining")), times=1)
        assert scene.drains() == (1, 0)


async def test_draining_is_believed_at_once_and_taken_back(stage):
    """One answer "draining" begins a drain; where it was wrong, two answers "healthy" end it."""
    async with serving(stage, guests=20) as scene:
        await scene.show(listing(listed("draining")), times=1)
        assert scene.drain.state is DRAINING
        await asyncio.sleep(INTERVAL)
        assert scene.drain.state is DRAINING
        await asyncio.sleep(INTERVAL)
        assert (scene.drain.state, scene.drains()) == (SERVING, (1, 1))
        await asyncio.sleep(3600)
        assert (scene.drain.state, scene.drains()) == (SERVING, (1, 1))
        assert scene.drain.statistics().open > 0


async def test_flapping_neither_ends_nor_repeats_the_drain(stage):
    """A target that is healthy in every other answer stays in the drain that was begun."""
    async with serving(stage, guests=20) as scene:
        for _ in range(4):
            await scene.show(listing(listed("draining")), times=1)
            await asyncio.sleep(INTERVAL)
        assert scene.drains() == (1, 0)


@pytest.mark.parametrize("after", [10, 600])
@pytest.mark.parametrize("guests", [0, 20])
async def test_registered_again_serves_again(stage, after, guests):
    """A target that is registered again serves again, whether the drain is under way, over, or the target is gone."""
    async with serving(stage, guests=guests) as scene:
        for number in (1, 2):
            scene.fake.deregister(scene.task)
            await asyncio.sleep(after)
            assert not scene.drain.host.engine.admits()
            scene.fake.register(scene.task)
            await asyncio.sleep(2 * INTERVAL)
            assert scene.drain.host.engine.admits()
            assert (scene.drain.state, scene.drains()) == (SERVING, (number, number))


@pytest.mark.parametrize("is_told_to_stop", [False, True])
async def test_what_others_asked_for_is_not_taken_back(stage, is_told_to_stop):
    """A drain that somebody else has asked for too stays, and a process that was told to stop never serves again."""
    async with serving(stage, guests=20) as scene:
        scene.fake.deregister(scene.task)
        await asyncio.sleep(10)
        now = scene.drain.host.engine.time()
        scene.drain.host.engine.claim(DrainCause("other", "it says so", now, now + 30, revocable=not is_told_to_stop))
        scene.fake.register(scene.task)
        await asyncio.sleep(600)
        assert (scene.drain.state, scene.drains()) == (DRAINED, (1, 0))


async def test_a_drain_by_hand_is_not_touched(stage):
    """A healthy target takes back nothing that it has not asked for."""
    async with serving(stage, guests=20) as scene:
        await scene.drain.start(window=60)
        await asyncio.sleep(600)
        assert (scene.drain.state, scene.drains()) == (DRAINED, (1, 0))


@pytest.mark.parametrize("policy", ["any", "all"])
async def test_several_groups(stage, policy):
    """The drain is taken back when what it was begun for is no more: with "any" no group takes the target out."""
    public, internal = stage.fake.add_target_group("public"), stage.fake.add_target_group("internal", port=9000)
    entries = FakeRegistration(public, "app", 8000), FakeRegistration(internal, "app", 9000)
    async with serving(stage, *entries, guests=20, policy=policy) as scene:
        scene.fake.deregister(scene.task)
        await asyncio.sleep(10)
        assert scene.drains() == (1, 0)
        scene.fake.register(scene.task, public)
        await asyncio.sleep(20)
        assert scene.drains() == ((1, 0) if policy == "any" else (1, 1))
        scene.fake.register(scene.task, internal)
        await asyncio.sleep(20)
        assert scene.drains() == (1, 1)


@pytest.mark.parametrize("watcher_dies", [False, True])
async def test_all_workers_serve_again(stage, crowd, watcher_dies):
    """All workers take the drain back, also where the one that began it has died and another watches."""
    task = stage.fake.add_task(stage.fake.add_service(delay=30))

    def hire():
        trigger = TargetHealthTrigger(clients=stage.clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(task))
        worker = crowd.hire(triggers=[trigger])
        worker.seat(10)
        return worker

    first = hire()
    await soon()
    hire()
    hire()
    await asyncio.sleep(20)
    stage.fake.deregister(task)
    await asyncio.sleep(7)
    assert states(crowd) == [DRAINING] * 3
    if watcher_dies:
        await first.die()
        crowd.everyone.remove(first)
    await asyncio.sleep(30)
    assert set(states(crowd)) == {DRAINED}
    stage.fake.register(task)
    await asyncio.sleep(12)
    assert set(states(crowd)) == {SERVING}
