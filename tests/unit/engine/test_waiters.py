"""Whoever waits for a drain is told how it went, however early or late it asks, and always in the end."""

import asyncio

import pytest
from guests import Stubborn, open_guests

from starlette_drain import Drain, DrainCause, DrainState

pytestmark = pytest.mark.anyio


def make(**options):
    """Return a drain that watches nothing."""
    return Drain(triggers=[], observers=[], **options)


async def wait(drain, count=1):
    """Return tasks that wait already."""
    tasks = [asyncio.create_task(drain.wait_drained()) for _ in range(count)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_a_waiter_older_than_the_lifetime_is_told():
    """It was there before the application, and may have been cancelled meanwhile, beside others."""
    drain = make()
    early, impatient = await wait(drain, 2)
    impatient.cancel()
    async with drain.run():
        open_guests(drain, 3)
        (later,) = await wait(drain)
        await drain.start(window=10)
        assert await drain.wait_drained() is True
        assert await early is True
        assert await later is True
        assert await drain.wait_drained() is True, "drained is drained"


async def test_a_waiter_older_than_the_lifetime_is_told_by_its_end():
    """An application that never drains leaves nobody waiting."""
    drain = make()
    (early,) = await wait(drain)
    async with drain.run():
        (later,) = await wait(drain)
    assert (await early, await later) == (False, False)


async def test_a_waiter_of_an_application_that_ends_is_told_before_its_triggers_have_ended():
    """A lifespan may wait for it, and a trigger that hangs holds up neither."""

    class Slow:
        name = "slow"

        async def watch(self, _control):
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(3)

        def status(self, _now):
            return {}

    drain = Drain(triggers=[Slow()], observers=[])
    loop = asyncio.get_running_loop()
    drain.host.begin()
    (waiting,) = await wait(drain)
    began = loop.time()
    ending = asyncio.create_task(drain.host.end())
    assert await waiting is False
    assert loop.time() == began
    await ending
    assert loop.time() == began + 3


async def test_after_the_end_nobody_waits():
    """The answer is that of the lifetime that has ended: False, or True where it had drained."""
    drain = make()
    async with drain.run():
        pass
    assert await asyncio.wait_for(drain.wait_drained(), 1) is False
    async with drain.run():
        await drain.start()
    assert await asyncio.wait_for(drain.wait_drained(), 1) is True


async def test_each_life_tells_its_own_waiters():
    """Drained in one life says nothing of the next."""
    drain = make()
    async with drain.run():
        await drain.start()
        assert await drain.wait_drained()
    async with drain.run():
        (second,) = await wait(drain)
        assert drain.state is DrainState.SERVING
    assert await second is False


async def test_a_life_that_may_begin_again_leaves_waiters_to_the_next():
    """Where the server knows no lifespan, whoever waits between two lives waits for the second."""
    drain = make()
    drain.host.begin()
    (first,) = await wait(drain)
    await drain.host.end(may_begin_again=True)
    assert await first is False
    (between,) = await wait(drain)
    await drain.start()
    assert await between is True
    await drain.host.end()


def test_waiters_of_another_loop_are_left_where_they_are():
    """A Drain that moves to a second event loop tells those who wait there."""
    drain = make()

    async def wait_in_vain():
        await wait(drain)

    async def live():
        (early,) = await wait(drain)
        async with drain.run():
            await drain.start()
        return await early

    async def close_without_an_end():
        drain.host.begin()
        await wait(drain)

    asyncio.run(wait_in_vain())
    assert asyncio.run(live()) is True
    asyncio.run(close_without_an_end())
    assert asyncio.run(live()) is True


async def test_waiters_across_cancels_are_told_once_each():
    """A cancelled drain was cancelled for those who waited for it, also those who were there before it began."""
    drain = make()
    async with drain.run():
        open_guests(drain, 1, Stubborn)
        (first,) = await wait(drain)
        await drain.start(window=100)
        await drain.cancel()
        (second,) = await wait(drain)
        assert await first is False
        await drain.start(window=1)
        assert await second is True


async def test_a_drain_taken_back_when_it_was_over_is_over_for_those_who_waited():
    """Who waits after the cancel waits for the next drain."""
    drain = make()
    async with drain.run():
        (first,) = await wait(drain)
        await drain.start()
        await drain.cancel()
        assert await first is True
        (second,) = await wait(drain)
        await drain.start()
        assert await second is True


async def test_a_withdrawn_claim_tells_them_like_a_cancel():
    """An undone deregistration is no drained process."""
    drain = make()
    async with drain.run():
        open_guests(drain, 1, Stubborn)
        now = drain.host.engine.time()
        drain.host.engine.claim(DrainCause("health", "draining", now, now + 100))
        (waiting,) = await wait(drain)
        drain.host.engine.withdraw("health")
        assert await waiting is False


async def test_late_arrivals_after_the_end_are_waited_for_by_those_who_come_then():
    """Those who waited for the first run were told that it was over."""
    drain = make(late_arrivals="accept")
    async with drain.run():
        (first,) = await wait(drain)
        await drain.start(window=100)
        open_guests(drain, 1)
        assert await first is True
        (second,) = await wait(drain)
        assert await second is True
        assert drain.report.shed == 1


async def test_all_workers_of_one_process_are_this_one():
    """Without a supervisor there is nobody else to wait for."""
    drain = make()
    early = asyncio.create_task(drain.host.wait_all_drained())
    await asyncio.sleep(0)
    async with drain.run():
        later = asyncio.create_task(drain.host.wait_all_drained())
        by_control = asyncio.create_task(drain.host.control().wait_drained())
        await asyncio.sleep(0)
        await drain.start()
        assert (await early, await later, await by_control) == (True, True, True)
