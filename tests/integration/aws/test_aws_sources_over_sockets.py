"""The further sources and actions with the real client over sockets: FakeAWS, and moto where it implements the call."""

import asyncio
import contextlib
import json
import logging
import time
import urllib.request

import aioboto3
import botocore.loaders
import botocore.model
import pytest

from starlette_drain import DrainCause, Settings
from starlette_drain._core.events import DrainCancelled, DrainStarted, TriggerActed, TriggerImpaired, TriggerPolled
from starlette_drain.aws.actions.protection import TaskProtection, put_json, read_answer
from starlette_drain.aws.actions.registration import SelfRegistration
from starlette_drain.aws.api.as_sent import AS_SENT
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger
from starlette_drain.aws.sources.task_state import EcsTaskTrigger

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Control:
    """A drain that only writes down what is done to it, and wakes those who wait for it."""

    workers = 1

    def __init__(self, **options):
        self.settings = Settings(**options)
        self.causes = []
        self.events = []
        self.retracted = []

    def time(self):
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def open_sessions(self):
        """Return none."""
        return 0

    def note_window(self, window):
        """Note nothing."""

    def claim(self, cause):
        """Note what is wanted; that it is wanted still is no news."""
        if cause not in self.causes:
            self.causes.append(cause)

    def withdraw(self, trigger):
        """Note a withdrawal."""
        self.retracted.append(trigger)
        return True

    def emit(self, event):
        """Note a fact."""
        self.events.append(event)

    def told(self, kind):
        """Return the facts of one kind."""
        return [each for each in self.events if type(each) is kind]


LATE = 20.0
"""Seconds within which a change is noticed; a machine that stalls holds up both sides."""


async def until(condition, within=LATE):
    """Wait until *condition* holds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread's server
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def watching(trigger, control):
    """Let *trigger* watch."""
    task = asyncio.create_task(trigger.watch(control))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def task(fake):
    """Return a task, so that the endpoint has its environment."""
    return fake.add_task(fake.add_service(delay=60))


async def test_task_state(fake, task, endpoint):
    """With nothing but the environment of a task the trigger sees DEACTIVATING, with the delay that it looked up."""
    control = Control(poll_interval=1)
    async with watching(EcsTaskTrigger(), control):
        await until(lambda: any(each.outcome == "serving" for each in control.told(TriggerPolled)))
        fake.deactivate(task)
        await until(lambda: control.causes)
    assert control.causes[0].trigger == "task-state"
    assert 60 - 15 - LATE < control.causes[0].deadline - control.causes[0].at <= 60 - 15


async def test_service_deployment(fake, task, endpoint, monkeypatch):
    """Over the wire: the traffic goes, a drain over the bake time; a rollback, and it is taken back."""
    monkeypatch.setattr("starlette_drain.aws.sources.service_deployment.SLOW_INTERVAL", 1.0)
    control = Control(poll_interval=1)
    async with watching(ServiceDeploymentTrigger(), control):
        await until(lambda: control.told(TriggerPolled))
        going = fake.deploy(task.service, bake=120)
        await until(lambda: fake.calls["DescribeServiceRevisions"])
        going.stage = "BAKE_TIME"
        await until(lambda: control.causes)
        going.status = "ROLLBACK_IN_PROGRESS"
        await until(lambda: control.retracted)
    assert 7200 - 15 - LATE < control.causes[0].deadline - control.causes[0].at <= 7200 - 15
    assert control.told(TriggerImpaired) == []


async def test_self_registration(fake, task, endpoint):
    """Over the wire: in after the start, out when a drain begins, in again when it is cancelled, out at the end."""
    group = fake.add_target_group("own", delay=60)
    control = Control(target_group_arn=group.arn)
    registration = SelfRegistration()

    def states():
        return [group.health(each).state for each in group.listed()]

    async with watching(registration, control):
        await until(lambda: states() == ["healthy"])
        registration.notify(DrainStarted(0.0, "d", DrainCause("manual", "asked", at=0.0), 1.0, 0, ""))
        await until(lambda: states() == ["draining"] and control.causes)
        await asyncio.wait_for(registration.before_exit(), 5)
        registration.notify(DrainCancelled(0.0, "d", None))
        await until(lambda: registration.status(0.0)["state"] == "registered")
        assert states() == ["healthy"]
    assert states() == ["draining"]
    assert len(control.told(TriggerActed)) == 4


async def test_task_protection(fake, task, endpoint, tmp_path, monkeypatch):
    """Over the wire: protected when a drain begins, and given back when the application ends."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    control = Control()
    protection = TaskProtection(limit=600)
    async with watching(protection, control):
        protection.notify(DrainStarted(0.0, "d", DrainCause("manual", "asked", at=0.0), 1.0, 0, ""))
        await until(lambda: task.protected_until)
        assert 200 < task.protected_until - time.time() <= 300
    assert task.protected_until is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "throttle"}, "ThrottlingException"),
        ({"kind": "deny"}, "ecs:UpdateTaskProtection"),
        ({"kind": "error", "status": 500, "code": "ServerException"}, "ServerException"),
    ],
)
async def test_failures_of_the_agent(fake, task, endpoint, fault, words):
    """Each failure shape of the agent's endpoint is read."""
    fake.fail(**fault, action="task-protection")
    url = f"{endpoint.environment(task)['ECS_AGENT_URI']}/task-protection/v1/state"
    status, answer = await put_json(url, {"ProtectionEnabled": True, "ExpiresInMinutes": 5})
    with pytest.raises(Incomplete, match=words):
        read_answer(status, answer, wanted=True)


async def test_an_agent_that_is_not_there():
    """A closed port is an OSError, and another scheme than HTTP is refused."""
    with pytest.raises(OSError, match="refused"):
        await put_json("http://127.0.0.1:9/api/x/task-protection/v1/state", {})
    with pytest.raises(ValueError, match="file"):
        await put_json("file:///etc/passwd", {})


def check(answer, shape, path=""):
    """Assert that every member of *answer* is in the model, and every word among those it names."""
    if shape.type_name == "structure":
        for key, value in answer.items():
            assert key in shape.members, f"{path}.{key} is not in the model"
            check(value, shape.members[key], f"{path}.{key}")
    elif shape.type_name == "list":
        for each in answer:
            check(each, shape.member, f"{path}[]")
    else:
        assert not shape.metadata.get("enum") or answer in shape.metadata["enum"], f"{path} is {answer!r}"


@pytest.mark.parametrize("strategy", ["BLUE_GREEN", "LINEAR", "CANARY", "ROLLING"])
@pytest.mark.parametrize("status", ["PENDING", "IN_PROGRESS", "SUCCESSFUL", "ROLLBACK_IN_PROGRESS"])
async def test_deployments_are_what_the_model_says(fake, task, endpoint, clients, strategy, status):  # noqa: PLR0917
    """The real client parses every answer about deployments and revisions into what botocore's model names."""
    going = fake.deploy(task.service, strategy=strategy, status=status)
    model = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("ecs", "service-2"))
    calls = {
        "ListServiceDeployments": {"service": "web", "cluster": "main", "status": [status]},
        "DescribeServiceDeployments": {"serviceDeploymentArns": [going.arn, f"{going.arn}9"]},
        "DescribeServiceRevisions": {"serviceRevisionArns": [going.source.arn, going.target.arn]},
    }
    async with clients.client("ecs") as ecs:
        answers = {
            "ListServiceDeployments": await ecs.list_service_deployments(**calls["ListServiceDeployments"]),
            "DescribeServiceDeployments": await ecs.describe_service_deployments(**calls["DescribeServiceDeployments"]),
            "DescribeServiceRevisions": await ecs.describe_service_revisions(**calls["DescribeServiceRevisions"]),
        }
    for operation, answer in answers.items():
        del answer["ResponseMetadata"]
        answer.pop(AS_SENT, None)
        check(answer, model.operation_model(operation).output_shape, operation)
    assert len(answers["ListServiceDeployments"]["serviceDeployments"]) == 1
    assert answers["DescribeServiceDeployments"]["failures"][0]["reason"] == "MISSING"
    assert len(answers["DescribeServiceRevisions"]["serviceRevisions"]) == 2


# moto, which is not ours


@pytest.fixture(scope="module")
def moto_url():
    """Serve moto on a free port."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def moto(moto_url, task, endpoint, monkeypatch):
    """Turn this process to moto; FakeAWS remains for the metadata endpoint."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return aioboto3.Session()


def move_on_after(moto_url, looks):
    """Let moto show each state of a task so many times; that holds for the whole process."""
    wish = {"model_name": "ecs::task", "transition": {"progression": "manual", "times": looks}}
    url = f"{moto_url}/moto-api/state-manager/set-transition"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(wish).encode(), method="POST")).close()


@pytest.mark.xdist_group("moto")
async def test_task_state_with_moto(moto, moto_url):
    """A task goes through moto's states, one after every third look: serving, leaving, stopping."""
    await asyncio.to_thread(move_on_after, moto_url, 3)
    async with moto.client("ecs") as ecs, moto.client("ec2") as ec2:
        await ecs.create_cluster(clusterName="main")
        boxes = [{"name": "app", "image": "app:1", "memory": 64}]
        await ecs.register_task_definition(family="app", networkMode="awsvpc", containerDefinitions=boxes)
        subnet = (await ec2.describe_subnets())["Subnets"][0]["SubnetId"]
        network = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": []}}
        run = await ecs.run_task(
            cluster="main", taskDefinition="app", launchType="FARGATE", networkConfiguration=network
        )
        arn = run["tasks"][0]["taskArn"]

        async def fetch(_url):
            return {"Cluster": "main", "TaskARN": arn, "Containers": []}

        control = Control(poll_interval=1, deregistration_delay=60)
        async with watching(EcsTaskTrigger(fetch=fetch, clients=moto), control):
            await until(lambda: len(control.causes) == 2, within=30)
    await asyncio.to_thread(move_on_after, moto_url, 1)
    outcomes = [each.outcome for each in control.told(TriggerPolled)]
    assert list(dict.fromkeys(outcomes)) == ["serving", "leaving", "stopping"]
    assert [each.reason for each in control.causes] == [
        "ECS wants the task to end (DEACTIVATING, no stop code)",
        "ECS wants the task to end (STOPPING, no stop code)",
    ]


@pytest.mark.xdist_group("moto")
async def test_self_registration_with_moto(moto):
    """With moto: it lists the target after the start, and as deregistered when a drain has begun."""
    async with moto.client("ec2") as ec2, moto.client("elbv2") as elbv2:
        vpc = (await ec2.create_vpc(CidrBlock="10.0.0.0/16"))["Vpc"]["VpcId"]
        made = await elbv2.create_target_group(Name="own", Protocol="HTTP", Port=8000, VpcId=vpc, TargetType="ip")
        arn = made["TargetGroups"][0]["TargetGroupArn"]
        control = Control(target_group_arn=arn)
        registration = SelfRegistration(clients=moto)

        async def listed():
            answer = await elbv2.describe_target_health(TargetGroupArn=arn)
            return [(each["Target"]["Id"], each["Target"]["Port"]) for each in answer["TargetHealthDescriptions"]]

        async with watching(registration, control):
            await until(lambda: registration.status(0.0)["state"] == "registered")
            assert await listed() == [("10.0.0.5", 8000)]
            registration.notify(DrainStarted(0.0, "d", DrainCause("manual", "asked", at=0.0), 1.0, 0, ""))
            await until(lambda: registration.status(0.0)["state"] == "deregistered")
            registration.notify(DrainCancelled(0.0, "d", None))
            await until(lambda: registration.status(0.0)["state"] == "registered")
            assert await listed() == [("10.0.0.5", 8000)]
    assert len(control.causes) == 1
