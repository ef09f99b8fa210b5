"""The application's hooks that run before a session is closed."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette_drain._core.printable import printable
from starlette_drain._core.session import Session
from starlette_drain.exceptions import SettingsError

__all__ = ["CloseHook", "CloseHooks"]

logger = logging.getLogger("starlette_drain")

LAST_WORD = 0.1
"""Seconds that a hook has to clean up after its time limit; then the session is closed anyway."""

CloseHook = Callable[[Any], Awaitable[None]]


class CloseHooks:
    """
    The close hooks of an application, in the order in which they were added.

    The first failure of a hook is logged with its traceback, further ones are only counted: in a drain it may fail for
    each of 50,000 sessions.

    Args:
        timeout: Seconds that all hooks together may take for one session.
    """

    def __init__(self, timeout: float) -> None:
        self.failures = 0
        """The number of calls that failed or were cut short."""
        self._timeout = timeout
        self._all: list[CloseHook] = []
        self._logged: set[object] = set()

    def add(self, hook: CloseHook) -> None:
        """
        Add *hook*.

        Raises:
            SettingsError: If *hook* is not an async function.
        """
        # A lambda is accepted: it may return the coroutine of another function.
        calls = (hook, getattr(type(hook), "__call__", None))  # noqa: B004 - an object may have an async __call__
        if not (any(map(inspect.iscoroutinefunction, calls)) or getattr(hook, "__name__", "") == "<lambda>"):
            raise SettingsError("before_close", hook, "give an async function that takes the session")
        self._all.append(hook)

    async def run(self, session: Session) -> None:
        """Call all hooks with *session*. A hook that fails or takes too long does not delay the close any further."""
        if not self._all:
            return
        # In a separate task, because a hook may swallow its cancellation: then it is left running.
        running = asyncio.create_task(self._run_all(session))
        try:
            if not await _has_ended(running, self._timeout):
                self._count(
                    None,
                    "A close hook on %s took more than %g s and was cut short; do less in it",
                    printable(session.path),
                    self._timeout,
                )
                running.cancel()
                await _has_ended(running, LAST_WORD)
        except asyncio.CancelledError:
            running.cancel()
            raise

    async def _run_all(self, session: Session) -> None:
        task = asyncio.current_task()
        for hook in self._all:
            try:
                await hook(session)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - a SystemExit would end the process, and cut every session
                # A CancelledError that we did not cause comes from something that the hook awaited.
                if not (isinstance(error, asyncio.CancelledError) and task and task.cancelling()):
                    path = printable(session.path)
                    self._count(hook, "A close hook on %s failed; the session is closed anyway", path, error=error)
            if task and task.cancelling():
                return

    def _count(self, hook: object, sentence: str, *figures: object, error: BaseException | None = None) -> None:
        """Count a failure; log the first one of each hook."""
        self.failures += 1
        if hook not in self._logged:
            self._logged.add(hook)
            level = logging.WARNING if error is None else logging.ERROR
            logger.log(level, f"{sentence}; further failures are only counted", *figures, exc_info=error)  # noqa: G004


async def _has_ended(task: asyncio.Task[None], timeout: float) -> bool:  # noqa: ASYNC109 - a timeout that raises nothing
    ended, _ = await asyncio.wait((task,), timeout=timeout)
    return bool(ended)
