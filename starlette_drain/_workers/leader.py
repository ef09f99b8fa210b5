"""Runs a trigger only in the leader of the task's workers."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from starlette_drain._core.events import WatchReported
from starlette_drain._workers.member import Member
from starlette_drain.triggers.base import Control, Trigger

__all__ = ["LeaderOnly"]


class LeaderOnly:
    """
    Runs a trigger in one worker of the task at a time, and in another one if that worker dies, hangs or fails.

    A trigger may have a method ``attend(control)`` that returns an async context manager. Every worker enters it while
    the application runs, whether it is the leader or not.

    Args:
        trigger: The trigger.
        member: Returns this worker as a member of the group, in the current lifetime.
    """

    def __init__(self, trigger: Trigger, member: Callable[[], Member | None]) -> None:
        self.name = trigger.name
        self._trigger = trigger
        self._member = member

    async def watch(self, control: Control) -> None:
        """Watch while this worker is the leader."""
        member = self._member()
        if member is None:
            return
        attend = getattr(self._trigger, "attend", None)
        async with nullcontext() if attend is None else attend(control):
            await self._watch(member, control)

    async def _watch(self, member: Member, control: Control) -> None:
        while True:
            if member.leader_of(self.name) not in (None, member.pid):
                self._replace_sight("elsewhere", member, control)
            await member.wait_elected(self.name)
            term = asyncio.timeout(None)
            try:
                await self._serve(term, member, control)
            except Exception as error:
                if isinstance(error, TimeoutError) and term.expired():
                    continue
                member.give_up(self.name)
                self._replace_sight("blind", member, control, f"it failed ({type(error).__name__})")
                raise
            return

    def _replace_sight(self, state: str, member: Member, control: Control, because: str = "") -> None:
        """Replace the watch state that the trigger reported here by *state*: the trigger no longer updates it."""
        if member.has_seen(self.name):
            control.emit(WatchReported(control.time(), self.name, state, "", because))

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the trigger's status in the leader; in other workers, which worker runs it."""
        member = self._member()
        pid = member.leader_of(self.name) if member is not None else None
        if member is None or pid is None:
            return {"state": "not started"}
        return (
            self._trigger.status(now) if pid == member.pid else {"state": "another worker watches", "watched_by": pid}
        )

    async def before_exit(self) -> None:
        """Run the trigger's ``before_exit``, in the worker that runs the trigger."""
        member, act = self._member(), getattr(self._trigger, "before_exit", None)
        if act is not None and member is not None and self.name in member.leads:
            await act()

    async def _serve(self, term: asyncio.Timeout, member: Member, control: Control) -> None:
        """Watch for one *term*, which ends when another worker becomes the leader."""
        async with term:
            ending = asyncio.create_task(self._end_when_deposed(term, member))
            try:
                await self._trigger.watch(control)
            finally:
                ending.cancel()

    async def _end_when_deposed(self, term: asyncio.Timeout, member: Member) -> None:
        await member.wait_deposed(self.name)
        term.reschedule(0.0)
