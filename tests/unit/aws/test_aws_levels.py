"""Sources hold levels: what each look does while a drain is wanted, while it is not, and where it does not tell."""

import asyncio

import pytest
from aws_fakes import ClientError, RecordingControl

from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger
from starlette_drain.aws.sources.task_state import EcsTaskTrigger

pytestmark = pytest.mark.anyio

CLAIM, WITHDRAW = "claim", "withdraw"


@pytest.fixture
def done(monkeypatch):
    """Return what was done to the control, in order."""
    done = []
    claim, withdraw = RecordingControl.claim, RecordingControl.withdraw
    monkeypatch.setattr(RecordingControl, "claim", lambda self, cause: done.append(CLAIM) or claim(self, cause))
    monkeypatch.setattr(RecordingControl, "withdraw", lambda self, name: done.append(WITHDRAW) or withdraw(self, name))
    return done


async def looks(done, number, interval=5):
    """Let so many looks pass; return what they did."""
    done.clear()
    await asyncio.sleep(number * interval)
    return list(done)


async def test_target_health(stage, done):
    """Claimed at every look, until two have shown the target in service; failed looks do nothing."""
    task = stage.fake.add_task(stage.fake.add_service(delay=3600))
    async with stage.watching(task):
        await asyncio.sleep(20)
        assert await looks(done, 3) == [WITHDRAW] * 3
        stage.fake.deregister(task)
        await asyncio.sleep(5)
        assert await looks(done, 3) == [CLAIM] * 3
        own = {"Target": {"Id": "10.0.0.5", "Port": 8000}, "TargetHealth": {"State": "something new"}}
        stage.clients.answers["DescribeTargetHealth"] = {"TargetHealthDescriptions": [own]}
        assert await looks(done, 3) == []
        stage.clients.answers.clear()
        stage.clients.failures["DescribeTargetHealth"] = ClientError("InternalError")
        assert await looks(done, 3) == []
        stage.clients.failures.clear()
        stage.fake.register(task)
        assert await looks(done, 3) == [CLAIM, WITHDRAW, WITHDRAW]


async def test_task_state(stage, done):
    """Claimed at every look; ECS never takes it back, so one answer that says so is an old one, and two are not."""
    task = stage.fake.add_task(stage.fake.add_service(delay=3600))
    async with stage.watching(task, kind=EcsTaskTrigger) as control:
        await asyncio.sleep(20)
        assert await looks(done, 3) == [WITHDRAW] * 3
        task.last_status, task.desired_status = "DEACTIVATING", "STOPPED"
        assert await looks(done, 3) == [CLAIM] * 3
        task.last_status, task.desired_status = "RUNNING", "RUNNING"
        assert await looks(done, 1) == [CLAIM]
        task.last_status, task.desired_status = "SOMETHING NEW", "STOPPED"
        assert await looks(done, 3) == []
        assert len(control.causes) == 1
        stage.clients.failures["DescribeTasks"] = ClientError("InternalError")
        assert await looks(done, 3) == []
        stage.clients.failures.clear()
        task.last_status, task.desired_status = "RUNNING", "RUNNING"
        assert (await looks(done, 4))[-2:] == [WITHDRAW] * 2


async def test_a_task_that_stops_does_not_deactivate_again(stage):
    """An old answer does not give back the time that has run out."""
    task = stage.fake.add_task(stage.fake.add_service(delay=3600))
    async with stage.watching(task, kind=EcsTaskTrigger) as control:
        await asyncio.sleep(20)
        for status in ("DEACTIVATING", "STOPPING", "DEACTIVATING"):
            task.last_status, task.desired_status = status, "STOPPED"
            await asyncio.sleep(10)
        assert len(control.causes) == 2
        assert control.causes[-1].deadline - control.causes[-1].at == control.settings.sigterm_window


async def test_service_deployment(stage, done):
    """Claimed at every look of the bake time, and retracted at every look after a rollback."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task, kind=ServiceDeploymentTrigger):
        await asyncio.sleep(60)
        assert set(await looks(done, 3, 15)) == {WITHDRAW}
        going = stage.fake.deploy(stage.fake.services[0], bake=120)
        going.stage = "BAKE_TIME"
        await asyncio.sleep(15)
        assert await looks(done, 3) == [CLAIM] * 3
        going.status = "SOMETHING NEW"
        assert await looks(done, 3) == []
        going.status = "ROLLBACK_IN_PROGRESS"
        assert set(await looks(done, 3, 15)) == {WITHDRAW}
