"""What the unit tests of the AWS wing share."""

import asyncio
import contextlib
from random import Random

import pytest
from aws_fakes import ON_ECS, MetadataOf, RecordingControl, ScriptedClients

from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.testing import FakeAWS


class Stage:
    """A FakeAWS on virtual time, and a trigger that watches it."""

    def __init__(self):
        self.fake = FakeAWS(clock=lambda: asyncio.get_running_loop().time())
        self.clients = ScriptedClients(self.fake)
        self.trigger = None
        self.task = None

    @contextlib.asynccontextmanager
    async def watching(self, task=None, *, kind=TargetHealthTrigger, environ=ON_ECS, seed=7, **options):
        """Let a trigger of *kind* watch *task*; yields the control that records what it does."""
        self.task = task
        self.metadata = MetadataOf(task)
        self.trigger = kind(clients=self.clients, environ=environ, rng=Random(seed), fetch=self.metadata)
        control = RecordingControl(**options)
        watching = asyncio.create_task(self.trigger.watch(control))
        try:
            yield control
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


@pytest.fixture
def stage():
    """Set a stage; tests using it run on virtual time."""
    return Stage()
