"""A large service: it asks seldom to begin with, and ECS in between."""

import asyncio

import pytest
from aws_fakes import ClientError

from starlette_drain._core.events import TriggerImpaired

pytestmark = pytest.mark.anyio

POLL = "DescribeTargetHealth"


def large(stage, tasks, *, others=0, delay=300):
    """Let one task of a service of *tasks* run, in a cluster with so many *others*."""
    service = stage.fake.add_service("web", delay=delay)
    service.desired = tasks
    if others:
        stage.fake.add_service("other").desired = others
    for number in range(tasks - 1):
        service.registrations[0].group.register(f"10.1.{number // 200}.{number % 200}")
    return stage.fake.add_task(service)


def interval(stage, control):
    """Return the seconds between two questions about the target group."""
    return stage.trigger.status(control.time())["target_groups"][0]["interval"]


async def test_a_cluster_with_many_more_tasks_is_taken_for_a_fleet(stage):
    """A fresh task asks as seldom as all tasks of its cluster together may, less seldom later."""
    async with stage.watching(large(stage, 20, others=400)) as control:
        await asyncio.sleep(60)
        assert interval(stage, control) == pytest.approx(93, rel=0.05)
        await asyncio.sleep(20_000)
        assert interval(stage, control) == 10


@pytest.mark.parametrize("tasks", [5, 20])
async def test_a_service_that_knows_nothing_of_its_cluster_begins_slowly(stage, tasks):
    """It may not ask; neither a small nor a large one is so slow that it would notice late."""
    stage.clients.failures["DescribeClusters"] = ClientError("AccessDeniedException")
    async with stage.watching(large(stage, tasks)) as control:
        await asyncio.sleep(60)
        assert len(stage.clients.times("DescribeClusters")) == 1
        assert 20 <= interval(stage, control) <= 75
        assert not control.told(TriggerImpaired)
        await asyncio.sleep(5000)
        assert interval(stage, control) == max(5, tasks / 2)


@pytest.mark.parametrize(("tasks", "asked"), [(2, 0), (5, 1)])
async def test_in_a_small_cluster_a_small_service_asks_at_full_pace(stage, tasks, asked):
    """There is nothing to be gentle about; one of two does not even ask ECS."""
    async with stage.watching(large(stage, tasks)) as control:
        await asyncio.sleep(10)
        assert interval(stage, control) == 5
        assert len(stage.clients.times("DescribeClusters")) == asked


async def test_ecs_brings_the_next_look_forward(stage):
    """A task of 300 notices within a quarter of the delay, half of its interval, and counts from what ECS said."""
    task = large(stage, 300)
    async with stage.watching(task) as control:
        await asyncio.sleep(1000)
        assert interval(stage, control) == 150
        stage.fake.deactivate(task)
        await asyncio.sleep(80)
        (cause,) = control.causes
        assert cause.lag <= 75 + 10 + 1
        assert cause.deadline >= 2000 + 300 - 75 - 10 - 15


async def test_ecs_alone_is_not_believed(stage):
    """Where the target does not drain, nothing is asked for, and the balancers are not asked for ever."""
    task = large(stage, 300)
    async with stage.watching(task) as control:
        await asyncio.sleep(1000)
        task.desired_status = "STOPPED"
        polls = len(stage.clients.times(POLL))
        await asyncio.sleep(300)
        assert control.causes == []
        assert polls < len(stage.clients.times(POLL)) <= polls + 20


@pytest.mark.parametrize(("code", "most"), [("AccessDeniedException", 1), ("ThrottlingException", 10)])
async def test_ecs_that_may_not_be_asked_spoils_nothing(stage, code, most):
    """The interval is that of target health again, and ECS is asked no more, or more seldom."""
    async with stage.watching(large(stage, 300)) as control:
        await asyncio.sleep(1000)
        assert stage.trigger.status(control.time())["detection_lag"] == 75
        stage.clients.failures["DescribeTasks"] = ClientError(code)
        asked = len(stage.clients.times("DescribeTasks"))
        await asyncio.sleep(2000)
        assert stage.trigger.status(control.time())["detection_lag"] == 150
        assert 1 <= len(stage.clients.times("DescribeTasks")) - asked <= most


async def test_a_small_service_asks_ecs_no_more_often(stage):
    """Its polls are quick enough."""
    async with stage.watching(large(stage, 5)) as control:
        await asyncio.sleep(600)
        asked = len(stage.clients.times("DescribeTasks"))
        await asyncio.sleep(1000)
        assert len(stage.clients.times("DescribeTasks")) == asked
        assert control.causes == []
