"""An event loop in a thread of its own."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from starlette_drain.aws.api.loop_thread import LoopThread

pytestmark = pytest.mark.anyio

word = ContextVar("word", default="nothing")


async def current():
    """Return the thread and the word of whoever runs this."""
    return threading.current_thread(), word.get()


async def test_coroutines_run_elsewhere_in_the_callers_context():
    """One thread for all that is inside at the same time, with the caller's context variables."""
    word.set("unobserved")
    async with LoopThread() as other, other:
        answers = await asyncio.gather(other.run(current()), other.run(current()))

    assert answers[0] == answers[1]
    assert answers[0][0] is not threading.current_thread()
    assert answers[0][1] == "unobserved"


async def test_the_thread_ends_with_the_last_inside_and_comes_back():
    """Nothing is left running, whatever was under way; whoever enters again gets a new thread."""
    other = LoopThread()
    async with other:
        async with other:
            first, _ = await other.run(current())
        assert (await other.run(current()))[0] is first
    await asyncio.to_thread(first.join, 5)
    assert not first.is_alive()
    async with other:
        second, _ = await other.run(current())
    assert second is not first


async def test_errors_come_back_and_cancelling_goes_there():
    """An error is raised where it was waited for; a time limit ends what runs on the other loop."""
    ended = threading.Event()

    async def fail():
        raise KeyError("there")

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with LoopThread() as other:
        with pytest.raises(KeyError, match="there"):
            await other.run(fail())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await other.run(hang())
        assert await asyncio.to_thread(ended.wait, 5)
