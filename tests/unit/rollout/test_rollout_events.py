"""The log of a rollout, and who waits for an entry."""

import asyncio

import pytest

events_module = pytest.importorskip("example_app.rollout.events", reason="the example is no part of the wheel")

pytestmark = pytest.mark.anyio


async def test_several_wait_for_events_of_their_own():
    """Each goes on when its own has happened, and at once where it has happened before."""
    loop = asyncio.get_running_loop()
    events = events_module.Events(clock=loop.time)
    began = loop.time()

    async def wait(*wanted):
        await events.wait_for(*wanted)
        return loop.time() - began

    waits = [asyncio.create_task(wait(*each)) for each in (("cut", "a"), ("cut", "b"), ("cut",))]
    for name in ("b", "a"):
        await asyncio.sleep(5)
        events.note("cut", name)
    assert await asyncio.gather(*waits) == [10, 5, 5]
    assert await wait("cut", "a") == 10
