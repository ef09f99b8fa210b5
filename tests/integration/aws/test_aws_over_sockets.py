"""The trigger and its clients over real sockets."""

import asyncio
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request

import pytest

from starlette_drain import Settings
from starlette_drain._core.events import TriggerImpaired, TriggerPolled, TriggerRestored
from starlette_drain.aws.api import client
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.client import Aioboto3Clients, AwsClients, GivenClients
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind
from starlette_drain.aws.sources.target_health import TargetHealthTrigger

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EXPIRED = {"kind": "error", "code": "ExpiredToken", "status": 403}


class Control:
    """A drain that only writes down what a trigger does to it, and wakes those who wait for it."""

    def __init__(self, **options):
        self.settings = Settings(**options)
        self.causes = []
        self.events = []
        self.news = asyncio.Event()

    def time(self):
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def note_fleet(self, draining, healthy, *, counted=True):
        """Note how many there are."""
        self.seen = draining, healthy, counted

    def note_window(self, window):
        """Note nothing."""

    def claim(self, cause):
        """Note a request."""
        self.causes.append(cause)
        self.news.set()

    def withdraw(self, trigger):  # noqa: ARG002
        """Take nothing back."""
        return False

    def emit(self, event):
        """Note a fact."""
        self.events.append(event)
        self.news.set()

    async def until(self, condition):
        """Wait until *condition* holds after some news."""
        async with asyncio.timeout(20):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def has(self, kind, **values):
        """Return whether a fact of a kind with these values was told."""
        return any(
            type(each) is kind and all(getattr(each, key) == value for key, value in values.items())
            for each in self.events
        )


@contextlib.asynccontextmanager
async def watching(control, **options):
    """Let a trigger with its usual clients watch."""
    trigger = TargetHealthTrigger(**options)
    task = asyncio.create_task(trigger.watch(control))
    yield trigger
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def task(fake):
    """Return a task, so that the endpoint has its environment."""
    return fake.add_task(fake.add_service(delay=60))


async def test_from_discovery_to_drain(fake, task, endpoint):
    """With nothing but the environment of a task the trigger finds its target and sees it drain."""
    control = Control(poll_interval=1)
    async with watching(control):
        await control.until(lambda: control.has(TriggerPolled, outcome="serving"))
        fake.deregister(task)
        await control.until(lambda: control.causes)

    assert control.causes[0].trigger == "target-health"
    assert 60 - 15 - 20 < control.causes[0].deadline - control.causes[0].at <= 60 - 15


async def test_throttled_then_back(fake, task, endpoint):
    """Real throttling answers slow the loop down and warn once; it recovers by itself."""
    control = Control(poll_interval=1)
    async with watching(control):
        await control.until(lambda: control.has(TriggerPolled, outcome="serving"))
        fake.fail("throttle", action="DescribeTargetHealth", times=2)
        await control.until(lambda: control.has(TriggerImpaired))
        await control.until(lambda: control.has(TriggerRestored))

    assert control.has(TriggerPolled, outcome="throttled")
    assert not control.causes


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("fault", "service", "operation", "kind"),
    [
        ({"kind": "throttle"}, "elbv2", "DescribeTargetHealth", TroubleKind.THROTTLED),
        ({"kind": "throttle", "code": "Throttling"}, "elbv2", "DescribeTargetHealth", TroubleKind.THROTTLED),
        ({"kind": "throttle"}, "ecs", "DescribeTasks", TroubleKind.THROTTLED),
        ({"kind": "deny"}, "elbv2", "DescribeTargetHealth", TroubleKind.DENIED),
        ({"kind": "deny"}, "ecs", "DescribeTasks", TroubleKind.DENIED),
        ({"kind": "error"}, "elbv2", "DescribeTargetHealth", TroubleKind.OTHER),
        ({"kind": "error", "status": 500}, "ecs", "DescribeTasks", TroubleKind.OTHER),
        (
            {"kind": "error", "code": "ExpiredToken", "status": 403},
            "elbv2",
            "DescribeTargetHealth",
            TroubleKind.NO_CREDENTIALS,
        ),
        pytest.param(
            {"kind": "hang"},
            "elbv2",
            "DescribeTargetHealth",
            TroubleKind.SLOW,
            marks=pytest.mark.time_limits,
        ),
    ],
)
async def test_errors_of_the_real_client(fake, task, clients, fault, service, operation, kind):  # noqa: PLR0917
    """Whatever the real client raises is classified, in about two seconds at the most, and never tells a secret."""
    parameters = {
        "DescribeTargetHealth": {"TargetGroupArn": next(iter(fake.groups))},
        "DescribeTasks": {"cluster": "main", "tasks": [task.arn]},
    }[operation]
    async with AwsCalls(clients, "eu-central-1") as calls:
        await calls.call(service, operation, **parameters)  # botocore reads its models before the first
        fake.fail(**fault)
        began = time.monotonic()
        with pytest.raises(AwsCallFailed) as failed:
            await calls.call(service, operation, **parameters)

    assert kind is failed.value.trouble.kind
    assert time.monotonic() - began < 6
    assert fake.calls[operation] == 2, "one attempt each time, and no retries underneath"
    assert fault["kind"] != "deny" or "assumed-role" in str(failed.value)
    assert "not-a-secret" not in str(failed.value)


async def test_nobody_listens(task, endpoint, clients, monkeypatch):
    """A closed port is "unreachable", with the remedy for a missing route."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with AwsCalls(clients, "eu-central-1") as calls:
        with pytest.raises(AwsCallFailed, match="VPC endpoint") as failed:
            await calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn="arn")

    assert TroubleKind.UNREACHABLE is failed.value.trouble.kind


async def test_no_credentials(task, endpoint, clients, monkeypatch, tmp_path):
    """Without credentials the trouble says so, and what to give."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    async with AwsCalls(clients, "eu-central-1") as calls:
        with pytest.raises(AwsCallFailed, match="taskRoleArn"):
            await calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn="arn")


async def test_no_region(task, endpoint, clients, monkeypatch, tmp_path):
    """Without a region the trouble says so; a task has one in its ARN."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    async with AwsCalls(clients, None) as calls:
        with pytest.raises(AwsCallFailed, match="AWS_DEFAULT_REGION"):
            await calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn="arn")
    control = Control(poll_interval=1)
    async with watching(control):
        await control.until(lambda: control.has(TriggerPolled, outcome="serving"))


async def test_a_session_and_open_clients_can_be_handed_in(fake, task, endpoint):
    """A session of aioboto3 is a maker of clients, and clients that are already open can be lent."""
    session = __import__("aioboto3").Session()
    assert isinstance(session, AwsClients)
    async with AwsCalls(session, "eu-central-1") as calls:
        assert (await calls.call("elbv2", "DescribeTargetGroups"))["TargetGroups"]
    async with session.client("elbv2") as elbv2:
        async with AwsCalls(GivenClients(elbv2=elbv2)) as calls:
            assert (await calls.call("elbv2", "DescribeTargetGroups"))["TargetGroups"]
            with pytest.raises(AwsCallFailed):
                await calls.call("ecs", "DescribeTasks")
        assert (await elbv2.describe_target_groups())["TargetGroups"], "lent clients are not closed"


async def test_clients_live_off_the_event_loop(task, endpoint, monkeypatch):
    """The library is imported by another thread than the loop's, once, and clients can be opened again."""
    importers = []
    import_session = client._import_session
    monkeypatch.setattr(
        client, "_import_session", lambda: importers.append(threading.current_thread()) or import_session()
    )
    clients = Aioboto3Clients()
    for _ in range(2):
        async with clients.client("elbv2") as one, clients.client("elbv2"), clients.client("ecs"):
            assert (await one.describe_target_groups())["TargetGroups"]

    assert len(importers) == 1
    assert threading.current_thread() not in importers


def get(url, *, method="GET", body=None):
    """Return the status and the answer of a request."""
    request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_endpoints_of_a_task(fake, task, endpoint):
    """Metadata and scale-in protection answer as the agent does."""
    environment = endpoint.environment(task)
    metadata, agent = environment["ECS_CONTAINER_METADATA_URI_V4"], environment["ECS_AGENT_URI"]
    fake.deactivate(task)

    assert get(metadata)[1]["Networks"] == [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.0.5"]}]
    assert get(f"{metadata}/task")[1]["KnownStatus"] == "RUNNING"
    assert get(f"{metadata}/nothing")[0] == 404

    protection = f"{agent}/task-protection/v1/state"
    assert get(protection)[1]["protection"] == {"ProtectionEnabled": False, "TaskArn": task.arn}
    status, answer = get(protection, method="PUT", body={"ProtectionEnabled": True, "ExpiresInMinutes": 5})
    assert (status, answer["protection"]["ProtectionEnabled"]) == (200, True)
    assert answer["protection"]["ExpirationDate"].endswith("Z")
    assert get(protection, method="PUT", body={"ProtectionEnabled": True, "ExpiresInMinutes": 2881})[0] == 400
    assert not get(protection, method="PUT", body={"ProtectionEnabled": False})[1]["protection"]["ProtectionEnabled"]
    fake.fail("throttle", action="task-protection", times=1)
    assert get(protection)[0] == 400


async def test_the_budget_of_the_account(fake, endpoint, clients):
    """Each kind of call has a bucket, which all services share: ELBv2 gives 40 in a row, ECS 100 about tasks."""
    limited = type(fake)(clock=lambda: 0.0, budget=True)
    fake._throttle = limited._throttle
    services = [fake.add_service(f"service-{number}") for number in range(2)]
    tasks = [fake.add_task(each) for each in services]
    async with AwsCalls(clients, "eu-central-1") as calls:
        for service, operation, given, allowed in (
            ("elbv2", "DescribeTargetHealth", [{"TargetGroupArn": arn} for arn in fake.groups], 40),
            ("ecs", "DescribeTasks", [{"cluster": "main", "tasks": [each.arn]} for each in tasks], 100),
            ("ecs", "DescribeServices", [{"cluster": "main", "services": [each.arn]} for each in services], 100),
        ):
            for number in range(allowed):
                await calls.call(service, operation, **given[number % len(given)])
            for parameters in given:
                with pytest.raises(AwsCallFailed) as failed:
                    await calls.call(service, operation, **parameters)
                assert TroubleKind.THROTTLED is failed.value.trouble.kind
