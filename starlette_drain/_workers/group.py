"""The workers of one task, which drain as one: a trigger that applies what the other workers publish."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette_drain._core.events import Event, TriggerStoodDown, WatchReported
from starlette_drain._engine.lifetime import Lifetime
from starlette_drain._workers.control import TaskControl
from starlette_drain._workers.leader import LeaderOnly
from starlette_drain._workers.member import NAME, Member
from starlette_drain.triggers.base import Control, Trigger

__all__ = ["WorkerGroup"]


class WorkerGroup:
    """
    Makes the workers of one task drain as one.

    Args:
        environ: The environment variables.
        pid: The process id of this worker; by default that of the process in which it watches.
        directory: The parent of the shared directory; by default shared memory or the temporary directory, if the
            workers have a supervisor.
    """

    name = NAME
    subscribes = (WatchReported, TriggerStoodDown)

    def __init__(
        self, environ: Mapping[str, str] = os.environ, *, pid: int | None = None, directory: str | None = None
    ) -> None:
        self._environ = environ
        self._pid = pid
        self._directory = directory
        self.member: Member | None = None
        """This worker in the current lifetime, or in the last one."""

    def join(self, lifetime: Lifetime, triggers: Callable[[], Iterable[Trigger]]) -> TaskControl:
        """Join the group for a *lifetime* that begins, and return its control."""
        self.member = Member(lifetime.engine, self._environ, self._pid, self._directory)
        return TaskControl(lifetime, triggers, self.member)

    def lead(self, trigger: Trigger) -> Trigger:
        """Wrap *trigger* so that it watches only in the leader."""
        return LeaderOnly(trigger, lambda: self.member)

    async def watch(self, control: Control) -> None:  # noqa: ARG002
        """Exchange with the other workers until cancelled."""
        if self.member is not None:
            await self.member.run()

    def notify(self, event: Event) -> None:
        """Record the watch states of this worker's triggers."""
        match event:
            case WatchReported() if self.member is not None:
                sight = None if event.state == "elsewhere" else (event.state, event.at, event.because)
                self.member.see(event.trigger, sight)
            case TriggerStoodDown() if self.member is not None:
                self.member.see(event.trigger, ("blind", event.at, event.why) if event.is_alarm else None)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the status of every worker and their sums."""
        return {"scope": "task"} if self.member is None else self.member.status(now)
