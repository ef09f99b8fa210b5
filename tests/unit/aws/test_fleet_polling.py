"""A whole fleet's polls against the real token bucket, on virtual time."""

import asyncio
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf
from simulations.clock import in_virtual_time
from simulations.polling import simulate_polling
from simulations.services import simulate_services

from starlette_drain import Drain, Session
from starlette_drain._core.events import DrainStarted, TriggerImpaired, TriggerRestored, WatchReported
from starlette_drain.aws.api.backoff import Backoff
from starlette_drain.aws.api.budget import (
    MOST,
    Bucket,
    fleet_interval,
    is_too_slow,
    share_used,
    start_spread,
    tasks_listed,
)
from starlette_drain.aws.sources.target_health import TargetHealthTrigger


class Guest(Session):
    """A session that does not go when it is asked to."""

    __slots__ = ()

    def begin_close(self, close_policy):
        """Stay."""


@pytest.mark.parametrize(
    ("poll_interval", "tasks", "groups", "share", "interval"),
    [
        (5, 1, 1, 0.2, 5),
        (5, 10, 1, 0.2, 5),
        (5, 11, 1, 0.2, 5.5),
        (5, 200, 1, 0.2, 100),
        (5, 200, 2, 0.2, 200),
        (5, 2000, 1, 1.0, 200),
        (30, 20, 1, 0.2, 30),
        (5, 0, 1, 0.2, 5),
    ],
)
def test_interval_keeps_the_share(poll_interval, tasks, groups, share, interval):
    """As many tasks, each asking about every group, use no more than their share."""
    assert fleet_interval(poll_interval, tasks, groups, share) == pytest.approx(interval)
    assert share_used(interval, tasks, groups) <= share + 1e-9


@pytest.mark.parametrize(
    ("targets", "own", "tasks"),
    [(0, 0, 0), (200, 1, 200), (400, 1, 400), (400, 2, 200), (401, 2, 201), (400, 0, 400), (3, 3, 1)],
)
def test_every_task_is_listed_as_often_as_this_one(targets, own, tasks):
    """In both of two groups, in one half of a pair, with two ports in one group; not listed yet: all are tasks."""
    assert tasks == tasks_listed(targets, own)


@pytest.mark.parametrize(
    ("tasks", "groups", "share", "brief", "seconds"),
    [
        (1, 1, 0.2, False, 0),
        (2, 1, 0.2, False, 0),
        (4, 1, 0.2, False, 2),
        (200, 1, 0.2, False, 296),
        (200, 2, 0.2, False, 496),
        (200, 1, 0.2, True, 36),
        (300, 1, 0.2, True, 56),
        (300, 1, 1.0, True, 26),
        (8, 1, 1.0, False, 0),
        (0, 1, 0.2, False, 0),
        (200, 0, 0.2, False, 0),
    ],
)
def test_a_start_is_spread_so_that_it_keeps_to_the_share(tasks, groups, share, brief, seconds):
    """
    The burst's share at once, the rest at the pace: two questions about each group and one more, by every task.

    Where the first look comes first it is one about each group, at half of the budget: 300 tasks look within a minute.
    """
    assert start_spread(tasks, groups, share, brief=brief) == pytest.approx(seconds)


def test_a_quarter_of_the_delay_is_too_late():
    """Up to a quarter of the delay may be lost to the lag."""
    assert not is_too_slow(75, 300)
    assert is_too_slow(76, 300)


def test_a_bucket_that_throttles_is_asked_half_as_often():
    """Halved at once, back slowly; a small service keeps a hundredth of the budget, a large one gives way further."""
    large, small = Bucket(), Bucket()
    for _ in range(10):
        assert large.throttled() in (1, 2, 4)
        small.throttled()
    assert large.stretched(100, 200, 75) == 100 * MOST
    assert small.stretched(5, 5, 75) == 75
    for _ in range(70):
        large.answered()
    assert large.stretched(100, 200, 75) == pytest.approx(100 * MOST / 2, rel=0.02)
    for _ in range(1000):
        large.answered()
    assert large.stretched(100, 200, 75) == 100
    assert Bucket().stretched(5, 5, 0) == 5


def test_another_base_keeps_a_wait_that_has_grown():
    """While AWS throttles, a change of the fleet's size shortens nothing."""
    backoff = Backoff(5, 60, Random(7))
    backoff.rebase(20, 60)
    assert backoff.wait == 20
    grown = backoff.grow()
    backoff.rebase(5, 60)
    assert backoff.wait == grown
    backoff.reset()
    assert backoff.wait == 5


@pytest.mark.unmeasured
@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "layout", "interval"),
    [
        (10, "one", 5),
        (200, "one", 100),
        (1000, "one", 500),
        (200, "pair", 200),
        (200, "shifting pair", 200),
        (200, "both", 200),
    ],
)
def test_fleet_keeps_to_its_share_and_the_lag_is_the_interval(tasks, layout, interval):
    """
    Whatever its size a fleet takes a fifth of the refill, is never throttled, and notices within one interval.

    So it does with two target groups, whether all tasks are in both, in one half of a pair, or half of them in each;
    and while it starts it is not throttled either, and takes no more than half of the budget and its share. To read
    the delays again takes a fortieth of it more, and one call of each task that is taken out.
    """
    figures = in_virtual_time(simulate_polling(tasks, layout=layout, intervals=2))
    assert figures.interval == pytest.approx(interval)
    assert figures.share <= 0.2 * 1.05
    assert figures.throttled == figures.throttled_at_start == 0
    assert figures.share_at_start <= 0.7 * 1.1
    assert figures.worst_lag <= figures.interval + 0.1
    if layout != "both":  # where the first of two groups that says so decides
        assert figures.mean_lag == pytest.approx(figures.interval / 2, rel=0.35)


@pytest.mark.unmeasured
@pytest.mark.slow
def test_three_hundred_tasks_that_start_together_look_within_a_minute():
    """None of them is throttled, and an outsider would not be either."""
    figures = in_virtual_time(simulate_polling(300, intervals=2, samples=20))
    assert figures.first_look <= 60
    assert figures.throttled_at_start == 0
    assert figures.share_at_start <= 0.75


@pytest.mark.unmeasured
@pytest.mark.slow
def test_services_that_throttle_each_other_leave_room():
    """Twenty services of five tasks would take twice the budget: they give way to each other and to an outsider."""
    figures = in_virtual_time(simulate_services(20, 5, settle=2400.0, seconds=1200.0, samples=40))
    assert figures.outsider >= 0.95
    assert figures.throttled <= 0.03
    assert 0.6 <= figures.share <= 0.9
    assert figures.p99_lag <= 75


@pytest.mark.unmeasured
@pytest.mark.slow
def test_a_fleet_that_knows_nothing_of_its_size_spreads_once_it_is_throttled():
    """With the target groups given by hand a start is throttled, a quarter of it, and learns all the same."""
    figures = in_virtual_time(simulate_polling(100, intervals=2, by_hand=True))
    assert figures.throttled_at_start < 0.3
    assert figures.armed < 240
    assert figures.throttled == 0
    assert figures.share <= 0.2 * 1.05


@pytest.mark.anyio
async def test_a_task_among_many_waits_for_its_turn_and_no_longer_than_needed(stage):
    """ELBv2 is not asked at the start of a large service before a moment drawn by lot; a drain ends that wait."""
    service = stage.fake.add_service(delay=300)
    service.desired = 200
    task = stage.fake.add_task(service)
    async with stage.watching(task) as control:
        await asyncio.sleep(5)
        assert set(stage.clients.opened) == {"ecs"}
        stage.trigger.notify(DrainStarted(control.time(), "d-1", None, 0.0, 10, "evenly"))
        await asyncio.sleep(1)
        assert stage.clients.times("DescribeTargetHealth")
        assert "DescribeTargetGroups" not in stage.clients.operations()


@pytest.mark.anyio
async def test_a_task_among_many_reads_the_delay_later(stage):
    """The first look comes first. The delay is read minutes later, or as soon as the target is taken out."""
    service = stage.fake.add_service(delay=120)
    service.desired = 200
    task = stage.fake.add_task(service)
    for number in range(199):
        service.registrations[0].group.register(f"10.1.0.{number}")
    async with stage.watching(task) as control:
        await asyncio.sleep(60)
        assert stage.clients.times("DescribeTargetHealth")
        assert control.advice == []
        (group,) = stage.trigger.status(control.time())["target_groups"]
        assert not group["delay_known"]
        assert not stage.clients.times("DescribeTargetGroupAttributes")
        service.registrations[0].group.deregister("10.0.0.5")
        await asyncio.sleep(110)
        assert len(control.causes) == 1
        (group,) = stage.trigger.status(control.time())["target_groups"]
        assert (group["delay"], group["delay_known"]) == (120, True)
        assert control.advice[-1] == 105


@pytest.mark.anyio
async def test_a_task_among_many_that_may_not_read_the_delay(stage):
    """The default is assumed, and one warning says so, as in a small service."""
    service = stage.fake.add_service(delay=120)
    service.desired = 30
    task = stage.fake.add_task(service)
    stage.clients.failures["DescribeTargetGroupAttributes"] = ClientError("AccessDenied")
    async with stage.watching(task) as control:
        await asyncio.sleep(1000)
        (impaired,) = control.told(TriggerImpaired)
        assert "a deregistration delay of 300 s is assumed" in impaired.problem
        assert len(stage.clients.times("DescribeTargetGroupAttributes")) == 1
        assert control.advice == [280]


@pytest.mark.anyio
@pytest.mark.parametrize("denied", [False, True])
async def test_a_rollback_before_the_first_look(stage, denied):
    """Where ECS may be asked the drain begins then, and its deadline counts from the start; else SIGTERM ends it."""
    service = stage.fake.add_service(delay=300)
    service.desired = 300
    task = stage.fake.add_task(service)
    for number in range(299):
        service.registrations[0].group.register(f"10.1.{number // 250}.{number % 250}")
    if denied:
        stage.clients.failures["DescribeTasks"] = ClientError("AccessDeniedException")
    async with stage.watching(task, seed=5) as control:
        stage.metadata.shown = task.metadata() | {"ServiceName": "web"}
        await asyncio.sleep(1)
        stage.fake.deactivate(task)
        await asyncio.sleep(65)
        assert stage.clients.times("DescribeTargetHealth")[0] > 5
        reported = [each.what for each in control.told(WatchReported)]
        if denied:
            assert control.causes == []
            assert "left to SIGTERM" in reported[-1]
        else:
            (cause,) = control.causes
            assert cause.deadline <= 1000 + 1 + 300 - 15
            assert cause.deadline >= 1000 + 300 - 15 - 1
            assert "SIGTERM" not in reported[-1]


async def until_polled(stage):
    """Wait until the next poll."""
    polled = len(stage.clients.times("DescribeTargetHealth"))
    while len(stage.clients.times("DescribeTargetHealth")) == polled:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(1)


@pytest.mark.anyio
async def test_an_account_that_is_throttled(stage):
    """Each throttled poll doubles the interval of a large service, also past what its delay would need."""
    service = stage.fake.add_service(delay=300)
    task = stage.fake.add_task(service)
    for number in range(49):
        service.registrations[0].group.register(f"10.1.0.{number}")
    async with stage.watching(task) as control:
        await asyncio.sleep(100)
        assert stage.trigger.status(control.time())["target_groups"][0]["interval"] == 25
        for expected in (50, 100, 200):
            stage.clients.failures["DescribeTargetHealth"] = ClientError("ThrottlingException")
            await until_polled(stage)
            stage.clients.failures.clear()
            await until_polled(stage)
            assert stage.trigger.status(control.time())["target_groups"][0]["interval"] == pytest.approx(
                expected, rel=0.05
            )
        await asyncio.sleep(40_000)
        assert stage.trigger.status(control.time())["target_groups"][0]["interval"] == 25


@pytest.mark.anyio
async def test_a_task_among_few_asks_at_once(stage):
    """Two tasks are within the burst's share: nobody waits."""
    service = stage.fake.add_service()
    service.desired = 2
    async with stage.watching(stage.fake.add_task(service)):
        await asyncio.sleep(0.1)
        assert stage.clients.times("DescribeTargetHealth")


@pytest.mark.anyio
async def test_a_discovery_that_is_throttled_waits_longer(stage):
    """The tasks of a fleet that starts are throttled together: they try again ten seconds later and more."""
    stage.clients.failures["DescribeTargetGroups"] = ClientError("ThrottlingException")
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())):
        await asyncio.sleep(100)
        first, second, *_ = stage.clients.times("DescribeTargetGroups")
        assert 10 <= second - first <= 30


@pytest.mark.anyio
async def test_a_large_fleet_is_told_that_polls_come_too_late(stage):
    """One warning names the lag, the delay and the source to add; when the fleet shrinks, one line says so."""
    service = stage.fake.add_service(delay=300)
    task = stage.fake.add_task(service)
    group = service.registrations[0].group
    for number in range(399):
        group.register(f"10.1.{number // 200}.{number % 200}")
    async with stage.watching(task) as control:
        await asyncio.sleep(350)
        status = stage.trigger.status(control.time())
        assert status["detection_lag"] == 100  # ECS is asked in between
        assert status["target_groups"][0]["interval"] == 200
        assert status["budget_used"] == pytest.approx(0.2)
        (impaired,) = control.told(TriggerImpaired)
        assert "400 targets each task may poll only once in 200 s" in impaired.problem
        assert "a delay of 300 s" in impaired.problem
        assert "Lambda" in impaired.remedy
        assert control.advice == [280, 210, 285]  # the first answers are not believed: ECS tells of one task
        assert control.seen == (0, 400)
        assert not control.counted

        group._targets.clear()
        group.register("10.0.0.5")
        await asyncio.sleep(700)  # until the median of the last answers has followed
        assert len(control.told(TriggerRestored)) == 1
        assert stage.trigger.status(control.time())["detection_lag"] == 5
        assert control.advice == [280, 210, 285, 280]


@pytest.mark.anyio
async def test_the_deadline_counts_from_the_real_interval(stage):
    """Forty targets are asked about every 20 s: the drain is told that it has so much less."""
    service = stage.fake.add_service(delay=300)
    task = stage.fake.add_task(service)
    for number in range(39):
        service.registrations[0].group.register(f"10.1.0.{number}")
    async with stage.watching(task) as control:
        await asyncio.sleep(50)
        assert control.advice == [280, 265]
        stage.fake.deregister(task)
        await asyncio.sleep(21)
        (cause,) = control.causes
        assert cause.lag == pytest.approx(20)
        assert cause.deadline == pytest.approx(cause.at - 20 + 285)
        assert control.seen == (1, 39)
        assert control.counted


@pytest.mark.anyio
async def test_a_late_answer_shortens_no_drain_that_somebody_else_began(stage):
    """Who hears of the deregistration minutes late joins the drain under way without a deadline."""
    task = stage.fake.add_task(stage.fake.add_service(delay=3600))
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        stage.clients.failures["DescribeTargetHealth"] = ClientError("ServiceUnavailable")
        stage.fake.deregister(task)
        stage.trigger.notify(DrainStarted(control.time(), "d-1", None, 0.0, 10, "evenly"))
        await asyncio.sleep(1000)
        stage.clients.failures.clear()
        await asyncio.sleep(10)
        (cause,) = control.causes
        assert cause.deadline is None
        assert "noticed late" in cause.reason


@pytest.mark.anyio
async def test_the_real_trigger_tells_the_real_drain_how_many_drain(stage):
    """From the answers about the group to the pace: a pause while nobody is healthy, then a part of the budget."""
    service = stage.fake.add_service(delay=300)
    task = stage.fake.add_task(service)
    group = service.registrations[0].group
    for number in range(3):
        group.register(f"10.1.0.{number}")
    trigger = TargetHealthTrigger(clients=stage.clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(task))
    drain = Drain(triggers=[trigger], observers=[], rng=Random(7), pacing="fleet:40")
    async with drain.run():
        for _ in range(100):
            drain.host.engine.track(Guest("/", drain.host.engine.time()))
        await asyncio.sleep(20)
        for target in ("10.0.0.5", "10.1.0.0", "10.1.0.1", "10.1.0.2"):
            group.deregister(target)
        await asyncio.sleep(6)
        assert drain.host.engine.fleet_seen == (4, 0, True)
        assert drain.progress().pacing.startswith("paused")
        group.register("10.2.0.0")
        await asyncio.sleep(6)
        assert drain.host.engine.fleet_seen == (4, 1, True)
        assert drain.progress().pacing == "at most 10/s, this task's part of the fleet's 40/s while 4 drain"
