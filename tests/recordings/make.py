"""
Makes recordings of a drain against FakeAWS and against moto, which is not ours: ``python tests/recordings/make.py``.

Each takes half a minute. What users send us is put beside them; tests/unit/test_recordings.py plays all of them.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "e2e")]

from server_process import ServerProcess  # noqa: E402
from test_foreign_endpoint import Balancer  # noqa: E402
from websocket_clients import listeners  # noqa: E402

from starlette_drain.testing import FakeAWS  # noqa: E402
from starlette_drain.tools.cli import main  # noqa: E402

SESSIONS = 20
DELAY = 20
OPTIONS = {"DRAIN_RECORD": "1", "DRAIN_MARGIN": "3", "DRAIN_POLL_INTERVAL": "1", "DRAIN_POLL_SHARE": "1"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-central-1"}

Stage = tuple[dict[str, str], Callable[[], Any]]


@contextlib.contextmanager
def fake_aws(_folder: Path) -> Iterator[Stage]:
    """Yield the environment of a task of a FakeAWS, and what takes it out: there is another, which stays."""
    fake = FakeAWS()
    service = fake.add_service("web", delay=DELAY)
    task = fake.add_task(service)
    fake.add_task(service, addresses=("10.0.0.6",))
    with fake.serve() as endpoint:
        yield endpoint.environment(task), lambda: fake.deactivate(task)


@contextlib.contextmanager
def moto(folder: Path, *, drains: bool = False) -> Iterator[Stage]:
    """
    Yield the environment of a target in moto, and what deregisters it.

    Moto forgets it at once; where it *drains*, what stands before moto shows it as draining for the delay.
    """
    command = ("-m", "moto.server", "--host", "127.0.0.1", "--port", "{port}")
    log = folder / "moto.log"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess("", log=log, command=command, probe="/moto-api/data.json"))
        given = {"region_name": "eu-central-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        url = server.url
        if drains:
            balancer = stack.enter_context(Balancer(url))
            url, balancer.delay = balancer.url, DELAY
        elbv2, ec2 = (
            boto3.client(name, endpoint_url=at, **given) for name, at in (("elbv2", url), ("ec2", server.url))
        )
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        made = elbv2.create_target_group(Name="web", Protocol="HTTP", Port=8000, VpcId=network, TargetType="ip")
        arn = made["TargetGroups"][0]["TargetGroupArn"]
        attribute = {"Key": "deregistration_delay.timeout_seconds", "Value": str(DELAY)}
        elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[attribute])
        targets = [{"Id": f"10.0.0.{number}", "Port": 8000} for number in (5, 6)]
        elbv2.register_targets(TargetGroupArn=arn, Targets=targets)
        environment = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": url,
            "DRAIN_TARGET_GROUP_ARN": arn,
            "DRAIN_TARGET_ID": "10.0.0.5",
            "DRAIN_TARGET_PORT": "8000",
        }
        yield environment, lambda: elbv2.deregister_targets(TargetGroupArn=arn, Targets=targets[:1])


async def play(server: ServerProcess, take_out: Callable[[], Any]) -> None:
    """Connect clients, take the task out, and wait until all have left."""
    async with listeners(server.websocket("/ws") for _ in range(SESSIONS)) as clients:
        await asyncio.sleep(3)
        await asyncio.to_thread(take_out)
        await asyncio.gather(*(each.close_policy() for each in clients))
        await asyncio.sleep(5)
    server.signal()
    await asyncio.to_thread(server.wait)


def server_in(environment: dict[str, str], log: Path) -> ServerProcess:
    """Return the server that is recorded."""
    return ServerProcess("one_line:app", log=log, env=environment | OPTIONS)


def make(name: str, stage: Callable[[Path], contextlib.AbstractContextManager[Stage]]) -> None:
    """Make one recording."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        with stage(Path(folder)) as (environment, take_out), server_in(environment, log) as server:
            asyncio.run(play(server, take_out))
        main(["record", str(log), "--output", str(Path(__file__).with_name(name))])


if __name__ == "__main__":
    make("fake-aws.jsonl", fake_aws)
    make("moto.jsonl", moto)
    make("moto-draining.jsonl", partial(moto, drains=True))
