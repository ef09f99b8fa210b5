"""The workers of one task, which drain as one: a trigger that applies in this worker what the others publish."""

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
    Makes the drains of all workers of one task one drain.

    Args:
        environ: The environment.
        pid: The process id of this worker; by default that of the process in which it watches.
        directory: Where the workers meet; by default in the temporary directory, if they have a supervisor.
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
        """This worker in the present lifetime, or the last."""

    def join(self, lifetime: Lifetime, triggers: Callable[[], Iterable[Trigger]]) -> TaskControl:
        """Return the control of a *lifetime* that begins in this worker."""
        self.member = Member(lifetime.engine, self._environ, self._pid, self._directory)
        return TaskControl(lifetime, triggers, self.member)

    def lead(self, trigger: Trigger) -> Trigger:
        """Return what lets *trigger* watch in the leader only."""
        return LeaderOnly(trigger, lambda: self.member)

    async def watch(self, control: Control) -> None:  # noqa: ARG002
        """Meet the other workers for as long as the application runs."""
        if self.member is not None:
            await self.member.run()

    def notify(self, event: Event) -> None:
        """Take note how the triggers of this worker see their sources."""
        match event:
            case WatchReported() if self.member is not None:
                self.member.see(event.trigger, (event.state, event.at, event.because))
            case TriggerStoodDown() if self.member is not None:
                self.member.see(event.trigger, None)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return how every worker stands, and the sum."""
        return {"scope": "task"} if self.member is None else self.member.status(now)
