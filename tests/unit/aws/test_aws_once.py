"""A question that is answered once, on virtual time."""

import asyncio
from random import Random

import pytest
from aws_fakes import ClientError

from starlette_drain.aws.api.errors import AwsCallFailed, classify
from starlette_drain.aws.api.once import Once

pytestmark = pytest.mark.anyio


class Oracle:
    """Answers after a second, or fails."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.asked = []

    async def __call__(self):
        """Answer with the number of the attempt."""
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        if self.failures:
            raise self.failures.pop(0)
        return len(self.asked)


def throttled():
    """Return the failure that AWS throttles."""
    return AwsCallFailed(classify(ClientError("Throttling"), "ecs", "DescribeTasks"))


async def test_all_get_the_one_answer():
    """However many ask, at once or later, one attempt is made."""
    oracle = Oracle()
    once = Once(oracle, Random(7))
    assert await asyncio.gather(*(once.get() for _ in range(5))) == [1] * 5
    assert await once.get() == 1
    assert len(oracle.asked) == 1


async def test_an_answer_may_be_none():
    """An answer that is nothing is kept like any other."""

    async def nothing():
        asked.append(None)

    asked = []
    once = Once(nothing, Random(7))
    assert [await once.get() for _ in range(2)] == [None, None]
    assert len(asked) == 1


@pytest.mark.parametrize(("failure", "shortest"), [(ValueError(), 1), (throttled(), 10)])
async def test_those_who_ask_share_the_attempts(failure, shortest):
    """After a failure the next attempt waits, whoever makes it; the failure reaches the one who made the attempt."""
    oracle = Oracle(failure)
    once = Once(oracle, Random(7))
    results = await asyncio.gather(once.get(), once.get(), once.get(), return_exceptions=True)
    assert results == [failure, 2, 2]
    first, second = oracle.asked
    assert second - first - 1 >= shortest


async def test_one_who_gives_up_takes_nothing_from_the_others():
    """Where the one who makes the attempt is cancelled, the next makes it."""
    oracle = Oracle()
    once = Once(oracle, Random(7))
    first, second = asyncio.create_task(once.get()), asyncio.create_task(once.get())
    await asyncio.sleep(0.5)
    first.cancel()
    assert await second == 2
