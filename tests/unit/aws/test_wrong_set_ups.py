"""Wrong set-ups of many kinds: the log of a default installation names each within minutes of the start."""

import asyncio
import socket
import ssl
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf
from plain_uvicorn import plain_uvicorn

from starlette_drain import Drain, DrainMiddleware
from starlette_drain._asgi import process
from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.testing import FakeRegistration

pytestmark = pytest.mark.anyio

MINUTES = 5
POLL, ATTRIBUTES, TASKS = "DescribeTargetHealth", "DescribeTargetGroupAttributes", "DescribeTasks"
ROLE = "User: arn:aws:sts::123456789012:assumed-role/streams-task/0123456789abcdef is not authorized to perform: x"


@pytest.fixture(autouse=True)
def first_process(monkeypatch):
    """Let this be a container's first process: what stands above the tests says nothing of a set-up."""
    monkeypatch.setattr(process, "look_at_self", lambda: process.Process(1, is_whole=True))


def denied(why=""):
    """Return a denial with a reason."""
    return ClientError("AccessDenied", f"{ROLE} {why}")


def raised(name, *parents, error=None, message=""):
    """Return an exception as botocore's, told by its name."""
    made = type(name, parents or (Exception,), {})(message)
    made.kwargs = {"error": error}
    return made


UNTRUSTED = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")


class SetUp:
    """A task of a service, and what is wrong with it."""

    def __init__(self, stage):
        self.stage = stage
        self.options = {}
        self.service = stage.fake.add_service()
        self.task = stage.fake.add_task(self.service)
        self.metadata = MetadataOf(self.task)

    @property
    def group(self):
        """The target group."""
        return self.service.registrations[0].group

    def by_hand(self, **options):
        """Give options."""
        self.options |= options

    def fail(self, error, operation=POLL):
        """Let a call fail."""
        self.stage.clients.failures[operation] = error

    def replace(self, service):
        """Run the task in another service."""
        self.service = service
        self.task = self.stage.fake.add_task(service)
        self.metadata = MetadataOf(self.task)


def crowd(it, number):
    """List so many targets beside the task's."""
    for each in range(number):
        it.group.register(f"10.1.{each // 250}.{each % 250}")


WRONG = {
    "port": (lambda it: it.by_hand(target_port=9999), ["9999", "DRAIN_TARGET_PORT", "10.0.0.5 (8000)"]),
    "id": (lambda it: it.by_hand(target_id="10.9.9.9", target_port=8000), ["10.9.9.9", "DRAIN_TARGET_ID"]),
    "group of another service": (
        lambda it: it.by_hand(target_group_arn=it.stage.fake.add_target_group("other").arn),
        ["other does not list 10.0.0.5", "DRAIN_TARGET_GROUP_ARN"],
    ),
    "group that is deleted": (lambda it: it.stage.fake.remove_target_group(it.group), ["TargetGroupNotFound"]),
    "no group": (
        lambda it: it.replace(it.stage.fake.add_service("bare", registrations=[])),
        ["bare registers its tasks with no target group", "DRAIN_TARGET_GROUP_ARN"],
    ),
    "targets of another kind": (
        lambda it: it.replace(it.stage.fake.add_service("fn", target_type="lambda")),
        ["targets of type lambda"],
    ),
    "no permission to poll": (lambda it: it.fail(denied()), ["streams-task", POLL, "task role"]),
    "no permission to know itself": (lambda it: it.fail(denied(), TASKS), [TASKS, "DRAIN_TARGET_GROUP_ARN"]),
    "no permission to know the delay": (lambda it: it.fail(denied(), ATTRIBUTES), [ATTRIBUTES, "300 s is assumed"]),
    "service control policy": (
        lambda it: it.fail(denied("with an explicit deny in a service control policy")),
        ["explicit deny in a service control policy", "organization"],
    ),
    "boundary": (lambda it: it.fail(denied("because no permissions boundary allows")), ["boundary of the role"]),
    "endpoint policy": (
        lambda it: it.fail(denied("because no VPC endpoint policy allows")),
        ["policy of the VPC endp"],
    ),
    "role of the instance": (
        lambda it: it.fail(ClientError("AccessDenied", ROLE.replace("0123456789abcdef", "i-0abc"))),
        ["role of the instance", "taskRoleArn"],
    ),
    "no role": (lambda it: it.fail(raised("NoCredentialsError"), "*"), ["no credentials", "taskRoleArn"]),
    "expired keys": (lambda it: it.fail(ClientError("ExpiredToken", "It is expired"), "*"), ["AWS_SESSION_TOKEN"]),
    "clock": (
        lambda it: it.fail(ClientError("InvalidSignatureException", "Signature expired: a is earlier than b"), "*"),
        ["Signature expired", "clock"],
    ),
    "profile": (lambda it: it.fail(raised("ProfileNotFound", message="(prod) not found"), "*"), ["AWS_PROFILE"]),
    "no region": (lambda it: it.fail(raised("NoRegionError"), "*"), ["AWS_DEFAULT_REGION"]),
    "not installed": (lambda it: it.fail(ImportError("aioboto3"), "*"), ["pip install"]),
    "proxy": (lambda it: it.fail(raised("ProxyConnectionError", ConnectionError), "*"), ["HTTPS_PROXY"]),
    "TLS that is opened": (
        lambda it: it.fail(raised("SSLError", ConnectionError, error=UNTRUSTED), "*"),
        ["AWS_CA_BUNDLE"],
    ),
    "names that are not resolved": (
        lambda it: it.fail(
            raised("EndpointConnectionError", error=socket.gaierror(-2, "Name or service not known")), "*"
        ),
        ["not resolved", "enableDnsSupport"],
    ),
    "no route": (lambda it: it.fail(raised("ConnectTimeoutError", ConnectionError), "*"), ["NAT gateway"]),
    "IPv6 only": (
        lambda it: it.fail(raised("EndpointConnectionError", error=OSError(101, "Network is unreachable")), "*"),
        ["AWS_USE_DUALSTACK_ENDPOINT"],
    ),
    "slow": (lambda it: it.fail(raised("ReadTimeoutError", TimeoutError)), ["not answered in time"]),
    "throttled": (lambda it: it.fail(ClientError("Throttling", "Rate exceeded")), ["Rate exceeded", "POLL_INTERVAL"]),
    "metadata of another kind": (
        lambda it: setattr(it.metadata, "shown", {"hello": "world"}),
        ["ECS_CONTAINER_METADATA_URI_V4"],
    ),
    "no metadata": (lambda it: setattr(it.metadata, "error", ConnectionRefusedError()), ["metadata endpoint"]),
    "window that does not fit": (lambda it: it.by_hand(window=600), ["window of 600.0 s does not fit"]),
    "no delay": (
        lambda it: it.group.attributes.update({"deregistration_delay.timeout_seconds": "0"}),
        ["delay of 0 s leaves no time", "deregistration_delay.timeout_seconds"],
    ),
    "fleet that is too large": (lambda it: crowd(it, 400), ["with 401 targets", "Lambda"]),
    "address of a former task": (
        lambda it: (
            it.group.deregister("10.0.0.5")
            or it.group.attributes.update({"deregistration_delay.timeout_seconds": "900"})
        ),
        ["draining for an earlier task"],
    ),
}


async def warnings_of(set_up, minutes=MINUTES):
    """Run it under a plain uvicorn for some minutes; return the first line, and the lines that warn."""
    trigger = TargetHealthTrigger(clients=set_up.stage.clients, environ=ON_ECS, rng=Random(7), fetch=set_up.metadata)
    with plain_uvicorn() as written:
        drain = Drain(triggers=[trigger], **set_up.options)
        DrainMiddleware(lambda *_: None, drain=drain)
        async with drain.run():
            await asyncio.sleep(minutes * 60)
    lines = written.getvalue().splitlines()
    return lines[0], [each for each in lines if each.startswith("WARNING")]


@pytest.mark.parametrize(("spoil", "words"), WRONG.values(), ids=WRONG)
async def test_each_is_named_within_minutes(stage, monkeypatch, spoil, words):
    """One warning has all of the words that lead to the mistake; no other kind of warning hides it."""
    for name, value in ON_ECS.items():
        monkeypatch.setenv(name, value)
    set_up = SetUp(stage)
    spoil(set_up)
    _, warned = await warnings_of(set_up)
    assert any(all(word in each for word in words) for each in warned), warned
    assert len(warned) <= 3, warned


async def test_a_right_set_up_is_one_line(stage, monkeypatch):
    """No warning, and one line that says what is watched."""
    for name, value in ON_ECS.items():
        monkeypatch.setenv(name, value)
    set_up = SetUp(stage)
    first, warned = await warnings_of(set_up, minutes=60)
    assert warned == []
    assert first == (
        "INFO:     starlette_drain watches target-health (10.0.0.5 (8000) in web, delay 300 s, window 280 s, every "
        "5 s, less often in a large fleet)"
    )


async def test_two_groups_and_a_pair_are_named(stage, monkeypatch):
    """Each group stands in the line, with its own port."""
    for name, value in ON_ECS.items():
        monkeypatch.setenv(name, value)
    set_up = SetUp(stage)
    blue, green = stage.fake.add_target_group("blue"), stage.fake.add_target_group("green", delay=60)
    pair = [FakeRegistration(blue, "app", 8000, alternate=green)]
    set_up.replace(stage.fake.add_service("pair", registrations=pair))
    first, warned = await warnings_of(set_up)
    assert "10.0.0.5 (8000) in blue, 10.0.0.5 (8000) in green, delay 60 and 300 s, window 40 s" in first
    assert warned == []
