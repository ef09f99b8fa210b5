"""What target health says of its own sight, and what odd answers, outages and changes do to it; on virtual time."""

import asyncio
import time

import pytest
from aws_fakes import ClientError, NoCredentialsError

from starlette_drain._core.events import TriggerImpaired, TriggerRestored, TriggerStoodDown, WatchReported
from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger
from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.aws.sources.task_state import EcsTaskTrigger
from starlette_drain.testing import FakeAWS, FakeRegistration

pytestmark = pytest.mark.anyio

POLL, ATTRIBUTES = "DescribeTargetHealth", "DescribeTargetGroupAttributes"
OUTAGE = ClientError("ServiceUnavailable")


def only_group(task):
    """Return the one target group of a task."""
    return task.service.registrations[0].group


def watch(stage, control):
    """Return what GET /drain shows of the sight."""
    shown = stage.trigger.status(control.time())
    return shown["watch"], shown["because"]


# What it says


async def test_it_reports_what_it_watches_once(stage):
    """After the first look: target, group, delay, window and interval; and no more while nothing changes."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(delay=300))) as control:
        await asyncio.sleep(2000)
        (told,) = control.told(WatchReported)
        what = "10.0.0.5 (8000) in web, delay 300 s, window 280 s, every 5 s, less often in a large fleet"
        assert (told.state, told.what, told.because) == ("watching", what, "")
        assert watch(stage, control) == ("watching", None)


async def test_it_names_the_permissions_that_are_missing(stage):
    """What was done without stands in the line, and the window that was set."""
    stage.clients.failures[ATTRIBUTES] = ClientError("AccessDenied")
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(delay=60)), window=100) as control:
        await asyncio.sleep(30)
        (told,) = control.told(WatchReported)
        assert "window 100 s" in told.what
        assert told.what.endswith("without elasticloadbalancing:DescribeTargetGroupAttributes")
        assert stage.clients.operations().count(ATTRIBUTES) == 1, "what is denied is not asked again"


async def test_blind_after_two_intervals_and_seeing_again(stage):
    """A task that was told nothing for two intervals says so, since when and why; then that it sees again."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(20)
        stage.clients.failures[POLL] = OUTAGE
        await asyncio.sleep(13)
        assert watch(stage, control)[0] == "watching"
        await asyncio.sleep(47)
        state, because = watch(stage, control)
        assert state == "blind"
        assert "ServiceUnavailable" in because
        assert 50 <= stage.trigger.status(control.time())["blind_for"] <= 65
        stage.clients.failures.clear()
        await asyncio.sleep(10)
        assert [each.state for each in control.told(WatchReported)] == ["watching", "blind", "watching"]
        assert stage.trigger.status(control.time())["blind_for"] is None


async def test_blind_from_the_start(stage):
    """Where no look was ever answered it is blind too."""
    stage.clients.failures[POLL] = NoCredentialsError()
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(10)
        assert watch(stage, control) == ("not yet", "the target is not registered")
        await asyncio.sleep(60)
        assert watch(stage, control)[0] == "blind"
        assert [each.state for each in control.told(WatchReported)] == ["blind"]


async def test_not_yet_while_it_is_being_discovered(stage):
    """Before anything is known the reason is what discovery said last."""
    stage.clients.failures["DescribeTasks"] = ClientError("AccessDenied")
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(5)
        state, because = watch(stage, control)
        assert state == "not yet"
        assert "ecs:DescribeTasks" in because


@pytest.mark.parametrize("kind", [TargetHealthTrigger, ServiceDeploymentTrigger])
async def test_a_task_that_cannot_be_looked_up_is_blind(stage, kind):
    """A task role without permission is reported from the first failure on, as blind after half a minute at most."""
    failed = dict.fromkeys(("DescribeTasks", "DescribeServices"), ClientError("AccessDenied"))
    stage.clients.failures.update(failed)
    async with stage.watching(stage.fake.add_task(stage.fake.add_service()), kind=kind) as control:
        await asyncio.sleep(5)
        (told,) = control.told(WatchReported)
        assert (told.state, told.what) == ("not yet", "")
        assert "AccessDenied" in told.because
        await asyncio.sleep(55)
        assert [each.state for each in control.told(WatchReported)] == ["not yet", "blind"]
        assert watch(stage, control)[0] == "blind"
        assert stage.trigger.status(control.time())["blind_for"] > 20
        stage.clients.failures.clear()
        await asyncio.sleep(200)
        assert [each.state for each in control.told(WatchReported)] == ["not yet", "blind", "watching"]
        assert stage.trigger.status(control.time())["last_error"] is None


@pytest.mark.parametrize("given", [{"target_port": 9999}, {"target_id": "10.9.9.9", "target_port": 8000}])
async def test_a_target_in_no_group_is_told_with_what_is_there(stage, given):
    """Three minutes after the start, once: what is looked for, what is there instead, and the settings to see to."""
    task = stage.fake.add_task(stage.fake.add_service())
    for number in range(20):
        only_group(task).register(f"10.1.0.{number}")
    async with stage.watching(task, **given) as control:
        await asyncio.sleep(170)
        assert control.told(TriggerImpaired) == []
        await asyncio.sleep(900)
        (impaired,) = control.told(TriggerImpaired)
        assert "3 min after the start the target is not registered: web does not list" in impaired.problem
        assert str(given["target_port"]) in impaired.problem
        assert "10.0.0.5 (8000), 10.1.0.0 (8000)" in impaired.problem
        assert "and 16 more" in impaired.problem
        assert "DRAIN_TARGET_PORT" in impaired.remedy
        state, because = watch(stage, control)
        assert state == "not yet"
        assert because == stage.trigger.status(control.time())["last_error"], "so that the command shows it"
        assert "the target is not registered: web does not list" in because


async def test_a_target_that_comes_late_is_told_too(stage):
    """After the warning one line says that it is there, and its deregistration is seen."""
    task = stage.fake.add_task(stage.fake.add_service(), register=False)
    async with stage.watching(task) as control:
        await asyncio.sleep(400)
        (impaired,) = control.told(TriggerImpaired)
        assert "but nothing" in impaired.problem
        stage.fake.register(task)
        await asyncio.sleep(10)
        assert len(control.told(TriggerRestored)) == 1
        assert watch(stage, control) == ("watching", None)
        assert stage.trigger.status(control.time())["last_error"] is None
        stage.fake.deregister(task)
        await asyncio.sleep(10)
        assert len(control.causes) == 1


async def test_one_half_of_a_pair_is_enough(stage):
    """Of a blue/green pair the task is in one group, which is as it should be."""
    blue, green = stage.fake.add_target_group("blue"), stage.fake.add_target_group("green")
    pair = [FakeRegistration(blue, "app", 8000, alternate=green)]
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(registrations=pair))) as control:
        await asyncio.sleep(600)
        assert control.told(TriggerImpaired) == []
        assert watch(stage, control)[0] == "watching"


async def test_an_address_that_drains_for_a_former_task(stage):
    """With DescribeTargetHealth alone an inherited address is nobody's drain; if it stays so, the warning says that."""
    service = stage.fake.add_service(delay=600)
    stage.fake.deregister(stage.fake.add_task(service))
    task = stage.fake.add_task(service, register=False)
    given = {"target_group_arn": only_group(task).arn, "target_id": "10.0.0.5", "target_port": 8000}
    stage.clients.failures["DescribeTasks"] = ClientError("AccessDenied")
    async with stage.watching(task, deregistration_delay=600, **given) as control:
        await asyncio.sleep(300)
        assert control.causes == []
        assert "draining for an earlier task" in control.told(TriggerImpaired)[0].problem
        stage.fake.register(task)
        await asyncio.sleep(20)
        stage.fake.deregister(task)
        await asyncio.sleep(10)
        assert len(control.causes) == 1


async def test_a_service_without_a_group_is_an_alarm(stage):
    """It stands down, and says that it should not have to."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(registrations=[]))) as control:
        await asyncio.sleep(5)
        (told,) = control.told(TriggerStoodDown)
        assert told.is_alarm
        assert "DRAIN_TARGET_GROUP_ARN" in control.told(TriggerImpaired)[0].remedy


async def test_discovery_has_an_overall_limit(stage):
    """Calls that each come in time, and slowly, do not add up without end: it is told, and tried again."""
    stage.clients.taking = 9.0
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(40)
        (impaired,) = control.told(TriggerImpaired)
        assert "could not be identified within 30 s" in impaired.problem
        stage.clients.taking = 0.1
        await asyncio.sleep(30)
        assert watch(stage, control)[0] == "watching"


@pytest.mark.parametrize(
    ("kind", "operation", "what"),
    [
        (EcsTaskTrigger, "DescribeTasks", "whether ECS wants this task to end"),
        (ServiceDeploymentTrigger, "ListServiceDeployments", "the deployments of the service"),
    ],
)
async def test_the_other_sources_say_so_too(stage, kind, operation, what):
    """They watch, go blind and see again in the same words."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service()), kind=kind) as control:
        assert watch(stage, control)[0] == "not yet"
        await asyncio.sleep(60)
        stage.clients.failures[operation] = OUTAGE
        await asyncio.sleep(90)
        assert watch(stage, control)[0] == "blind"
        assert stage.trigger.status(control.time())["blind_for"] > 40
        stage.clients.failures.clear()
        await asyncio.sleep(30)
        assert [each.state for each in control.told(WatchReported)] == ["watching", "blind", "watching"]
        assert all(each.what.startswith(what) for each in control.told(WatchReported))


# The delay


@pytest.mark.parametrize(("before", "after"), [(300, 30), (30, 300)])
async def test_the_delay_is_read_again_when_the_drain_begins(stage, before, after):
    """A delay that was changed since the start is used from the first look that shows `draining`, and told."""
    task = stage.fake.add_task(stage.fake.add_service(delay=before))
    async with stage.watching(task) as control:
        await asyncio.sleep(60)
        only_group(task).attributes["deregistration_delay.timeout_seconds"] = str(after)
        stage.fake.deregister(task)
        await asyncio.sleep(8)
        (cause,) = control.causes
        assert cause.deadline == pytest.approx(cause.at - cause.lag + after - min(15, after / 2), abs=0.1)
        assert f"delay {after} s" in control.told(WatchReported)[-1].what
        assert stage.trigger.status(control.time())["target_groups"][0]["delay"] == after


async def test_the_delay_is_read_again_every_few_minutes(stage):
    """A change is told, and so is the window that it allows, long before a drain."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task) as control:
        await asyncio.sleep(60)
        only_group(task).attributes["deregistration_delay.timeout_seconds"] = "100"
        await asyncio.sleep(300)
        assert [each.what.split(", ")[1] for each in control.told(WatchReported)] == ["delay 300 s", "delay 100 s"]
        assert control.advice == [280, 80]


async def test_a_delay_that_cannot_be_read_again_stands(stage):
    """A failure or an answer without it changes nothing; a drain waits for it no more than seconds."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task) as control:
        await asyncio.sleep(20)
        stage.clients.failures[ATTRIBUTES] = OUTAGE
        await asyncio.sleep(400)
        stage.clients.failures.clear()
        stage.clients.answers[ATTRIBUTES] = {"Attributes": []}
        await asyncio.sleep(400)
        stage.clients.lost[ATTRIBUTES] = 1e6
        stage.fake.deregister(task)
        await asyncio.sleep(9)
        (cause,) = control.causes
        assert cause.deadline == pytest.approx(cause.at - cause.lag + 285)
        assert control.told(TriggerImpaired) == []


async def test_a_delay_that_is_read_late_moves_the_deadline(stage):
    """Where the delay could not be read at first, the claim follows as soon as it is."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task) as control:
        await asyncio.sleep(20)
        only_group(task).attributes["deregistration_delay.timeout_seconds"] = "120"
        stage.clients.failures[ATTRIBUTES] = OUTAGE
        stage.fake.deregister(task)
        await asyncio.sleep(10)
        stage.clients.failures.clear()
        await asyncio.sleep(40)
        first, second = control.causes
        assert first.at == second.at
        assert second.deadline == pytest.approx(first.deadline - 180)


# Odd answers


@pytest.mark.parametrize("first", [False, True])
async def test_one_answer_that_is_out_of_line_puts_off_nothing(stage, first):
    """Five thousand targets in one answer, the first or a later one: the next look is not late by minutes."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    own = {"Target": {"Id": "10.0.0.5", "Port": 8000}, "TargetHealth": {"State": "healthy"}}
    foreign = [{"Target": {"Id": f"10.7.0.{n}", "Port": 1}, "TargetHealth": {"State": "healthy"}} for n in range(5000)]
    huge = {"TargetHealthDescriptions": [own, *foreign]}
    if first:
        stage.clients.answers[POLL] = huge
    async with stage.watching(task) as control:
        await asyncio.sleep(1 if first else 60)
        stage.clients.answers[POLL] = huge
        await asyncio.sleep(0 if first else 5)
        del stage.clients.answers[POLL]
        stage.fake.deregister(task)
        await asyncio.sleep(80 if first else 6)
        assert len(control.causes) == 1


async def test_a_fleet_that_is_large_is_believed(stage):
    """Three answers of the same size are no mistake."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task) as control:
        await asyncio.sleep(60)
        for number in range(199):
            only_group(task).register(f"10.1.0.{number}")
        await asyncio.sleep(60)
        assert stage.trigger.status(control.time())["target_groups"][0]["interval"] == 100


# Outages


@pytest.fixture
def wall(stage, monkeypatch):
    """Let the wall clock go with the virtual one."""
    stage.fake = FakeAWS(clock=stage.fake.clock, wall_clock=stage.fake.clock)
    stage.clients.fake = stage.fake
    monkeypatch.setattr(time, "time", stage.fake.clock)
    return stage


async def outage(stage, task, control, *, lasts=400, deregistered_before_its_end=60, others=()):
    """Let polls fail, and deregister the task meanwhile; return when that was."""
    await asyncio.sleep(60)
    stage.clients.failures[POLL] = OUTAGE
    await asyncio.sleep(lasts - deregistered_before_its_end)
    began = control.time()
    stage.fake.deregister(task)
    for each in others:
        stage.fake.deregister(each)
    await asyncio.sleep(deregistered_before_its_end)
    del stage.clients.failures[POLL]
    await asyncio.sleep(7)
    return began


async def test_after_an_outage_the_events_tell_when_it_began(wall):
    """Polls failed for 400 s: the drain still has what is left of the delay, and not a second."""
    wall.trigger = None
    task = wall.fake.add_task(wall.fake.add_service(delay=300))
    async with wall.watching(task) as control:
        wall.trigger._session.wall_clock = wall.fake.clock
        began = await outage(wall, task, control)
        (cause,) = control.causes
        assert cause.deadline == pytest.approx(began + 285, abs=3)
        assert "by the service's events it began" in cause.reason


@pytest.mark.parametrize("failure", [{"DescribeServices": ClientError("AccessDenied")}, {"DescribeServices": OUTAGE}])
async def test_after_an_outage_without_events_a_quarter_is_left(wall, failure):
    """While the target shows `draining` the delay is not over: no burst, a quarter of the delay from that look."""
    task = wall.fake.add_task(wall.fake.add_service(delay=300))
    async with wall.watching(task) as control:
        wall.trigger._session.wall_clock = wall.fake.clock
        await asyncio.sleep(30)
        wall.clients.failures |= failure
        await outage(wall, task, control)
        (cause,) = control.causes
        assert cause.deadline == pytest.approx(cause.at + 75)


async def test_of_several_events_the_first_counts_and_a_quarter_is_left(wall):
    """The events name no target, so the first rules; but not down to a burst."""
    service = wall.fake.add_service(delay=300)
    task = wall.fake.add_task(service)
    other = wall.fake.add_task(service, addresses=("10.0.0.6",))
    async with wall.watching(task) as control:
        wall.trigger._session.wall_clock = wall.fake.clock
        await outage(wall, task, control, deregistered_before_its_end=280, others=[other])
        (cause,) = control.causes
        assert cause.deadline == pytest.approx(cause.at + 75)


async def test_a_window_is_kept_after_an_outage(wall):
    """What the user has set as the most is the most."""
    task = wall.fake.add_task(wall.fake.add_service(delay=300))
    async with wall.watching(task, window=20) as control:
        wall.trigger._session.wall_clock = wall.fake.clock
        await outage(wall, task, control)
        (cause,) = control.causes
        assert cause.deadline == cause.at + 20


async def test_trouble_that_turns_into_another_is_told_too(stage):
    """Throttled first, then denied: each is told once, with its own remedy, and one line says that both are over."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(20)
        for _ in range(2):
            for code in ("Throttling", "AccessDenied"):
                stage.clients.failures[POLL] = ClientError(code)
                await asyncio.sleep(200)
        stage.clients.failures.clear()
        await asyncio.sleep(80)
        assert [each.problem.split()[0] for each in control.told(TriggerImpaired)] == ["AWS", "this"]
        assert len(control.told(TriggerRestored)) == 1
