"""The line at the start: what this process watches, or that it watches nothing, and why."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from starlette_drain._core.events import DrainCancelled, DrainFinished, Event, TriggerStoodDown, WatchChanged
from starlette_drain._core.state import DrainState
from starlette_drain._engine.drain import Drain
from starlette_drain._workers.group import WorkerGroup
from starlette_drain.triggers.base import Control

__all__ = ["Announcement"]

OTHERS = ("announcement", "max-age", "self-registration", "task-protection", "workers")
"""What has a status like a trigger's, and starts no drain."""

SETTLING = 0.1
"""Seconds after which each trigger has said whether it is off here."""

ELECTING = 1.0
"""Seconds more in which the workers of a task find each other, so that one of them announces."""


class Announcement:
    """
    Announces what is watched once the triggers are in place, and again when one of them turns out to be off here.

    Args:
        drain: The drain whose triggers these are.
        group: The workers of the task, of which one announces.
        console: Shows the log while it is entered.
        environ: The environment.
    """

    name = "announcement"
    subscribes = (TriggerStoodDown, DrainFinished, DrainCancelled)

    def __init__(
        self,
        drain: Drain,
        group: WorkerGroup,
        console: AbstractContextManager[object],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._drain = drain
        self._group = group
        self._console = console
        self._showing = ExitStack()
        self._environ = environ
        self._off: dict[str, str] = {}
        self._control: Control | None = None
        self._has_announced = False

    async def watch(self, control: Control) -> None:
        """Announce, and show the log until cancelled."""
        self._control = control
        self._showing.enter_context(self._console)
        try:
            await asyncio.sleep(SETTLING)
            if self._group.member is not None and self._group.member.is_in_group:
                await asyncio.sleep(ELECTING)
            self._announce(control)
            await asyncio.get_running_loop().create_future()
        finally:
            self._control, self._has_announced = None, False
            self._off.clear()
            if self._drain.state is not DrainState.DRAINING:
                self._showing.close()

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the triggers that are off here, and why."""
        return {"off": dict(self._off)}

    def notify(self, event: Event) -> None:
        """Take note of triggers that are off; show the end of a drain that outlasts its application."""
        match event:
            case TriggerStoodDown():
                self._off[event.trigger] = event.why.removesuffix(".")
                if self._control is not None and self._has_announced:
                    self._announce(self._control)
            case DrainFinished() | DrainCancelled():
                if self._control is None:
                    self._showing.close()

    def _announce(self, control: Control) -> None:
        self._has_announced = True
        if self._group.member is not None and not self._group.member.speaks(self.name):
            return
        statuses = {name: each for name, each in self._drain.host.statuses().items() if name not in OTHERS}
        watched = tuple(
            f"{name} ({status.get('state', 'in place')})" for name, status in statuses.items() if name not in self._off
        )
        off = tuple((name, why) for name, why in self._off.items() if name in statuses)
        is_alarm = not watched and bool(self._environ.get("ECS_CONTAINER_METADATA_URI_V4"))
        control.emit(WatchChanged(control.time(), watched, off, is_alarm))
