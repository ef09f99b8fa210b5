"""Sessions that have lived long enough: asked to leave although there is no drain, so that they move to new tasks."""

import asyncio
import heapq
from collections.abc import Mapping
from random import Random
from typing import Any

from starlette_drain._core.facts import Fact, SessionOpened
from starlette_drain._core.session import Session
from starlette_drain._core.state import DrainState
from starlette_drain.drain import Drain
from starlette_drain.triggers.base import Control

__all__ = ["Ageing"]

JITTER = 0.2
"""Part of the age by which a session may leave earlier: those that came together do not leave together."""


class Ageing:
    """
    Asks each session to leave at ``max_session_age`` or up to a fifth earlier, at random.

    A balancer never moves a WebSocket: after a scale-out the new tasks stay empty until the old sessions end. Ageing
    pauses during a drain; those whose time came meanwhile get a new moment, so that a cancelled drain is not followed
    by a burst.

    Args:
        drain: The drain whose sessions age.
        age: Seconds.
        rng: The source of luck.
    """

    name = "ageing"

    def __init__(self, drain: Drain, age: float, rng: Random) -> None:
        self._drain = drain
        self._age = age
        self._rng = rng
        self._queue: list[tuple[float, int, Session]] = []
        self._entered = 0
        self._shed = 0
        self._earlier = asyncio.Event()

    async def watch(self, control: Control) -> None:
        """Wait for the next birthday, again and again."""
        while True:
            self._earlier.clear()
            timeout = max(0.0, self._queue[0][0] - control.time()) if self._queue else None
            try:
                async with asyncio.timeout(timeout):
                    await self._earlier.wait()
            except TimeoutError:
                self._let_go(control.time())

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the age, and how many have been asked to leave for it."""
        return {"max_session_age": self._age, "shed": self._shed}

    def notify(self, fact: Fact) -> None:
        """Note the birthday of a session that opens."""
        if isinstance(fact, SessionOpened):
            self._enter(fact.session, fact.at + self._age * (1.0 - JITTER * self._rng.random()))

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    def _enter(self, session: Session, moment: float) -> None:
        self._entered += 1
        heapq.heappush(self._queue, (moment, self._entered, session))
        if self._queue[0][2] is session:
            self._earlier.set()

    def _let_go(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            _, _, session = heapq.heappop(self._queue)
            if not session.is_tracked or session.shed_at is not None:
                continue
            if self._drain.state is DrainState.SERVING and not session.is_held:
                self._shed += 1
                self._drain.shed(session)
            else:
                self._enter(session, now + JITTER * self._age * self._rng.random())
