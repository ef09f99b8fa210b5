"""One of the four walks of docs/contributing.md, held to the code."""

import asyncio
from random import Random

import pytest
from aws_fakes import ON_ECS, MetadataOf
from walks import walking

from starlette_drain import Drain, Session
from starlette_drain.aws.sources.target_health import TargetHealthTrigger

pytestmark = pytest.mark.anyio


async def test_from_an_answer_to_the_first_close(stage):
    """From the answer of a poll to the first close a reader follows at most 14 calls."""
    closed = []

    class Guest(Session):
        def begin_close(self, _policy):
            walk.turn()
            closed.append(self)
            asyncio.get_running_loop().call_soon(lambda: drain.host.engine.closed(self, forced=False))

    task = stage.fake.add_task(stage.fake.add_service(delay=60))
    trigger = TargetHealthTrigger(clients=stage.clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(task))
    drain = Drain(triggers=[trigger], observers=[], start_delay=0)
    async with drain.run():
        await asyncio.sleep(20)
        drain.host.engine.track(Guest("/", 0.0))
        stage.fake.deregister(task)
        with walking() as walk:
            while not closed:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    walk.holds("From the answer of a poll to the first close", 14)
