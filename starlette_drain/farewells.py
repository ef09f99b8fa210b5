"""What the application says to a session before it is closed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette_drain._core.session import Session

__all__ = ["Farewell", "Farewells"]

logger = logging.getLogger("starlette_drain")

Farewell = Callable[[Any], Awaitable[None]]


class Farewells:
    """
    Everything that the application says, in the order in which it was added.

    Args:
        timeout: Seconds that all of it may take for one session.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._all: list[Farewell] = []

    def add(self, farewell: Farewell) -> None:
        """Say this too."""
        self._all.append(farewell)

    async def bid(self, session: Session) -> None:
        """Say everything to *session*; what fails or takes too long is logged."""
        if not self._all:
            return
        try:
            async with asyncio.timeout(self._timeout):
                for farewell in self._all:
                    await self._bid_one(farewell, session)
        except TimeoutError:
            logger.warning(
                "A farewell on %s took more than %g s and was cut short; say less or raise farewell_timeout",
                session.path,
                self._timeout,
            )

    async def _bid_one(self, farewell: Farewell, session: Session) -> None:
        task = asyncio.current_task()
        try:
            await farewell(session)
        except (Exception, asyncio.CancelledError):
            if task is not None and task.cancelling():
                raise
            # A CancelledError gets here from something that the farewell waited for.
            logger.exception("A farewell on %s failed; the session is closed all the same", session.path)
