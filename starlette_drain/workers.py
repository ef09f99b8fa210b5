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
from dataclasses import replace
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.facts import (
    DrainCancelled,
    DrainReplanned,
    DrainStarted,
    Fact,
    TriggerImpaired,
    TriggerRestored,
)
from starlette_drain._core.order import Order
from starlette_drain._core.state import DrainState
from starlette_drain.drain import Drain
from starlette_drain.exceptions import IllegalTransition
from starlette_drain.meeting_place import MeetingPlace, find_meeting_place, find_supervisor
from starlette_drain.triggers.base import Control

__all__ = ["Workers"]

LOOK = 0.25
"""Seconds between two looks at what the others say."""

SILENCE = 20.0
"""Seconds after which a worker that says nothing is taken to hang."""

REMEDY = "set workers_dir to a directory of mode 0700 that the workers share; until then /drain acts on one worker only"

Status = dict[str, Any]


class Workers:
    """
    Makes the drains of all workers of one task one drain: a trigger that obeys, and an observer that gives orders.

    Args:
        drain: The drain of this worker.
        environ: The environment.
        pid: The process id of this worker.
    """

    name = "workers"
    hears = (DrainStarted, DrainReplanned, DrainCancelled)

    def __init__(self, drain: Drain, environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> None:
        self._drain = drain
        self._environ = environ
        self._given_pid = pid
        self._reset()

    def _reset(self) -> None:
        self._pid = self._given_pid or os.getpid()
        self._supervisor: int | None = None
        self._place: MeetingPlace | None = None
        self._settled = asyncio.Event()
        self._elected: set[str] = set()
        self._has_come = False
        self._obeyed = 0
        self._is_obeying = False
        self._unsaid: tuple[DrainCause | None, float | None] | None = None
        self._others: dict[int, Status] = {}
        self._impaired_at: float | None = None
        self._has_asked_to_exit = False

    # As a trigger

    async def watch(self, control: Control) -> None:
        """Meet the other workers for as long as the application runs."""
        try:
            self._place = self._find_place(control)
            while True:
                if self._place:
                    self._look_around(self._place)
                self._settled.set()
                self._exit_when_drained()
                await asyncio.sleep(LOOK)
        finally:
            if self._place:
                with suppress(OSError):
                    self._place.leave(self._pid)
            self._settled.set()
            self._reset()

    def status(self, now: float) -> Mapping[str, Any]:
        """Return how every worker stands, and the sum."""
        scope = "task" if self._impaired_at is None else "worker"
        if not self._others:
            return {"scope": scope}
        everyone = {**self._others, self._pid: self._own_status()}
        shown = [each["shown"] for each in everyone.values()]
        workers = [
            {"pid": pid, **each["shown"], "seconds_ago": round(now - each["at"], 3)}
            for pid, each in sorted(everyone.items())
        ]
        return {"scope": scope, **_sum(shown), "workers": workers}

    # As an observer

    def notify(self, fact: Fact) -> None:
        """
        Give an order when a drain begins here, another cause joins it, or it is taken back.

        A cause that shortens nothing counts too: a trigger takes back only the drain that it alone has asked for.
        Being told to stop (SIGTERM) is each worker's own affair: a supervisor that wants all to stop tells all, and one
        that restarts them in turn (uvicorn's SIGHUP) must not find the others drained.
        """
        if self._is_obeying or self._place is None:
            return
        match fact:
            case DrainStarted() | DrainReplanned():
                if fact.cause.revocable or fact.cause.trigger in self._elected:
                    self._give_order(self._place, fact.cause, fact.deadline)
            case DrainCancelled():
                self._give_order(self._place, None, None)

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    # For the drain, and for the elected

    async def wait_others(self) -> bool:
        """Wait until the other workers have drained too; return False where this one serves again meanwhile."""
        while self._drain.state is DrainState.DRAINED:
            others = self._others.values()
            if all(each["shown"]["state"] == "drained" and each["order"] >= self._obeyed for each in others):
                return True
            await asyncio.sleep(LOOK)
        return False

    async def wait_elected(self, name: str) -> None:
        """Return when this worker is the one of the task that runs *name*."""
        await self._settled.wait()
        while not self._wins(name):  # noqa: ASYNC110 - the kernel sends no event
            await asyncio.sleep(4 * LOOK)
        self._elected.add(name)

    # The works

    def _find_place(self, control: Control) -> MeetingPlace | None:
        self._supervisor = find_supervisor(self._environ)
        where = control.settings.workers_dir
        if self._supervisor is None and where is None:
            return None
        try:
            return find_meeting_place(self._supervisor, where)
        except OSError as error:
            self._impair(error)
            return None

    def _look_around(self, place: MeetingPlace) -> None:
        try:
            place.write_status(self._pid, self._own_status())
            if not self._has_come:
                self._has_come = True
                taken_back = (order.number for order in place.read_orders(0) if order.cause is None)
                self._obeyed = max(taken_back, default=0)  # what was over before we came is no news
            for order in place.read_orders(self._obeyed):
                self._obey(order)
            self._others = place.read_statuses()
            self._others.pop(self._pid, None)
            self._heed_others()
        except (OSError, ValueError) as error:
            self._others = {}
            self._impair(error)
            return
        if self._impaired_at is not None:
            seconds, self._impaired_at = self._drain.time() - self._impaired_at, None
            self._drain.tell(TriggerRestored(self._drain.time(), self.name, seconds))
        if self._unsaid:
            self._give_order(place, *self._unsaid)

    def _heed_others(self) -> None:
        if any(each.keys() != self._own_status().keys() for each in self._others.values()):
            msg = "the workers run different versions of starlette_drain and do not understand each other"
            raise ValueError(msg)
        self._drain.divide(len(self._others) + 1)
        self._drain.open_elsewhere = sum(each["shown"]["sessions"]["open"] for each in self._others.values())
        for each in self._others.values():
            if each["advised"] is not None and not self._elected:
                self._drain.advise(each["advised"])
            if each["fleet"] is not None and not self._elected:
                self._drain.fleet(**each["fleet"])

    def _impair(self, error: Exception) -> None:
        if self._impaired_at is None:
            self._impaired_at = self._drain.time()
            self._drain.tell(TriggerImpaired(self._impaired_at, self.name, str(error) or repr(error), REMEDY))

    def _obey(self, order: Order) -> None:
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

    def _give_order(self, place: MeetingPlace, cause: DrainCause | None, deadline: float | None) -> None:
        self._unsaid = None
        try:
            order = Order(place.last_number() + 1, cause and replace(cause, deadline=deadline))
            while not place.write_order(order):  # somebody else has given that number in the same moment
                order = replace(order, number=order.number + 1)
        except OSError as error:
            self._unsaid = cause, deadline
            self._impair(error)
            return
        # Where others have given orders meanwhile, this one too is obeyed in its turn: all obey the same, in one order.
        if order.number == self._obeyed + 1:
            self._obeyed = order.number

    def _own_status(self) -> Status:
        counts, progress = self._drain.statistics(), self._drain.progress()
        sessions = {name: getattr(counts, name) for name in ("open", "waiting", "held", "leaving")}
        sums = {name: getattr(progress, name) if progress else 0 for name in ("shed", "left", "refused", "forced")}
        seen = self._drain.fleet_seen if self._elected else None
        state, transfers = self._drain.state.value, len(self._drain.transfers)
        return {
            "shown": {"state": state, "sessions": sessions, "transfers": transfers, **sums},
            "at": self._drain.time(),
            "order": self._obeyed,
            "elected": sorted(self._elected),
            "advised": self._drain.advised_window if self._elected else None,
            "fleet": seen._asdict() if seen else None,
            "is_done": self._is_done(),
        }

    def _wins(self, name: str) -> bool:
        if self._place is None:
            return True
        now = self._drain.time()
        try:
            return self._place.try_lock(name) or any(
                name in each["elected"] and now - each["at"] > SILENCE for each in self._others.values()
            )
        except OSError:
            return True  # better all watch than none

    def _is_done(self) -> bool:
        """Tell whether there is no reason to live on: nobody is there, nobody may come, and nobody has said so yet."""
        progress = self._drain.progress()
        if progress is None or self._drain.state is not DrainState.DRAINED or self._drain.admits():
            return False
        is_told_to_stop = not all(cause.revocable for cause in progress.causes)
        return not is_told_to_stop and (len(self._drain.transfers) == 0 or progress.time_left == 0.0)

    def _exit_when_drained(self) -> None:
        if not self._drain.settings.exit_when_drained or self._has_asked_to_exit or not self._is_done():
            return
        if self._impaired_at is not None or not all(each["is_done"] for each in self._others.values()):
            return
        self._has_asked_to_exit = True
        if self._supervisor is None:
            os.kill(self._pid, signal.SIGTERM)
        elif self._place and self._place.try_lock("exit"):
            # A supervisor would start a worker again that ends by itself, so it is the one to be told; once.
            os.kill(self._supervisor, signal.SIGTERM)


def _sum(shown: list[Status]) -> Status:
    sessions = {name: sum(each["sessions"][name] for each in shown) for name in shown[0]["sessions"]}
    counts = {name: sum(each[name] for each in shown) for name in shown[0] if name not in ("state", "sessions")}
    return {"sessions": sessions, **counts}
