"""Announces at the start what this process watches, or that it watches nothing and why."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    Event,
    TriggerStoodDown,
    WatchChanged,
    WatchReported,
)
from starlette_drain._core.state import DrainState
from starlette_drain._engine.drain import Drain
from starlette_drain._workers.group import WorkerGroup
from starlette_drain.triggers.base import Control

__all__ = ["OTHERS", "Announcement"]

OTHERS = ("announcement", "command", "process", "self-registration", "task-protection", "workers")
"""Names that have a status like a trigger but start no drain."""

SETTLING = 0.1
"""Seconds after which every trigger has reported whether it is off here."""

ELECTING = 1.0
"""Further seconds in which the workers of a task find each other, so that only one of them announces."""

TIMEOUT = 20.0
"""Seconds after which it announces what it knows, even if a trigger has not understood its first poll."""


class Announcement:
    """
    Announces what is watched, after every trigger has understood its first poll, and again when that changes.

    Args:
        drain: The drain with the triggers.
        group: The workers of the task, one of which announces.
        console: Shows the log while it is entered.
        environ: The environment variables.
    """

    name = "announcement"
    subscribes = (TriggerStoodDown, WatchReported, DrainFinished, DrainCancelled)

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
        self._alarms: set[str] = set()
        """The triggers that are off here but should not be."""
        self._seen: dict[str, str] = {}
        """What each trigger has reported to watch."""
        self._news = asyncio.Event()
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
            with suppress(TimeoutError):
                async with asyncio.timeout(TIMEOUT):
                    await self._until_understood()
            self._announce(control)
            await asyncio.get_running_loop().create_future()
        finally:
            self._control, self._has_announced = None, False
            self._off.clear()
            self._alarms.clear()
            self._seen.clear()
            if self._drain.state is not DrainState.DRAINING:
                self._showing.close()

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the triggers that are off here, and why."""
        return {"off": dict(self._off)}

    def notify(self, event: Event) -> None:
        """Record which triggers are off; keep showing the log of a drain that outlasts its application."""
        match event:
            case TriggerStoodDown():
                self._off[event.trigger] = event.why.removesuffix(".")
                if event.is_alarm:
                    self._alarms.add(event.trigger)
                self._change()
            case WatchReported() if event.what and self._seen.get(event.trigger) != event.what:
                self._seen[event.trigger] = event.what
                self._change()
            case DrainFinished() | DrainCancelled():
                if self._control is None:
                    self._showing.close()

    def _change(self) -> None:
        self._news.set()
        if self._control is not None and self._has_announced:
            self._announce(self._control)

    async def _until_understood(self) -> None:
        """Wait until every trigger that reports what it watches has done so, or is off here."""
        while any("watch" in each and name not in self._seen for name, each in self._statuses().items()):
            self._news.clear()
            await self._news.wait()

    def _statuses(self) -> dict[str, Mapping[str, Any]]:
        """Return the status of each trigger that may start a drain here."""
        statuses = self._drain.host.statuses()
        return {name: each for name, each in statuses.items() if name not in OTHERS and name not in self._off}

    def _announce(self, control: Control) -> None:
        self._has_announced = True
        if self._group.member is not None and not self._group.member.speaks(self.name):
            return
        watched = tuple(
            f"{name} ({self._seen.get(name) or status.get('state', 'in place')})"
            for name, status in self._statuses().items()
        )
        off = tuple((name, why) for name, why in self._off.items() if name not in OTHERS)
        is_on_ecs = bool(self._environ.get("ECS_CONTAINER_METADATA_URI_V4"))
        is_alarm = bool(self._alarms) or (is_on_ecs and not watched)
        control.emit(WatchChanged(control.time(), watched, off, is_alarm))
