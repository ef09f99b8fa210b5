"""The state of the own task: the verdict by its table, and the loop around it on virtual time."""

import asyncio
import contextlib

import pytest
from aws_fakes import ClientError

from starlette_drain._core.events import TriggerImpaired, TriggerPolled, TriggerRestored, TriggerStoodDown
from starlette_drain.aws.sources.task_state import EcsTaskTrigger, TaskVerdict, is_spot, judge
from starlette_drain.triggers.base import Trigger

SERVING, LEAVING, STOPPING, UNKNOWN = (
    TaskVerdict.SERVING,
    TaskVerdict.LEAVING,
    TaskVerdict.STOPPING,
    TaskVerdict.UNKNOWN,
)
LOOK = "DescribeTasks"


@contextlib.asynccontextmanager
async def watching(stage, task, **options):
    """Let an EcsTaskTrigger watch *task*."""
    async with stage.watching(task, kind=EcsTaskTrigger, **options) as control:
        yield control


def deactivate(task, status="DEACTIVATING", code="ServiceSchedulerInitiated"):
    """Let ECS want the end of *task*, and do nothing else."""
    task.last_status, task.desired_status, task.stop_code = status, "STOPPED", code


@pytest.mark.parametrize(
    ("last", "desired", "verdict"),
    [
        ("PROVISIONING", "RUNNING", SERVING),
        ("PENDING", "RUNNING", SERVING),
        ("ACTIVATING", "RUNNING", SERVING),
        ("RUNNING", "RUNNING", SERVING),
        ("PROVISIONING", "STOPPED", LEAVING),
        ("PENDING", "STOPPED", LEAVING),
        ("ACTIVATING", "STOPPED", LEAVING),
        ("RUNNING", "STOPPED", LEAVING),
        ("DEACTIVATING", "STOPPED", LEAVING),
        ("DEACTIVATING", "RUNNING", LEAVING),
        ("DEACTIVATING", None, LEAVING),
        ("STOPPING", "STOPPED", STOPPING),
        ("DEPROVISIONING", "STOPPED", STOPPING),
        ("STOPPED", "STOPPED", STOPPING),
        ("DELETED", "STOPPED", STOPPING),
        ("RUNNING", "PENDING", UNKNOWN),
        ("RUNNING", None, UNKNOWN),
        ("SOMETHING NEW", "RUNNING", UNKNOWN),
        ("SOMETHING NEW", "STOPPED", UNKNOWN),
        (None, None, UNKNOWN),
    ],
)
def test_the_verdict(last, desired, verdict):
    """Each pair of states has its verdict; what AWS may add one day is unknown."""
    record = {"lastStatus": last, "desiredStatus": desired}
    assert judge({key: value for key, value in record.items() if value}) is verdict
    assert verdict.ends is (verdict in (LEAVING, STOPPING))


@pytest.mark.parametrize(
    ("code", "spot"),
    [
        ("SpotInterruption", True),
        ("TerminationNotice", True),
        ("ServiceSchedulerInitiated", False),
        ("UserInitiated", False),
        (None, False),
    ],
)
def test_spot(code, spot):
    """Both stop codes of Fargate Spot are known, and no other is taken for one."""
    assert is_spot({"stopCode": code}) is spot


@pytest.mark.anyio
async def test_deactivating_asks_for_one_drain(stage):
    """The first answer that says DEACTIVATING asks for a drain over what is left of the delay; no later one does."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task) as control:
        assert isinstance(stage.trigger, Trigger)
        await asyncio.sleep(30)
        assert control.causes == []
        deactivate(task)
        began = control.time()
        await asyncio.sleep(200)

        (cause,) = control.causes
        assert cause.trigger == "task-state"
        assert cause.reason == "ECS wants the task to end (DEACTIVATING, ServiceSchedulerInitiated)"
        assert cause.revocable
        assert began <= cause.at <= began + 5
        assert cause.lag == pytest.approx(5)
        assert cause.deadline == pytest.approx(cause.at - 5 + 300 - 15)
        assert control.advice == [300 - 5 - 15]


@pytest.mark.anyio
async def test_one_call_per_interval(stage):
    """Its own task is asked for, and nothing else, once per interval at a phase drawn by lot."""
    task = stage.fake.add_task(stage.fake.add_service())
    async with watching(stage, task, deregistration_delay=300):
        await asyncio.sleep(60)

    assert set(stage.clients.operations()) == {LOOK}
    assert 12 <= len(stage.clients.times(LOOK)) <= 14
    assert all(given == {"cluster": task.cluster_arn, "tasks": [task.arn]} for _, _, given in stage.clients.calls)


@pytest.mark.anyio
async def test_a_delay_that_is_given_is_not_looked_up(stage):
    """With DRAIN_DEREGISTRATION_DELAY the one permission ecs:DescribeTasks will do."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task, deregistration_delay=120, window=60) as control:
        await asyncio.sleep(20)
        deactivate(task)
        await asyncio.sleep(10)

        (cause,) = control.causes
        assert cause.deadline == pytest.approx(cause.at + 60)


@pytest.mark.anyio
@pytest.mark.parametrize("refused", ["DescribeServices", "DescribeTargetGroupAttributes"])
async def test_a_delay_that_nobody_tells(stage, refused):
    """Where the delay cannot be found out, the drain takes its own window, and nobody is warned."""
    stage.clients.failures[refused] = ClientError("AccessDeniedException")
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task) as control:
        await asyncio.sleep(20)
        deactivate(task)
        await asyncio.sleep(10)

        (cause,) = control.causes
        assert cause.deadline is None
        assert control.advice == control.told(TriggerImpaired) == []


@pytest.mark.anyio
async def test_a_delay_that_is_found_later(stage):
    """A passing failure is tried again in the background, while the task is watched already."""
    stage.clients.failures["DescribeServices"] = ClientError("ThrottlingException")
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task) as control:
        await asyncio.sleep(20)
        assert control.told(TriggerPolled)
        stage.clients.failures.clear()
        await asyncio.sleep(60)
        assert control.advice == [280]


@pytest.mark.anyio
async def test_a_delay_that_is_found_while_leaving(stage):
    """A drain that was asked for without a deadline gets it as soon as the delay is known, once."""
    stage.clients.failures["DescribeTargetGroupAttributes"] = ClientError("ThrottlingException")
    task = stage.fake.add_task(stage.fake.add_service(delay=60))
    async with watching(stage, task) as control:
        await asyncio.sleep(20)
        deactivate(task)
        await asyncio.sleep(6)
        (undated,) = control.causes
        assert undated.deadline is None

        stage.clients.failures.clear()
        await asyncio.sleep(40)
        _, dated = control.causes
        assert dated.deadline == pytest.approx(max(dated.at, undated.at - undated.lag + 60 - 15))
        assert dated.at - dated.lag == pytest.approx(undated.at - undated.lag)


@pytest.mark.anyio
async def test_a_delay_found_after_the_end_dates_nothing(stage):
    """Once the task is told to stop, the window after SIGTERM holds, whatever the delay was."""
    stage.clients.failures["DescribeTargetGroupAttributes"] = ClientError("ThrottlingException")
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task) as control:
        await asyncio.sleep(20)
        deactivate(task)
        await asyncio.sleep(6)
        deactivate(task, "STOPPING")
        await asyncio.sleep(6)
        stage.clients.failures.clear()
        await asyncio.sleep(60)
        assert len(control.causes) == 2


@pytest.mark.anyio
async def test_a_large_service_asks_less_often(stage):
    """Two hundred tasks keep to a fifth of the 20 DescribeTasks a second that the account has."""
    service = stage.fake.add_service(delay=3600)
    service.desired = 200
    task = stage.fake.add_task(service)
    async with watching(stage, task) as control:
        await asyncio.sleep(400)
        assert stage.trigger.status(control.time())["interval"] == 50
        assert control.advice == [3600 - 50 - 15]
        assert control.told(TriggerImpaired) == []
        deactivate(task)
        await asyncio.sleep(51)
        (cause,) = control.causes
        assert cause.lag == pytest.approx(50)


@pytest.mark.anyio
async def test_a_service_too_large_for_its_delay_is_told(stage):
    """One warning where a deactivation would be noticed too late, with the source to add."""
    service = stage.fake.add_service(delay=60)
    service.desired = 200
    async with watching(stage, stage.fake.add_task(service)) as control:
        await asyncio.sleep(400)
        (impaired,) = control.told(TriggerImpaired)
        assert "once in 50 s" in impaired.problem
        assert "Lambda" in impaired.remedy


@pytest.mark.anyio
async def test_a_task_that_leaves_waits_for_no_turn(stage):
    """In a large service the delay is looked up when it is needed, at the latest."""
    service = stage.fake.add_service(delay=60)
    service.desired = 200
    task = stage.fake.add_task(service)
    deactivate(task)
    async with watching(stage, task) as control:
        await asyncio.sleep(7)
        assert [each.deadline is None for each in control.causes] == [True, False]


@pytest.mark.anyio
async def test_a_task_on_its_own(stage):
    """A task without a service, or without a target group, is watched as well."""
    task = stage.fake.add_task(None)
    async with watching(stage, task) as control:
        await asyncio.sleep(20)
        deactivate(task, "RUNNING", "UserInitiated")
        await asyncio.sleep(10)

        (cause,) = control.causes
        assert cause.deadline is None
        assert "UserInitiated" in cause.reason


@pytest.mark.anyio
async def test_spot_leaves_two_minutes(stage):
    """A Spot interruption ends in 120 s, however long the delay."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task) as control:
        await asyncio.sleep(20)
        deactivate(task, code="SpotInterruption")
        await asyncio.sleep(10)

        (cause,) = control.causes
        assert cause.deadline == pytest.approx(cause.at - cause.lag + 120 - 15)


@pytest.mark.anyio
async def test_stopping_brings_the_window_of_sigterm(stage):
    """When the task is told to stop, the window after SIGTERM is what is left."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task) as control:
        await asyncio.sleep(20)
        deactivate(task)
        await asyncio.sleep(20)
        deactivate(task, "STOPPING")
        await asyncio.sleep(20)

        _, cause = control.causes
        assert cause.deadline == cause.at + control.settings.sigterm_window


@pytest.mark.anyio
async def test_coming_up_while_it_is_deactivated(stage):
    """A process that starts again in the middle knows the delay at its first look, and takes one interval for lost."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    deactivate(task)
    async with watching(stage, task) as control:
        await asyncio.sleep(1)

        (cause,) = control.causes
        assert cause.deadline == cause.at - 5 + 285


@pytest.mark.anyio
@pytest.mark.parametrize("error", ["ThrottlingException", "AccessDeniedException", "ServerException"])
async def test_failed_looks_change_nothing(stage, error):
    """However a look fails: no drain, one warning, one line when it works again; the lag grows meanwhile."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with watching(stage, task, deregistration_delay=300) as control:
        await asyncio.sleep(20)
        stage.clients.failures[LOOK] = ClientError(error)
        await asyncio.sleep(120)
        (impaired,) = control.told(TriggerImpaired)
        assert "ecs:DescribeTasks" in impaired.problem
        status = stage.trigger.status(control.time())
        assert (status["verdict"], status["last_error"]) == ("serving", impaired.problem)

        deactivate(task)
        stage.clients.failures.clear()
        await asyncio.sleep(61)
        assert len(control.told(TriggerRestored)) == 1
        (cause,) = control.causes
        assert cause.lag > 115


@pytest.mark.anyio
async def test_a_task_that_ecs_forgot(stage):
    """MISSING is a failed look like any other: ECS forgets tasks that stopped, and knows no others by mistake."""
    task = stage.fake.add_task(stage.fake.add_service())
    stage.fake.add_task(task.service)
    async with watching(stage, task, deregistration_delay=300) as control:
        await asyncio.sleep(20)
        stage.fake.tasks.remove(task)
        await asyncio.sleep(30)

        assert control.causes == []
        (impaired,) = control.told(TriggerImpaired)
        assert "MISSING" in impaired.problem
        assert control.told(TriggerPolled)[-1].outcome == "incomplete"


@pytest.mark.anyio
async def test_off_ecs(stage):
    """Where this is not an ECS task the trigger says so and ends."""
    async with watching(stage, None, environ={}) as control:
        await asyncio.sleep(1)

        (event,) = control.told(TriggerStoodDown)
        assert "not an ECS task" in event.why
        assert stage.trigger.status(control.time())["state"] == "stood down"
