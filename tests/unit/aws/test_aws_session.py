"""What the sources of one process share, on virtual time."""

import asyncio
import contextlib
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf, NoCredentialsError, RecordingControl, ScriptedClients

from starlette_drain import Settings
from starlette_drain.aws.actions.protection import TaskProtection
from starlette_drain.aws.actions.registration import SelfRegistration
from starlette_drain.aws.api.errors import TroubleKind
from starlette_drain.aws.session import AWSSession
from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger
from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.aws.sources.task_state import EcsTaskTrigger
from starlette_drain.testing import FakeAWS

SOURCES = TargetHealthTrigger, EcsTaskTrigger, ServiceDeploymentTrigger
ONCE = "DescribeTasks", "DescribeServices", "DescribeTargetGroups", "DescribeTargetGroupAttributes"


class Task:
    """A task with a session, and the metadata that it read."""

    def __init__(self, stage, **service):
        self.fake, self.clients = stage.fake, stage.clients
        self.service = stage.fake.add_service(**service)
        self.task = stage.fake.add_task(self.service)
        self.metadata = MetadataOf(self.task)
        self.session = AWSSession(clients=stage.clients, environ=ON_ECS, rng=Random(7), fetch=self.metadata)

    @contextlib.asynccontextmanager
    async def watching(self, *triggers, **options):
        """Let *triggers* watch with one control."""
        control = RecordingControl(**options)
        tasks = [asyncio.create_task(each.watch(control)) for each in triggers]
        try:
            yield control
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def asked(self):
        """Return how often each thing that is asked at the start was."""
        return [len(self.metadata.asked), *(len(self.clients.times(each)) for each in ONCE)]


@pytest.mark.anyio
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_each_thing_is_asked_once(stage, number):
    """Whatever sources are on, and however long a call takes: one metadata read, and one Describe call of each kind."""
    task = Task(stage)
    stage.clients.taking = 0.5
    async with task.watching(*(kind(task.session) for kind in SOURCES[:number]), poll_interval=60) as control:
        await asyncio.sleep(4)
        assert task.asked() == [1, 1, 1, 1, 1]
        assert sorted(stage.clients.opened) == ["ecs", "elbv2"]
        assert control.events
    assert sorted(stage.clients.closed) == ["ecs", "elbv2"]


@pytest.mark.anyio
async def test_actions_share_it_too(stage):
    """Registering oneself asks for nothing that target health has asked for."""
    task = Task(stage)
    health, registration = TargetHealthTrigger(task.session), SelfRegistration(task.session, registers=False)
    async with task.watching(health, registration, TaskProtection(task.session, limit=3600), poll_interval=60):
        await asyncio.sleep(4)
        assert task.asked() == [1, 1, 1, 1, 1]


@pytest.mark.anyio
async def test_it_stays_open_for_those_who_go_on(stage):
    """One source that ends closes nothing under the others."""
    task = Task(stage)
    async with task.watching(EcsTaskTrigger(task.session)) as control:
        async with task.watching(TargetHealthTrigger(task.session)):
            await asyncio.sleep(20)
        assert stage.clients.closed == []
        answers = len(control.events)
        await asyncio.sleep(20)
        assert len(control.events) > answers
    assert sorted(stage.clients.closed) == ["ecs", "elbv2"]


@pytest.mark.anyio
async def test_it_knows_nothing_from_one_time_to_the_next(stage):
    """When all have ended and one begins again, it finds out anew."""
    task = Task(stage)
    for number in (1, 2):
        async with task.watching(TargetHealthTrigger(task.session)):
            await asyncio.sleep(4)
            assert task.asked() == [number] * 5


@pytest.mark.anyio
async def test_attempts_that_fail_are_shared(stage):
    """Three sources try again as often as one would."""
    counts = []
    for kinds in (SOURCES[:1], SOURCES[:2]):
        stage.clients.calls.clear()
        task = Task(stage)
        stage.clients.failures["DescribeTargetGroups"] = ClientError("InternalError")
        async with task.watching(*(kind(task.session) for kind in kinds), poll_interval=60):
            await asyncio.sleep(300)
        counts.append(len(stage.clients.times("DescribeTargetGroups")))
    assert counts[1] <= counts[0] + 2


@pytest.mark.anyio
async def test_a_large_service_looks_at_its_deployments_less_often(stage):
    """What one source has learnt of the size of the fleet holds for the budget of all."""
    task = Task(stage)
    task.service.desired = 200
    deployments = ServiceDeploymentTrigger(task.session)
    async with task.watching(deployments, EcsTaskTrigger(task.session)) as control:
        await asyncio.sleep(400)
        assert deployments.status(control.time())["interval"] == 50


@pytest.mark.anyio
async def test_a_client_without_credentials_is_closed_once(stage):
    """Two calls that fail by the same client close it once, and not the one that was opened since."""
    stage.clients.failures["*"] = NoCredentialsError()
    stage.clients.taking = 0.5
    task = Task(stage)
    async with task.session.open(Settings()) as shared:
        calls = [shared.calls.call("ecs", "DescribeTasks") for _ in range(2)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [each.trouble.kind for each in results] == [TroubleKind.NO_CREDENTIALS] * 2
        assert (stage.clients.opened, stage.clients.closed) == (["ecs"], ["ecs"])


@pytest.mark.anyio
async def test_each_service_is_called_in_its_own_region(stage):
    """The target group that was given tells where ELBv2 is, and the task where ECS is."""
    task = Task(stage)
    group = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web/0123456789abcdef"
    async with task.watching(TargetHealthTrigger(task.session), EcsTaskTrigger(task.session), target_group_arn=group):
        await asyncio.sleep(10)
    assert dict(zip(stage.clients.opened, stage.clients.regions, strict=True)) == {
        "elbv2": "eu-west-1",
        "ecs": "eu-central-1",
    }


@pytest.mark.anyio
async def test_a_record_that_was_incomplete_is_read_again(stage):
    """What ECS did not tell at first is asked for again, not remembered."""
    service = stage.fake.add_service(target_type="instance")
    options = {"network_mode": "bridge", "instance_id": "i-0abc", "host_ports": {8000: 49153}}
    running = stage.fake.add_task(service, addresses=("172.17.0.2",), **options)
    record = {"group": f"service:{service.name}", "containerInstanceArn": "arn:aws:ecs:r:1:container-instance/main/1"}
    stage.clients.answers["DescribeTasks"] = {"tasks": [record]}
    async with stage.watching(running) as control:
        stage.metadata.shown = running.metadata()
        for each in stage.metadata.shown["Containers"]:
            each.pop("Ports", None)
        await asyncio.sleep(0.1)
        assert stage.trigger.status(control.time())["state"] == "discovering"
        del stage.clients.answers["DescribeTasks"]
        await asyncio.sleep(10)
        assert stage.trigger.status(control.time())["state"] == "watching"


def test_another_loop_is_another_time():
    """Where a loop was closed without an end, the session is opened anew on the next."""
    fake = FakeAWS()
    session = AWSSession(clients=ScriptedClients(fake), environ=ON_ECS, fetch=MetadataOf(fake.add_task(None)))
    left_open = []

    async def leave_open():
        opening = session.open(Settings())
        left_open.append(opening)
        return await opening.__aenter__()

    async def use():
        async with session.open(Settings()) as shared:
            return shared, await shared.service.get()

    first = asyncio.run(leave_open())
    second, service = asyncio.run(use())
    assert first is not second
    assert service is None
