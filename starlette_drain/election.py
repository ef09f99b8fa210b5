"""One worker of a task that does what need not be done by all of them."""

from collections.abc import Mapping
from typing import Any

from starlette_drain.triggers.base import Control, Trigger
from starlette_drain.workers import Workers

__all__ = ["Elected"]


class Elected:
    """
    Runs a trigger in one worker of the task at a time, and in another when that one dies.

    Args:
        trigger: The trigger.
        workers: The agreement among the workers.
    """

    def __init__(self, trigger: Trigger, workers: Workers) -> None:
        self.name = trigger.name
        self._trigger = trigger
        self._workers = workers
        self._is_elected = False

    async def watch(self, control: Control) -> None:
        """Wait to be elected, then watch."""
        await self._workers.wait_elected(self.name)
        self._is_elected = True
        await self._trigger.watch(control)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the trigger's status, or that another worker watches."""
        return self._trigger.status(now) if self._is_elected else {"state": "another worker watches"}
