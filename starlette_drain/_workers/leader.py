"""One worker of a task that does what need not be done by all of them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette_drain._workers.group import Workers
from starlette_drain.triggers.base import Control, Trigger

__all__ = ["LeaderOnly"]


class LeaderOnly:
    """
    Runs a trigger in one worker of the task at a time, and in another when that one dies, hangs, or fails to run it.

    Args:
        trigger: The trigger.
        workers: The agreement among the workers.
    """

    def __init__(self, trigger: Trigger, workers: Workers) -> None:
        self.name = trigger.name
        self._trigger = trigger
        self._workers = workers
        self._has_failed = False

    async def watch(self, control: Control) -> None:
        """Watch whenever this worker is elected, and no longer."""
        self._has_failed = False
        while True:
            await self._workers.wait_elected(self.name)
            term = asyncio.timeout(None)
            try:
                await self._serve(term, control)
            except Exception as error:
                if isinstance(error, TimeoutError) and term.expired():
                    continue
                self._has_failed = True
                self._workers.give_up(self.name)
                raise
            return

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the trigger's status where it runs here; otherwise how it stands, and in which worker it runs."""
        watcher = self._workers.who_watches(self.name)
        if watcher is None:
            return {"state": "failed" if self._has_failed else "not started"}
        if watcher == self._workers.pid:
            return self._trigger.status(now)
        return {"state": "failed" if self._has_failed else "another worker watches", "watched_by": watcher}

    async def _serve(self, term: asyncio.Timeout, control: Control) -> None:
        """Watch for one *term*, which ends when another worker is elected."""
        async with term:
            ending = asyncio.create_task(self._end_when_deposed(term))
            try:
                await self._trigger.watch(control)
            finally:
                ending.cancel()

    async def _end_when_deposed(self, term: asyncio.Timeout) -> None:
        await self._workers.wait_deposed(self.name)
        term.reschedule(0.0)
