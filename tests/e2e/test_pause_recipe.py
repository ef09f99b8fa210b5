"""`example_app/deploy/continue_when_drained.py`, as it is written: a deployment waits until its old tasks are empty."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from server_process import ROOT, TOKEN
from websocket_clients import listeners

from starlette_drain.testing import FakeAWS
from starlette_drain.testing.fake_aws.strategy import STRATEGIES

pytestmark = pytest.mark.anyio

RECIPE = ROOT / "example_app" / "deploy" / "continue_when_drained.py"
MODELS = Path(__file__).parent / "models"
"""What a current botocore knows of a PAUSE hook; that of the tests is older."""


async def run(aws, token, *arguments):
    """Run the recipe as a step of a pipeline; return its exit code and what it has written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRAIN_", "AWS_", "ECS_"))}
    given = {name: value for name, value in aws.environment().items() if name.startswith("AWS_")}
    nowhere = {"PATH": "/nowhere", "DRAIN_ADMIN_TOKEN": token, "AWS_DATA_PATH": str(MODELS), "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(RECIPE), "--cluster", "main", "--service", "web", *arguments),
        env=kept | given | nowhere,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.skipif(not RECIPE.exists(), reason="the example is no part of the wheel")
async def test_a_paused_deployment_goes_on_when_its_old_tasks_are_empty(serve):
    """Every client has left before the old task is taken out; where it cannot be asked the deployment stays paused."""
    server = serve("one_line:app", env={"DRAIN_ADMIN_TOKEN": TOKEN})
    fake = FakeAWS()
    service = fake.add_service("web", delay=1, port=server.port)
    service.desired = 1
    fake.add_task(service, addresses=("127.0.0.1",))
    with fake.serve() as aws:
        async with listeners([server.websocket("/ws")] * 10) as clients:
            strategy = STRATEGIES["blue-green"].with_times(0, 60, is_network=False)
            going = fake.shift(service, strategy, start_up=0.2)
            code, output = await run(aws, "another token", "--within", "10")
            assert code == 1, output
            assert "the deployment stays paused" in output
            assert going.deployment.stage == "POST_PRODUCTION_TRAFFIC_SHIFT"
            assert all(each.is_open for each in clients)

            code, output = await run(aws, TOKEN, "--window", "2")
            continued = time.monotonic()
            assert code == 0, output
            assert "All old tasks (1) are empty: the deployment goes on." in output
            goodbyes = [await each.close_policy() for each in clients]
        assert {each.code for each in goodbyes} == {1012}
        assert max(each.at for each in goodbyes) < continued
        while not going.is_over:  # noqa: ASYNC110 - FakeAWS has no signal
            await asyncio.sleep(0.1)
    assert going.deployment.status == "SUCCESSFUL"
