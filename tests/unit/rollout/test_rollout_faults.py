"""The faults, in virtual time: each does what its line says, and when."""

import asyncio
from types import SimpleNamespace

import pytest

faults = pytest.importorskip("example_app.rollout.faults", reason="the example is no part of the wheel")
events_module = pytest.importorskip("example_app.rollout.events")
times_module = pytest.importorskip("example_app.rollout.times")

pytestmark = pytest.mark.anyio


class Notes(list):
    """What was done, and when."""

    def __init__(self):
        super().__init__()
        self._zero = asyncio.get_running_loop().time()

    def take(self, what, *details):
        """Take note."""
        self.append((asyncio.get_running_loop().time() - self._zero, what, *details))


@pytest.fixture
async def notes():
    """Nothing so far."""
    return Notes()


@pytest.fixture
async def stage(notes):
    """A stage with two old tasks, on which nothing real happens."""

    def task(name):
        async def kill():
            notes.take("kill", name)

        return SimpleNamespace(name=name, target=("127.0.0.1", name), kill=kill)

    async def cut(target):
        notes.take("cut", target[1])

    cluster = SimpleNamespace(
        times=times_module.Times(scale=1.0),
        events=events_module.Events(clock=asyncio.get_running_loop().time),
        aws=SimpleNamespace(fail=lambda kind, **options: notes.take("fail", kind, options)),
        balancer=SimpleNamespace(cut=cut),
    )
    return faults.Stage(cluster, [task("old-1"), task("old-2")])


EXPECTED = {
    "throttle": [(0.0, "fail", "throttle", {"action": "DescribeTargetHealth", "seconds": 100.0})],
    "api-down": [(0.0, "fail", "error", {})],
    "kill-task": [(150.0, "kill", "old-1")],
    "early-cut": [(150.0, "cut", "old-1"), (250.0, "cut", "old-2")],
    "deaf-clients": [],
}


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_fault_strikes_as_its_line_says(name, stage, notes):
    """At the deregistration, or half-way through a task's delay; the events tell of it."""
    stage.cluster.events.note("deregistered", "old-1")
    striking = asyncio.create_task(faults.FAULTS[name].strike(stage))
    await asyncio.sleep(100)
    stage.cluster.events.note("deregistered", "old-2")
    await striking
    assert notes == EXPECTED[name]
    assert len(stage.cluster.events.times("fault")) == len(EXPECTED[name])


async def test_a_target_that_is_not_draining_yet_is_not_cut_early(stage, notes):
    """With batches that leave one after the other, those of the second keep their clients until their own turn."""
    stage.cluster.events.note("deregistered", "old-1")
    striking = asyncio.create_task(faults.FAULTS["early-cut"].strike(stage))
    await asyncio.sleep(10_000)
    striking.cancel()
    assert notes == [(150.0, "cut", "old-1")]


def test_every_fault_is_tested():
    """A new file means a new line above."""
    assert faults.FAULTS.keys() == EXPECTED.keys()
