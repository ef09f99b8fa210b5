"""Runs the triggers of a drain: each watches in its own task, so that none affects the others."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextvars import Context
from typing import Any

from starlette_drain.triggers.base import Control, Trigger

__all__ = ["TriggerTasks", "status_of"]

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a trigger that has failed is restarted: doubled each time, up to the longest."""

END_TIMEOUT = 5.0
"""Seconds that all triggers together have to end."""

logger = logging.getLogger("starlette_drain")


class TriggerTasks:
    """
    The triggers that watch during one lifetime.

    Args:
        control: What the triggers get to act on the drain.
    """

    def __init__(self, control: Control) -> None:
        self.control = control
        self._tasks: dict[int, tuple[Trigger, asyncio.Task[None]]] = {}
        self._failures: dict[int, str] = {}

    def __contains__(self, trigger: Trigger) -> bool:
        return id(trigger) in self._tasks

    def begin(self, triggers: Iterable[Trigger]) -> None:
        """Start the *triggers* that do not watch yet, in empty contexts, because they belong to no request."""
        loop = asyncio.get_running_loop()
        for each in triggers:
            if each not in self:
                self._tasks[id(each)] = each, loop.create_task(self._watch(each), context=Context())

    async def end(self) -> None:
        """Stop all triggers. One that does not end in time is left running, and logged."""
        for _, task in self._tasks.values():
            task.cancel()
        tasks = {task for _, task in self._tasks.values()}
        if tasks:
            await asyncio.wait(tasks, timeout=END_TIMEOUT)
        if hanging := [trigger.name for trigger, task in self._tasks.values() if not task.done()]:
            logger.error(
                "Triggers did not end within %g s and are left behind: %s; see what their watch() awaits at its end",
                END_TIMEOUT,
                ", ".join(hanging),
            )
        self._tasks.clear()

    def failure_of(self, trigger: Trigger) -> str | None:
        """Return why *trigger* does not watch now, if it has failed."""
        return self._failures.get(id(trigger))

    async def _watch(self, trigger: Trigger) -> None:
        loop, task, pause = asyncio.get_running_loop(), asyncio.current_task(), FIRST_PAUSE
        while True:
            began = loop.time()
            try:
                await trigger.watch(self.control)
            except (Exception, asyncio.CancelledError) as error:
                if task is not None and task.cancelling():
                    if isinstance(error, asyncio.CancelledError):
                        raise
                    logger.exception("Trigger %r failed at its end", trigger.name)
                    return
                # A CancelledError that we did not cause comes from something that the trigger awaited.
                if loop.time() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                self._failures[id(trigger)] = f"{type(error).__name__}; it restarts within {pause:g} s"
                logger.exception("Trigger %r failed; it restarts in %g s, and a drain continues", trigger.name, pause)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            self._failures.pop(id(trigger), None)


def status_of(trigger: Trigger, now: float, failure: str | None) -> Mapping[str, Any]:
    """Return the status of *trigger* at *now*, with its *failure* if there is one."""
    try:
        status = dict(trigger.status(now))
    except Exception as error:
        logger.exception("The status of trigger %r could not be read", trigger.name)
        status = {"error": type(error).__name__}
    return status if failure is None else {**status, "failed": failure}
