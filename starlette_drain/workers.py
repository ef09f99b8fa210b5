# How the workers of one task agree.
#
# Each worker process has its own event loop, sessions and Drain. Whatever starts a drain in one of them is written down
# as an order in their meeting place; the others look there four times a second and obey. A worker that is started again
# half-way finds the order waiting. All keep to the same deadline: the monotonic clock is the machine's, so the moments
# of one process mean the same in another.
#
# Each sheds its own sessions over the same window, so the sum is as even as each part. What a strategy promises for the
# task (a limit per second) is divided by the number of workers, and a trigger that costs calls to somebody else's API
# runs in one worker at a time: whoever has its lock, which the kernel gives back when that worker dies.
"""Agreement between the worker processes of one task."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.facts import DrainCancelled, DrainReplanned, DrainStarted, Fact, TriggerImpaired
from starlette_drain._core.order import Order
from starlette_drain._core.state import DrainState
from starlette_drain.drain import Drain
from starlette_drain.exceptions import IllegalTransition
from starlette_drain.meeting_place import MeetingPlace, NoMeetingPlace, find_meeting_place, find_supervisor
from starlette_drain.triggers.base import Control, Trigger

__all__ = ["Elected", "Workers"]

LOOK = 0.25
"""Seconds between two looks at what the others say."""


class Workers:
    """
    Makes the drains of all workers of one task one drain: a trigger that obeys, and an observer that gives orders.

    Args:
        drain: The drain of this worker.
        environ: The environment.
    """

    name = "workers"

    def __init__(self, drain: Drain, environ: Mapping[str, str] = os.environ) -> None:
        self._drain = drain
        self._environ = environ
        self._place: MeetingPlace | None = None
        self._settled = asyncio.Event()
        self._obeyed = 0
        self._is_obeying = False
        self._others: dict[int, dict[str, Any]] = {}
        self._scope = "worker"
        self._has_asked_to_exit = False

    # As a trigger

    async def watch(self, control: Control) -> None:
        """Meet the other workers for as long as the application runs."""
        self._place = self._find_place(control)
        self._settled.set()
        pid = os.getpid()
        try:
            while True:
                if self._place:
                    self._look_around(self._place, pid)
                self._exit_when_drained()
                await asyncio.sleep(LOOK)
        finally:
            self._settled.clear()
            if self._place:
                self._leave(self._place, pid)

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return how every worker stands, and the sum."""
        if not self._others:
            return {"scope": self._scope}
        everyone = {**self._others, os.getpid(): self._own_status()}
        total = {
            name: sum(each["sessions"][name] for each in everyone.values()) for name in self._own_status()["sessions"]
        }
        workers = [{"pid": pid, **each} for pid, each in sorted(everyone.items())]
        return {"scope": self._scope, "sessions": total, "workers": workers}

    # As an observer

    def notify(self, fact: Fact) -> None:
        """
        Give an order when a drain begins here, is brought forward, or is taken back.

        Being told to stop (SIGTERM) is each worker's own affair: a supervisor that wants all to stop tells all, and one
        that restarts them in turn (uvicorn's SIGHUP) must not find the others drained.
        """
        if self._is_obeying or self._place is None:
            return
        match fact:
            case DrainStarted() | DrainReplanned(shortened=True) if fact.cause.revocable:
                self._give_order(self._place, fact.cause, fact.deadline)
            case DrainCancelled():
                self._give_order(self._place, None, None)

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    # For the elected

    async def wait_elected(self, name: str) -> None:
        """Return when this worker is the one of the task that runs *name*."""
        await self._settled.wait()
        while self._place and not self._place.try_lock(name):  # noqa: ASYNC110 - the kernel sends no event
            await asyncio.sleep(4 * LOOK)

    # The works

    def _find_place(self, control: Control) -> MeetingPlace | None:
        supervisor = find_supervisor(self._environ)
        where = control.settings.workers_dir
        if supervisor is None and where is None:
            self._scope = "task"
            return None
        try:
            place = find_meeting_place(supervisor or os.getpid(), where)
        except NoMeetingPlace as error:
            remedy = "set workers_dir to a directory of mode 0700 that the workers share; until then /drain acts on "
            fact = TriggerImpaired(control.time(), self.name, str(error), f"{remedy}one worker only")
            control.tell(fact)
            return None
        self._scope = "task"
        return place

    def _look_around(self, place: MeetingPlace, pid: int) -> None:
        try:
            if order := place.read_order():
                self._obey(order)
            place.write_status(pid, self._own_status())
            self._others = place.read_statuses()
        except OSError:
            self._scope = "worker"
            return
        self._scope = "task"
        self._others.pop(pid, None)
        self._drain.divide(len(self._others) + 1)
        self._drain.open_elsewhere = sum(each["sessions"]["open"] for each in self._others.values())
        for status in self._others.values():
            if status["advised"] is not None:
                self._drain.advise(status["advised"])

    def _obey(self, order: Order) -> None:
        if order.number <= self._obeyed:
            return
        self._obeyed = order.number
        self._is_obeying = True
        try:
            if order.cause is not None:
                self._drain.request(order.cause)
            else:
                self._drain.withdraw()
        except IllegalTransition:
            pass  # this worker does not drain, or has been told to stop: there is nothing to take back
        finally:
            self._is_obeying = False

    def _leave(self, place: MeetingPlace, pid: int) -> None:
        with suppress(OSError):
            place.leave(pid)

    def _give_order(self, place: MeetingPlace, cause: DrainCause | None, deadline: float | None) -> None:
        try:
            with place.ordering() as latest:
                number = (latest.number if latest else 0) + 1
                binding = cause and DrainCause(
                    cause.trigger, cause.reason, cause.at, deadline, revocable=cause.revocable, lag=cause.lag
                )
                place.write_order(Order(number, binding))
                self._obeyed = number
        except OSError:
            self._scope = "worker"

    def _own_status(self) -> dict[str, Any]:
        counts = self._drain.statistics()
        progress = self._drain.progress()
        return {
            "state": self._drain.state.value,
            "sessions": {
                "open": counts.open,
                "waiting": counts.waiting,
                "held": counts.held,
                "leaving": counts.leaving,
            },
            "shed": progress.shed if progress else 0,
            "advised": self._drain.advised_window,
        }

    def _exit_when_drained(self) -> None:
        if not self._drain.settings.exit_when_drained or self._has_asked_to_exit:
            return
        others_are = all(each["state"] == DrainState.DRAINED.value for each in self._others.values())
        if self._drain.state is DrainState.DRAINED and others_are:
            self._has_asked_to_exit = True
            if self._place and not self._place.try_lock("exit"):
                return
            # A supervisor would start a worker again that ends by itself; it is the one to be told.
            os.kill(find_supervisor(self._environ) or os.getpid(), signal.SIGTERM)


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
