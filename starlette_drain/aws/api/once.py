"""A value that is looked up once for all who need it."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Generic, TypeVar

from starlette_drain.aws.api.backoff import Backoff
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind

__all__ = ["Once"]

Answer = TypeVar("Answer")

FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds between two attempts: the shortest and the longest wait."""

FIRST_THROTTLED, LAST_THROTTLED = 10.0, 120.0
"""The same after AWS has throttled an attempt: tasks that start together are throttled together, and must spread."""


class Once(Generic[Answer]):
    """
    Asks until there is an answer, and keeps it.

    There is only one attempt at a time, however many callers there are, and the wait between attempts grows.

    Args:
        ask: Makes one attempt.
        rng: The source of randomness.
    """

    def __init__(self, ask: Callable[[], Awaitable[Answer]], rng: Random) -> None:
        self._ask = ask
        self._usual = Backoff(FIRST_RETRY, LAST_RETRY, rng)
        self._throttled = Backoff(FIRST_THROTTLED, LAST_THROTTLED, rng)
        self._asking = asyncio.Lock()
        self._not_before = 0.0
        self._answer: tuple[Answer] | None = None

    async def get(self) -> Answer:
        """
        Return the answer. If there is none yet, wait until the next attempt is due, and make it.

        Raises:
            Exception: What that attempt raised.
        """
        async with self._asking:
            if self._answer is None:
                time = asyncio.get_running_loop().time
                await asyncio.sleep(self._not_before - time())
                try:
                    self._answer = (await self._ask(),)
                except Exception as failure:
                    self._not_before = time() + self._wait_after(failure)
                    raise
            return self._answer[0]

    def _wait_after(self, failure: Exception) -> float:
        throttled = isinstance(failure, AwsCallFailed) and failure.trouble.kind is TroubleKind.THROTTLED
        return (self._throttled if throttled else self._usual).grow()
