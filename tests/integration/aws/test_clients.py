"""
Each client that can be installed does the same: aioboto3, aiobotocore and boto3.

`make clients` runs this, and test_aws_model.py, in environments that have the newest of one of them and nothing else.
"""

import asyncio
import sys
import threading
import time
from importlib.metadata import requires

import pytest

from starlette_drain import Settings
from starlette_drain.aws.api import blocking
from starlette_drain.aws.api.blocking import BlockingClient
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.client import Aioboto3Clients
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind
from starlette_drain.aws.session import AWSSession
from starlette_drain.testing import FakeGateway

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LIBRARIES = ["aioboto3", "aiobotocore", "boto3"]


def hide(monkeypatch, *names):
    """Let imports of the libraries fail, as if they were not installed."""
    for name in names:
        for module in (name, f"{name}.config", f"{name}.session"):
            monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    """Leave one of the libraries; those that it would be passed over for are hidden."""
    pytest.importorskip(request.param)
    hide(monkeypatch, *LIBRARIES[: LIBRARIES.index(request.param)])
    return request.param


async def test_every_client_is_used(fake, endpoint, library):
    """Each library finds the task's own target, and gets the answers of both services."""
    group = fake.add_target_group("web", delay=60)
    task = fake.add_task(fake.add_service(registrations=[], gateways=[FakeGateway(group)]))
    session = AWSSession(environ=endpoint.environment(task))
    async with session.open(Settings()) as aws:
        identity = await aws.identity.get()
        answer = await aws.calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn=group.arn)

    (target,) = identity.targets
    assert (target.group, target.delay, target.ids) == ("web", 60, {"10.0.0.5"})
    assert answer["TargetHealthDescriptions"][0]["TargetHealth"]["State"] == "healthy"


@pytest.mark.parametrize(
    ("how", "kind"),
    [("throttle", TroubleKind.THROTTLED), ("deny", TroubleKind.DENIED), ("error", TroubleKind.OTHER)],
)
async def test_errors_are_told_alike(fake, endpoint, library, how, kind):
    """Whatever the client raises, the trouble has the same name; there are no retries underneath."""
    fake.add_service()
    fake.fail(how)
    async with AwsCalls(Aioboto3Clients(), "eu-central-1") as calls:
        for service, operation in [("elbv2", "DescribeTargetGroups"), ("ecs", "DescribeServices")]:
            parameters = {"services": ["web"]} if service == "ecs" else {}
            with pytest.raises(AwsCallFailed) as failed:
                await calls.call(service, operation, **parameters)
            assert kind is failed.value.trouble.kind
            assert fake.calls[operation] == 1


@pytest.mark.time_limits
async def test_silence_and_nobody_there(fake, endpoint, library, monkeypatch):
    """A server that says nothing, and one that is not there, are given up in seconds."""
    fake.fail("hang")
    began = time.monotonic()
    async with AwsCalls(Aioboto3Clients(), "eu-central-1") as calls:
        with pytest.raises(AwsCallFailed):
            await calls.call("elbv2", "DescribeTargetGroups")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with AwsCalls(Aioboto3Clients(), "eu-central-1") as calls:
        with pytest.raises(AwsCallFailed) as failed:
            await calls.call("elbv2", "DescribeTargetGroups")
    assert time.monotonic() - began < 12
    assert failed.value.trouble.kind is TroubleKind.UNREACHABLE


async def test_none_is_installed(monkeypatch):
    """Without any of them the trouble names the extra."""
    hide(monkeypatch, *LIBRARIES)
    async with AwsCalls(Aioboto3Clients(), "eu-central-1") as calls:
        with pytest.raises(AwsCallFailed) as failed:
            await calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn="arn")

    (needed,) = (each.partition(";")[0] for each in requires("starlette-drain") if each.startswith("aioboto3"))
    assert failed.value.remedy == f"pip install '{needed}' (the extra [aws])"


class Dripping:
    """A blocking client that answers when it is let."""

    def __init__(self):
        self.let = threading.Event()
        self.calls = 0
        self.threads = []

    def ask(self, **parameters):
        """Answer with what was asked."""
        self.calls += 1
        self.threads.append(threading.current_thread())
        self.let.wait(20)
        if parameters.get("fails"):
            raise KeyError(parameters["fails"])
        return parameters


async def test_blocking_calls_are_given_up(monkeypatch):
    """A call that does not end is given up by its caller, holds up no exit, and there are never more than so many."""
    monkeypatch.setattr(blocking, "AT_ONCE", 2)
    inner = Dripping()
    client = BlockingClient(inner)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.ask(), 0.1)
    assert inner.calls == 2
    assert all(each.daemon for each in inner.threads)
    inner.let.set()
    assert await client.ask(one=1) == {"one": 1}
    with pytest.raises(KeyError, match="asked for"):
        await client.ask(fails="asked for")
