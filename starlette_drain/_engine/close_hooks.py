"""What the application says to a session before it is closed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette_drain._core.session import Session

__all__ = ["CloseHook", "CloseHooks"]

logger = logging.getLogger("starlette_drain")

LAST_WORD = 0.1
"""Seconds in which a farewell whose time is up may tidy up, before the session is closed all the same."""

CloseHook = Callable[[Any], Awaitable[None]]


class CloseHooks:
    """
    Everything that the application says, in the order in which it was added.

    Args:
        timeout: Seconds that all of it may take for one session.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._all: list[CloseHook] = []

    def add(self, farewell: CloseHook) -> None:
        """Say this too."""
        self._all.append(farewell)

    async def bid(self, session: Session) -> None:
        """Say everything to *session*; what fails or takes too long is logged, and never holds up the close."""
        if not self._all:
            return
        # In a task of its own: a farewell that swallows its cancellation, or fails because of it, is left behind.
        saying = asyncio.create_task(self._say_all(session))
        try:
            if not await _has_ended(saying, self._timeout):
                logger.warning(
                    "A farewell on %s took more than %g s and was cut short; say less or raise farewell_timeout",
                    session.path,
                    self._timeout,
                )
                saying.cancel()
                await _has_ended(saying, LAST_WORD)
        except asyncio.CancelledError:
            saying.cancel()
            raise

    async def _say_all(self, session: Session) -> None:
        task = asyncio.current_task()
        for farewell in self._all:
            try:
                await farewell(session)
            except (Exception, asyncio.CancelledError) as error:
                # A CancelledError that nobody asked for gets here from something that the farewell waited for.
                if not (isinstance(error, asyncio.CancelledError) and task and task.cancelling()):
                    logger.exception("A farewell on %s failed; the session is closed all the same", session.path)
            if task and task.cancelling():
                return


async def _has_ended(task: asyncio.Task[None], timeout: float) -> bool:  # noqa: ASYNC109 - a timeout that raises nothing
    ended, _ = await asyncio.wait((task,), timeout=timeout)
    return bool(ended)
