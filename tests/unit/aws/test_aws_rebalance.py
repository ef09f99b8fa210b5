"""After a scale-out a task moves its share of sessions to the new ones, and in no other case."""

import asyncio
import contextlib
from random import Random
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf
from guests_of_aws import Guest
from hypothesis import given
from hypothesis import strategies as st

from starlette_drain import Drain
from starlette_drain._core.events import RotationStarted, TriggerImpaired, TriggerPolled
from starlette_drain.aws import session
from starlette_drain.aws.sources.rebalance import LOWER_AFTER, SETTLED, Growth, ScaleOut
from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.testing import FakeRegistration, RecordingObserver

INTERVAL = 5.0


# --- What the numbers say ---


def seen(*answers):
    """Return what each answer, (healthy, draining) or the former alone, led to; a look every 5 s."""
    scale_out, found = ScaleOut(), []
    for number, answer in enumerate(answers):
        healthy, draining = answer if isinstance(answer, tuple) else (answer, 0)
        if growth := scale_out.take(healthy, draining, number * INTERVAL):
            found.append(growth)
            scale_out.settle()
    return found


def test_a_scale_out_counts_when_it_has_settled():
    """Three answers with one number; it was seen when the first showed more than before."""
    assert seen(8, 8, 8, 9, 11, 12, 12, 12, 12) == [Growth(8, 12, 15.0)]
    assert seen(8, 8, 8, 12, 12) == []
    assert seen(8, 8, 8, 12, 12, 12, 16, 16, 16) == [Growth(8, 12, 15.0), Growth(12, 16, 30.0)]


def test_a_task_that_is_new_learns_the_number_first():
    """What it sees grow while it comes itself is none of its business."""
    assert seen(9, 10, 12, 12, 12, 12, 12) == []


def test_a_target_that_flaps_is_no_scale_out():
    """Whether one of the old or of the new ones, and for however long it stays."""
    assert seen(*(8, 8, 8, *(7,) * 10) * 5) == []
    assert seen(8, 8, 8, *(9, 9, 9, 8, 8, 8) * 5) == [Growth(8, 9, 15.0)]
    assert seen(8, 8, 8, *(9, 8) * 20) == []


def test_a_deployment_is_no_scale_out():
    """While targets drain nothing is learned, and then anew: also where a crashed task is replaced again and again."""
    assert seen(8, 8, 8, (16, 8), (16, 8), (8, 8), (8, 8), 8, 8, 8, 8) == []
    assert seen(*(8, 8, 8, 7, (7, 1), (7, 1), 8, 8, 8) * 5) == []


def test_fewer_targets_for_long_are_the_usual_number():
    """A scale-in that was never seen to drain, as with a delay of 0."""
    looks = int(LOWER_AFTER / INTERVAL) + 1
    assert seen(12, 12, 12, *(8,) * looks, 12, 12, 12) == [Growth(8, 12, INTERVAL * (3 + looks))]
    assert seen(12, 12, 12, *(8,) * (looks - 2), 12, 12, 12) == []


@given(answers=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 0, 0, 1])), max_size=100))
def test_a_scale_out_is_always_growth_that_was_seen(answers):
    """Whatever the answers: more than before, both numbers seen three times in a row, and none drains meanwhile."""
    scale_out = ScaleOut()
    for number, (healthy, draining) in enumerate(answers):
        growth = scale_out.take(healthy, draining, float(number))
        if growth:
            assert growth.before < growth.now == healthy
            assert growth.seen <= number - SETTLED + 1
            assert answers[number - SETTLED + 1 : number + 1] == [(healthy, 0)] * SETTLED
            assert all(draining == 0 for _, draining in answers[int(growth.seen) : number + 1])
            scale_out.settle()
            assert scale_out.take(healthy, 0, number + 0.5) is None


# --- What follows ---


def add_task(fake, service):
    """Add a task with an address of its own."""
    return fake.add_task(service, addresses=(f"10.0.0.{5 + len(fake.tasks)}",))


class Scene:
    """A task of eight behind one target group, each with as many sessions."""

    def __init__(self, stage, service, group, *, drain, recording, trigger):
        self.trigger = trigger
        self.fake, self.clients, self.service, self.group = stage.fake, stage.clients, service, group
        self.drain, self.recording = drain, recording

    def add(self, tasks):
        """Let the service have more *tasks*."""
        for _ in range(tasks):
            add_task(self.fake, self.service)

    def forget_service(self):
        """Let the task be one that was started on its own."""
        self.trigger._session._open.service = SimpleNamespace(get=AsyncMock(return_value=None))

    @property
    def rotations(self):
        """The rotations that have begun."""
        return [each.rotation for each in self.recording.of(RotationStarted)]

    @property
    def problems(self):
        """The warnings."""
        return [each.problem for each in self.recording.of(TriggerImpaired)]


@pytest.fixture(autouse=True)
def old(monkeypatch):
    """Let the tasks be old ones, which ask at full pace."""
    monkeypatch.setattr(session, "PAIR", 20)


@contextlib.asynccontextmanager
async def serving(stage, *, algorithm="least_outstanding_requests", environ=ON_ECS, sessions=1200, **options):
    """Serve as one of eight tasks."""
    attributes = {"load_balancing.algorithm.type": algorithm} if algorithm else {}
    protocol = "HTTP" if algorithm else "TCP"
    group = stage.fake.add_target_group("web", delay=60, protocol=protocol, attributes=attributes)
    service = stage.fake.add_service("web", registrations=[FakeRegistration(group, "app", 8000)])
    task, *_ = [add_task(stage.fake, service) for _ in range(8)]
    trigger = TargetHealthTrigger(clients=stage.clients, environ=environ, rng=Random(7), fetch=MetadataOf(task))
    recording = RecordingObserver()
    options = {"rebalance": True, "pacing": "fleet:80"} | options
    drain = Drain(triggers=[trigger], observers=[recording], rng=Random(7), **options)
    drain.host.equip(list, list)
    async with drain.run():
        await asyncio.sleep(30)
        for _ in range(sessions):
            Guest(drain)
        yield Scene(stage, service, group, drain=drain, recording=recording, trigger=trigger)


@pytest.mark.anyio
async def test_from_8_to_12_a_third_of_the_sessions_moves_within_the_budget(stage):
    """At this task's part of the fleet's rate; those who come meanwhile stay."""
    async with serving(stage) as scene:
        scene.add(4)
        await asyncio.sleep(INTERVAL)
        later = [Guest(scene.drain) for _ in range(12)]
        await asyncio.sleep(4 * INTERVAL)
        (rotation,) = scene.rotations
        assert rotation.share == pytest.approx(1 / 3)
        assert (rotation.trigger, rotation.reason) == ("rebalance", "a scale-out from 8 to 12 healthy targets")
        before = scene.drain.rotation().asked
        await asyncio.sleep(10)
        assert scene.drain.rotation().asked - before == pytest.approx(0.9 * 100, abs=3)
        await asyncio.sleep(60)
        assert scene.drain.statistics().open == pytest.approx(800 + 12, abs=1)
        assert not any(each.shed_at for each in later)
        await asyncio.sleep(3600)
        assert len(scene.rotations) == 1
        assert scene.problems == []


@pytest.mark.anyio
@pytest.mark.parametrize("algorithm", ["round_robin", "weighted_random", None])
async def test_another_algorithm_moves_nothing_and_is_warned_of_at_the_start(stage, algorithm):
    """With turns 8 of 12 would end at four to one; the warning comes before the scale-out, once, with the remedy."""
    async with serving(stage, algorithm=algorithm) as scene:
        (problem,) = scene.problems
        assert "least_outstanding_requests" in problem
        scene.add(4)
        await asyncio.sleep(600)
        assert scene.rotations == []
        assert len(scene.problems) == 1
        scene.group.attributes["load_balancing.algorithm.type"] = "least_outstanding_requests"
        scene.add(4)
        await asyncio.sleep(600)
        assert [each.share for each in scene.rotations] == [pytest.approx(1 - 12 / 16)]


@pytest.mark.anyio
async def test_a_deployment_moves_nothing(stage):
    """While ECS shows two deployments the new tasks may take the places of the old; when they drain, it is certain."""
    async with serving(stage) as scene:
        scene.service.add_revision(2)
        scene.add(8)
        await asyncio.sleep(300)
        assert scene.rotations == []
        assert len(scene.clients.times("DescribeServices")) <= 2 + 300 / 60


@pytest.mark.anyio
async def test_a_deployment_that_ends_without_draining_leaves_a_scale_out(stage):
    """It waits for the end, and then moves what was there before."""
    async with serving(stage) as scene:
        former = list(scene.service.revisions)
        scene.service.add_revision(2)
        scene.add(4)
        await asyncio.sleep(100)
        assert scene.rotations == []
        scene.service.revisions[:] = former or scene.service.revisions[:1]
        await asyncio.sleep(100)
        assert len(scene.rotations) == 1


@pytest.mark.anyio
async def test_off_ecs_it_says_that_it_does_nothing(stage):
    """A deployment could not be told from a scale-out."""
    arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0000000000000001"
    given = {"target_group_arn": (arn,), "target_id": "10.0.0.5", "target_port": 8000}
    async with serving(stage, environ={}, **given) as scene:
        scene.add(4)
        await asyncio.sleep(600)
        assert scene.rotations == []
        assert any("off ECS" in each for each in scene.problems)


@pytest.mark.anyio
@pytest.mark.parametrize("operation", ["DescribeTargetGroupAttributes", "DescribeServices"])
async def test_what_cannot_be_found_out_is_asked_again_and_spoils_no_poll(stage, operation):
    """The look at the target itself has worked; the scale-out is followed when AWS answers again."""
    async with serving(stage) as scene:
        scene.clients.failures[operation] = ClientError("InternalFailure")
        scene.add(4)
        await asyncio.sleep(100)
        assert scene.rotations == []
        assert {each.outcome for each in scene.recording.of(TriggerPolled)} == {"serving"}
        del scene.clients.failures[operation]
        await asyncio.sleep(100)
        assert len(scene.rotations) == 1


@pytest.mark.anyio
async def test_targets_that_become_healthy_again_are_no_scale_out(stage):
    """From none to eight: the balancer sent to all of them meanwhile."""
    async with serving(stage, sessions=0) as scene:
        for number in range(8):
            scene.group.show(f"10.0.0.{5 + number}", "initial")
        await asyncio.sleep(2 * LOWER_AFTER)
        for number in range(8):
            scene.group.show(f"10.0.0.{5 + number}", None)
        await asyncio.sleep(300)
        assert scene.rotations == []


@pytest.mark.anyio
async def test_a_task_of_no_service_knows_no_deployment(stage):
    """It was started by hand, and its target group may grow all the same."""
    async with serving(stage) as scene:
        scene.forget_service()
        scene.add(4)
        await asyncio.sleep(100)
        assert len(scene.rotations) == 1


@pytest.mark.anyio
async def test_without_the_option_nothing_more_is_asked(stage):
    """Neither attributes nor services, beyond what is asked anyhow."""
    async with serving(stage, rebalance=False) as scene:
        before = len(scene.clients.times("DescribeServices"))
        scene.add(4)
        await asyncio.sleep(200)
        assert scene.rotations == []
        assert len(scene.clients.times("DescribeServices")) == before
