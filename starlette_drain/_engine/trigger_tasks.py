"""The triggers of a drain at work: each watches in a task of its own, and none can hurt the others."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextvars import Context
from typing import Any

from starlette_drain.triggers.base import Control, Trigger

__all__ = ["Watching", "status_of"]

logger = logging.getLogger("starlette_drain")


class Watching:
    """
    Everybody who watches, for one life of a drain.

    Args:
        control: What they may do.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._tasks: list[tuple[Trigger, asyncio.Task[None]]] = []

    def __contains__(self, trigger: object) -> bool:
        return any(each is trigger for each, _ in self._tasks)

    def begin(self, triggers: Iterable[Trigger]) -> None:
        """Let those of *triggers* watch that do not yet, in empty contexts: what they do belongs to no request."""
        loop = asyncio.get_running_loop()
        self._tasks += [
            (each, loop.create_task(self._watch(each), context=Context())) for each in triggers if each not in self
        ]

    async def end(self) -> None:
        """Let nobody watch any more."""
        tasks = [task for _, task in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, trigger: Trigger) -> None:
        try:
            await trigger.watch(self._control)
        except Exception:
            logger.exception("Trigger %r failed and watches no more; a drain under way goes on", trigger.name)


def status_of(trigger: Trigger, now: float) -> Mapping[str, Any]:
    """Return what *trigger* says of itself at *now*, or what went wrong."""
    try:
        return trigger.status(now)
    except Exception as error:
        logger.exception("Trigger %r does not tell its status", trigger.name)
        return {"error": type(error).__name__}
