# How the workers of one task agree.
#
# Each worker process has its own event loop, sessions and Drain. Whatever starts a drain in one of them is written down
# as an order in their meeting place; the others look there four times a second, and before anybody asks them for
# something, and obey. A worker that is started again half-way finds the orders waiting. All keep to the same deadline:
# the monotonic clock is the machine's, so the moments of one process mean the same in another.
#
# Each sheds its own sessions over the same window, so the sum is as even as each part. What a strategy promises for the
# task (a limit per second) is divided by the number of workers, and a trigger that costs calls to somebody else's API
# runs in one worker at a time (words.py tells in which).
"""Agreement between the worker processes of one task."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import (
    DrainCancelled,
    DrainReplanned,
    DrainStarted,
    Event,
    TriggerImpaired,
    TriggerRestored,
)
from starlette_drain._core.state import DrainState
from starlette_drain._engine.drain import Drain
from starlette_drain._workers.command_log import CommandLog
from starlette_drain._workers.exit import end, is_done, is_told_to_stop
from starlette_drain._workers.heartbeat import Heartbeat, Latest, count, leader, sums, understand
from starlette_drain._workers.shared_directory import SharedDirectory, find_shared_directory, find_supervisor
from starlette_drain.triggers.base import Control

__all__ = ["Workers"]

LOOK = 0.25
"""Seconds between two looks at what the others say."""

REMEDY = "set workers_dir to a directory of mode 0700 that the workers share; until then /drain acts on one worker only"


class Workers:
    """
    Makes the drains of all workers of one task one drain: a trigger that obeys, and an observer that gives orders.

    Args:
        drain: The drain of this worker.
        environ: The environment.
        pid: The process id of this worker; by default that of the process in which it watches.
    """

    name = "workers"
    subscribes = (DrainStarted, DrainReplanned, DrainCancelled)

    def __init__(self, drain: Drain, environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> None:
        self._drain = drain
        self._environ = environ
        self._given_pid = pid
        self._advice = Latest(drain.advise)
        self._fleet = Latest(lambda seen: drain.fleet(**seen))
        self._reset()

    def _reset(self) -> None:
        self.pid = self._given_pid or os.getpid()
        self._supervisor: int | None = None
        self._place: SharedDirectory | None = None
        self._settled = asyncio.Event()
        self._since: float | None = None
        self._orders = CommandLog(self._drain)
        self._others: dict[int, Heartbeat] = {}
        self._elected: set[str] = set()
        self._failed: set[str] = set()
        self._impaired_at: float | None = None
        self._has_asked_to_exit = False

    # As a trigger

    async def watch(self, control: Control) -> None:
        """Meet the other workers for as long as the application runs."""
        self.pid = self._given_pid or os.getpid()  # with gunicorn's --preload we were made in the arbiter
        try:
            self._place = self._find_place(control)
            while True:
                self.look()
                self._settled.set()
                self._exit_when_drained()
                await asyncio.sleep(LOOK)
        finally:
            if self._place:
                with suppress(OSError, ValueError):
                    self._place.leave(self.pid, self._supervisor)
            self._settled.set()
            self._reset()

    def status(self, now: float) -> Mapping[str, Any]:
        """Return how every worker stands, and the sum."""
        if self._impaired_at is not None:
            return {"scope": "worker"}
        if not self._others:
            return {"scope": "task"}
        words = self._words()
        workers = [
            {"pid": pid, **word.shown(), "seconds_ago": round(now - word.at, 3)} for pid, word in sorted(words.items())
        ]
        return {"scope": "task", **sums(words.values()), "workers": workers}

    # As an observer

    def notify(self, event: Event) -> None:
        """
        Give an order when a drain begins here, is joined by a further cause, or is taken back.

        A cause that shortens nothing counts too: a trigger takes back only the drain that it alone has asked for.
        Being told to stop (SIGTERM) is each worker's own affair: a supervisor that wants all to stop tells all, and one
        that restarts them in turn (uvicorn's SIGHUP) must not find the others drained.
        """
        if self._orders.is_obeying:
            return
        match event:
            case DrainStarted() | DrainReplanned():
                if event.cause.revocable or event.cause.trigger in self._elected:
                    self._give_order(replace(event.cause, deadline=event.deadline))
            case DrainCancelled():
                self._give_order(None)

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    # For the drain

    def look(self) -> None:
        """Hear now what the others say, and obey it."""
        if self._place is None:
            return
        try:
            self._meet(self._place)
        except (OSError, ValueError) as error:
            self._impair(error)
        else:
            self._mend()

    async def wait_others(self) -> bool:
        """
        Wait until the other workers have drained too; return False where this one serves again meanwhile.

        Where this one has been told to stop, nobody is waited for: the others go on, and it is not to be held up.
        """
        while self._drain.state is DrainState.DRAINED:
            words = self._others.values()
            if self._impaired_at is not None or is_told_to_stop(self._drain):
                return True
            if all(word.state == DrainState.DRAINED.value and word.order >= self._orders.obeyed for word in words):
                return True
            await asyncio.sleep(LOOK)
        return False

    # For the elected

    def who_watches(self, name: str) -> int | None:
        """Return the pid of the worker that runs the trigger *name*; ``None`` before it is known, or if all failed."""
        return leader(name, self._words(), self._drain.time()) if self._settled.is_set() else None

    async def wait_elected(self, name: str) -> None:
        """Return when this worker is the one of the task that runs the trigger *name*."""
        await self._settled.wait()
        while self.who_watches(name) != self.pid:  # noqa: ASYNC110 - the file system sends no event
            await asyncio.sleep(LOOK)
        self._elected.add(name)

    async def wait_deposed(self, name: str) -> None:
        """Return when this worker is that one no longer."""
        while self.who_watches(name) == self.pid:  # noqa: ASYNC110 - the file system sends no event
            await asyncio.sleep(LOOK)
        self._elected.discard(name)

    def give_up(self, name: str) -> None:
        """Leave the trigger *name* to another worker: it has failed in this one."""
        self._elected.discard(name)
        self._failed.add(name)

    # The works

    def _find_place(self, control: Control) -> SharedDirectory | None:
        self._supervisor = find_supervisor(self._environ)
        where = control.settings.workers_dir
        if self._supervisor is None and where is None:
            return None
        try:
            return find_shared_directory(self._supervisor, where)
        except (OSError, ValueError) as error:
            self._impair(error)
            return None

    def _meet(self, place: SharedDirectory) -> None:
        if self._since is None:
            self._orders.begin(place)
            self._since = self._drain.time()
        place.write_status(self.pid, asdict(self._own_word()))
        self._orders.obey(place)
        statuses = place.read_statuses()
        statuses.pop(self.pid, None)
        self._others = understand(statuses)
        self._heed_others()
        self._orders.give(place)

    def _heed_others(self) -> None:
        words = self._others.values()
        self._drain.divide(len(words) + 1)
        self._drain.open_elsewhere = sum(word.sessions["open"] for word in words)
        for word in words:
            self._advice.hear(word.advice)
            self._fleet.hear(word.fleet)

    def _give_order(self, cause: DrainCause | None) -> None:
        """Give an order now, or as soon as there is a place for it."""
        if self._place is None and self._settled.is_set():
            return
        self._orders.keep(cause)
        if self._place:
            try:
                self._orders.give(self._place)
            except OSError as error:
                self._impair(error)

    def _words(self) -> dict[int, Heartbeat]:
        return {**self._others, self.pid: self._own_word()}

    def _own_word(self) -> Heartbeat:
        now, seen = self._drain.time(), self._drain.fleet_seen
        self._advice.note(now, self._drain.advised_window)
        self._fleet.note(now, seen and seen._asdict())
        sessions, counts = count(self._drain)
        return Heartbeat(
            at=now,
            since=now if self._since is None else self._since,
            order=self._orders.obeyed,
            state=self._drain.state.value,
            sessions=sessions,
            counts=counts,
            failed=sorted(self._failed),
            advice=self._advice.found,
            fleet=self._fleet.found,
            is_done=is_done(self._drain),
        )

    def _impair(self, error: Exception) -> None:
        if self._impaired_at is None:
            self._impaired_at = self._drain.time()
            self._drain.emit(TriggerImpaired(self._impaired_at, self.name, str(error) or repr(error), REMEDY))

    def _mend(self) -> None:
        if self._impaired_at is not None:
            seconds, self._impaired_at = self._drain.time() - self._impaired_at, None
            self._drain.emit(TriggerRestored(self._drain.time(), self.name, seconds))

    def _exit_when_drained(self) -> None:
        """Tell the process to end when all are done; or the supervisor, which would start a worker again."""
        if self._has_asked_to_exit or not self._drain.settings.exit_when_drained or not is_done(self._drain):
            return
        if self._impaired_at is not None or self.who_watches("exit") != self.pid:
            return
        if all(word.is_done and word.order >= self._orders.obeyed for word in self._others.values()):
            self._has_asked_to_exit = True
            end(self._drain, self._supervisor or self.pid)
