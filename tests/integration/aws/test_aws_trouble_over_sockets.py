"""What the real client raises when something between the task and AWS is wrong, and what is made of it."""

import asyncio
import contextlib

import pytest

from starlette_drain.aws.api import size_limit
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.client import TIME_LIMITS, Aioboto3Clients
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind

pytestmark = pytest.mark.anyio


async def ask(calls):
    """Ask once."""
    return await calls.call("elbv2", "DescribeTargetGroups")


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("variables", "kind", "remedy"),
    [
        ({"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, TroubleKind.UNREACHABLE, "resolves names"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, TroubleKind.UNREACHABLE, "AWS_ENDPOINT_URL"),
        ({"HTTP_PROXY": "http://me:secret@127.0.0.1:9"}, TroubleKind.UNREACHABLE, "HTTPS_PROXY"),
        ({"TLS": "1"}, TroubleKind.UNREACHABLE, "AWS_CA_BUNDLE"),
        ({"AWS_PROFILE": "nowhere"}, TroubleKind.NO_CREDENTIALS, "AWS_PROFILE"),
    ],
)
async def test_what_is_in_between(endpoint, clients, monkeypatch, variables, kind, remedy):  # noqa: PLR0917
    """A name, a port, a proxy, TLS or a profile that is wrong: each has its own remedy, and no password is shown."""
    if "TLS" in variables:
        variables = {"AWS_ENDPOINT_URL": endpoint.url.replace("http:", "https:")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with AwsCalls(clients, "eu-central-1") as calls:
        with pytest.raises(AwsCallFailed) as failed:
            await ask(calls)
    assert (failed.value.trouble.kind, remedy in failed.value.remedy) == (kind, True), str(failed.value)
    assert "secret" not in str(failed.value)


@pytest.mark.time_limits
async def test_a_slow_answer_is_waited_for_in_the_end(fake, endpoint, clients, monkeypatch):
    """Calls that time out are given more and more time, until an answer that is slow is an answer."""
    monkeypatch.setitem(TIME_LIMITS, "read_timeout", 0.2)
    fake.fail("slow", action="DescribeTargetGroups", takes=0.5)
    async with AwsCalls(clients, "eu-central-1") as calls:
        kinds = []
        for _ in range(3):
            with contextlib.suppress(AwsCallFailed):
                try:
                    assert "TargetGroups" in await ask(calls)
                    kinds.append("answered")
                except AwsCallFailed as failed:
                    kinds.append(failed.trouble.kind.value)
    assert kinds == ["slow", "slow", "answered"]


async def test_an_answer_that_is_too_large_is_not_read(fake, endpoint, clients, monkeypatch):
    """It is given up at the limit, the next one is read, and both through the same client."""
    fake.add_target_group("web")
    monkeypatch.setattr(size_limit, "LARGEST", 200)
    async with AwsCalls(clients, "eu-central-1") as calls:
        with pytest.raises(AwsCallFailed, match="too large"):
            await ask(calls)
        monkeypatch.setattr(size_limit, "LARGEST", 2_000_000)
        assert len((await ask(calls))["TargetGroups"]) == 1


async def test_a_synchronous_client_has_the_same_limit(fake, endpoint, monkeypatch):
    """The limit holds for boto3 too."""
    boto3 = pytest.importorskip("boto3")
    fake.add_target_group("web")
    client = boto3.client("elbv2")
    size_limit.limit_answers(client)
    try:
        assert len((await asyncio.to_thread(client.describe_target_groups))["TargetGroups"]) == 1
        monkeypatch.setattr(size_limit, "LARGEST", 200)
        with pytest.raises(size_limit.AnswerTooLarge):
            await asyncio.to_thread(client.describe_target_groups)
    finally:
        client.close()


def test_a_client_of_an_unknown_make_is_left_alone():
    """What has no session of botocore's is not touched."""
    size_limit.limit_answers(object())


async def test_patience_has_an_end():
    """The limits grow fourfold and no further."""
    clients = Aioboto3Clients()
    for _ in range(5):
        clients.be_patient()
    assert clients._stretch == 4
