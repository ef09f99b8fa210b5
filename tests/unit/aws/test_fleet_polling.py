"""A whole fleet's polls against the real token bucket, on virtual time."""

import asyncio
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf

from example_app.simulations.clock import in_virtual_time
from example_app.simulations.polling import simulate_polling
from starlette_drain import Drain, Session
from starlette_drain._core.facts import DrainStarted, TriggerImpaired, TriggerRestored
from starlette_drain.aws.backoff import Backoff
from starlette_drain.aws.health import TargetHealthTrigger
from starlette_drain.aws.polling import fleet_interval, is_too_slow, share_used


class Guest(Session):
    """A session that does not go when it is asked to."""

    __slots__ = ()

    def leave(self, goodbye):
        """Stay."""


@pytest.mark.parametrize(
    ("poll_interval", "targets", "groups", "share", "interval"),
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
def test_interval_keeps_the_share(poll_interval, targets, groups, share, interval):
    """As many targets as are listed, each asking about every group, use no more than their share."""
    assert fleet_interval(poll_interval, targets, groups, share) == pytest.approx(interval)
    assert share_used(interval, targets, groups) <= share + 1e-9


def test_a_quarter_of_the_delay_is_too_late():
    """Up to a quarter of the delay may be lost to the lag."""
    assert not is_too_slow(75, 300)
    assert is_too_slow(76, 300)


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


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [10, 200, pytest.param(2000, id="2000")])
def test_fleet_keeps_to_its_share_and_the_lag_is_the_interval(tasks):
    """Whatever its size a fleet takes a fifth of the refill, is never throttled, and notices within one interval."""
    figures = in_virtual_time(simulate_polling(tasks, intervals=2))
    assert figures.interval == pytest.approx(max(5.0, tasks / 2))
    assert figures.share <= 0.2 * 1.05
    assert figures.throttled == 0
    assert figures.worst_lag <= figures.interval + 0.1
    assert figures.mean_lag == pytest.approx(figures.interval / 2, rel=0.3)


@pytest.mark.anyio
async def test_a_large_fleet_is_told_that_polls_come_too_late(stage):
    """One warning names the lag, the delay and the source to add; when the fleet shrinks, one line says so."""
    service = stage.fake.add_service(delay=300)
    task = stage.fake.add_task(service)
    group = service.registrations[0].group
    for number in range(199):
        group.register(f"10.1.0.{number}")
    async with stage.watching(task) as control:
        await asyncio.sleep(250)
        status = stage.trigger.status(control.time())
        assert status["detection_lag"] == 100
        assert status["target_groups"][0]["interval"] == 100
        assert status["target_groups"][0]["budget_used"] == pytest.approx(0.2)
        (impaired,) = control.told(TriggerImpaired)
        assert "200 targets it may ask once in 100 s" in impaired.problem
        assert "a delay of 300 s" in impaired.problem
        assert "Lambda" in impaired.remedy
        assert control.advice == [280, 285]
        assert control.seen == (0, 200)

        group._targets.clear()
        group.register("10.0.0.5")
        await asyncio.sleep(150)
        assert len(control.told(TriggerRestored)) == 1
        assert stage.trigger.status(control.time())["detection_lag"] == 5
        assert control.advice == [280, 285, 280]


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
    drain = Drain(triggers=[trigger], observers=[], rng=Random(7), fleet_rate=40)
    async with drain.run():
        for _ in range(100):
            drain.enter(Guest("/", drain.time()))
        await asyncio.sleep(20)
        for target in ("10.0.0.5", "10.1.0.0", "10.1.0.1", "10.1.0.2"):
            group.deregister(target)
        await asyncio.sleep(6)
        assert drain.fleet_seen == (4, 0)
        assert drain.progress().pacing.startswith("paused")
        group.register("10.2.0.0")
        await asyncio.sleep(6)
        assert drain.fleet_seen == (4, 1)
        assert drain.progress().pacing == "at most 10/s, this task's part of the fleet's 40/s while 4 drain"
