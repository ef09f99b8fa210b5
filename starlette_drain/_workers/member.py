# How the workers of one task agree.
#
# Each worker process has its own event loop, sessions and drain. When a claim begins, changes or ends a drain in one of
# them, that worker publishes a command to the log in their shared directory. The others read the log four times a
# second during a drain, and before every manual command, and apply what is new. A worker that starts later applies the
# claims that stand. All use the same deadline, because all processes of a machine share the monotonic clock.
#
# The log decides. A worker applies its own command at once and publishes it. If a command of another worker got into
# the log before it, the worker applies that one and then its own again. So all workers end up with the same claims.
#
# Each worker sheds its own sessions over the same window, so the sum is as even as each part. What a pacing promises
# for the task (a limit per second) is divided by the number of workers. A trigger that calls a remote API runs only in
# the leader (leader.py).
"""One worker of a task as a member of the group: what it publishes and applies, and the status of the others."""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.claims import Claims
from starlette_drain._core.events import TriggerImpaired, TriggerRestored, WorkersSeen
from starlette_drain._core.state import DrainState
from starlette_drain._engine.engine import Engine
from starlette_drain._workers.command import Cancel, Claim, Command, Withdraw, follow
from starlette_drain._workers.command_log import News
from starlette_drain._workers.exchange import Exchange, Problem, Received, problem_of
from starlette_drain._workers.exit import end, is_done
from starlette_drain._workers.file_thread import FileThread
from starlette_drain._workers.heartbeat import (
    SILENCE,
    Heartbeat,
    Latest,
    count,
    leader,
    reported,
    sums,
    task_state,
    watch,
)
from starlette_drain._workers.shared_directory import find_shared_directory, find_supervisor
from starlette_drain.exceptions import IllegalTransition

__all__ = ["NAME", "Member"]

NAME = "workers"
"""The name of the group in logs and in ``GET /drain``."""

INTERVAL = 0.25
"""Seconds between two exchanges during a drain."""

CALM = 0.5
"""Seconds between two exchanges while all workers serve. An exchange wakes two threads, which is most of its cost."""

IDLE = 1.0
"""Seconds between two exchanges while all workers serve and none has a session."""

SILENT = 5.0
"""Seconds without a heartbeat after which a worker counts as silent: it is blocked or suspended."""

SIGNAL_SPREAD = 0.5
"""Seconds in which, when a whole task stops, all workers have received the signal and published that."""

SLOW = 5.0
"""Seconds after which an exchange is reported as hanging."""

COMMAND_TIMEOUT = 1.0
"""Seconds that a manual command waits for the file system, once before it and once after it."""

HANGS = Problem(
    f"the shared directory has not answered for {SLOW:g} s",
    "set TMPDIR to a directory on a local file system; until then /drain acts on one worker only",
)
FAILED = "find the error in the log and report it; the next exchange tries again"

logger = logging.getLogger("starlette_drain")


class Member:
    """
    One worker during one lifetime.

    Args:
        engine: The engine of this worker.
        environ: The environment variables.
        pid: The process id of this worker; by default that of this process.
        directory: The parent of the shared directory; by default shared memory or the temporary directory, if the
            workers have a supervisor.
    """

    def __init__(
        self, engine: Engine, environ: Mapping[str, str], pid: int | None = None, directory: str | None = None
    ) -> None:
        # Read here, because with gunicorn's --preload the application is created in the arbiter.
        self.pid = pid or os.getpid()
        self.leads: set[str] = set()
        """The triggers that this worker runs as the leader."""
        self._engine = engine
        self._supervisor = supervisor = find_supervisor(environ)
        self._thread = FileThread()
        self._exchange: Exchange | None = None
        if supervisor is not None or directory is not None:
            self._exchange = Exchange(lambda: find_shared_directory(supervisor, directory, environ), self.pid)
        self._since: float | None = None
        self._unconfirmed: list[Command] = []
        """The commands of this worker that it has not read back from the log yet."""
        self._submitted = 0
        """How many of them were handed to the file thread."""
        self._applied = 0
        self._logged = Claims()
        """The claims that follow from the log, as far as it was read."""
        self._claimants: dict[str, int] = {}
        self._held: dict[str, DrainCause] = {}
        """The claims that triggers in this worker hold, even if another worker published them first."""
        self._others: dict[int, Heartbeat] = {}
        self._failures: dict[str, int] = {}
        self._window = Latest(engine.note_window)
        self._fleet = Latest(lambda seen: engine.note_fleet(**seen))
        self._sights: dict[str, tuple[str, float, str]] = {}
        self._rotation = Latest(engine.follow_rotation)
        self._own = self._heartbeat()
        self._looked_at = self._own.at
        self._seen: tuple[int, tuple[int, ...]] | None = None
        """The number of workers and the silent ones, as last emitted."""
        self._under_way: asyncio.Future[Any] | None = None
        self._hangs = False
        """Whether the current exchange has taken longer than `SLOW`."""
        self._publishing: asyncio.Future[Any] | None = None
        self._has_settled = False
        self._next: asyncio.Future[None] = engine.loop.create_future()
        self._impaired_at: float | None = None
        self._has_asked_to_exit = False
        self._has_left = False
        self._sharing: asyncio.Task[None] | None = None

    @property
    def is_in_group(self) -> bool:
        """Whether there may be other workers."""
        return self._exchange is not None

    @property
    def workers(self) -> int:
        """The number of workers in the group."""
        return self._engine.workers

    def speaks(self, task: str) -> bool:
        """Return whether this worker is, as far as it knows, the one that does *task* for all."""
        return self.leader_of(task) in (None, self.pid)

    async def run(self) -> None:
        """Exchange with the other workers until cancelled. It may be run again after an error."""
        self._has_left = False
        try:
            await self._meet()
            if self._exchange is None and not self._engine.settings.exit_when_drained:
                await self._engine.loop.create_future()
            while True:
                await asyncio.sleep(self._pause())
                await self._meet()
        finally:
            self._has_left = True
            if self._sharing is not None:
                self._sharing.cancel()
            if self._exchange is not None:
                leaving = self._engine.loop.run_in_executor(self._thread, self._exchange.leave, self._supervisor)
                self._thread.shutdown()
                await asyncio.wait((leaving,))

    def status(self, now: float) -> Mapping[str, Any]:
        """Return the status of every worker and their sums."""
        others = self._others
        if self._impaired_at is not None:  # keep workers whose files cannot be read for a moment
            others = {pid: each for pid, each in others.items() if now - each.at <= SILENCE}
        all_workers = {**others, self.pid: self._heartbeat()}
        silent = {pid for pid, each in others.items() if now - each.at > SILENT}
        states = [(each.state, not self._unconfirmed and each.applied >= self._applied) for each in others.values()]
        return {
            "scope": "task" if self._impaired_at is None and not silent else "worker",
            "state": task_state(self._engine.state.value, states),
            "watch": watch(dict(self._sights_of_leaders(all_workers)), now),
            **sums(all_workers.values()),
            "workers": [
                {"pid": pid, **each.shown(), "seconds_ago": round(now - each.at, 3)}
                | ({"silent": True} if pid in silent else {})
                for pid, each in sorted(all_workers.items())
            ],
        }

    def _sights_of_leaders(self, workers: Mapping[int, Heartbeat]) -> Iterator[tuple[str, tuple[str, float, str]]]:
        for trigger in {name for each in workers.values() for name in each.sights}:
            leader = self.leader_of(trigger)
            if leader is not None and (sight := workers[leader].sights.get(trigger)) is not None:
                yield trigger, sight

    # What this worker publishes

    def see(self, trigger: str, sight: tuple[str, float, str] | None) -> None:
        """Record whether *trigger* sees its source here: its state, since when, and why; ``None`` if it is off."""
        self._sights.pop(trigger, None)
        if sight is not None:
            self._sights[trigger] = sight

    def has_seen(self, trigger: str) -> bool:
        """Return whether *trigger* has reported here whether it sees its source."""
        return trigger in self._sights

    @property
    def place(self) -> int:
        """The place of the next command. Read it before you act, because observers of the act may act too."""
        return len(self._unconfirmed)

    def publish(self, command: Command, place: int) -> None:
        """Publish *command*, which was applied here, in its *place* among this worker's other commands."""
        if self._exchange is None or self._has_left:
            return
        if isinstance(command, Claim):
            self._claimants[command.cause.trigger] = self.pid
        self._unconfirmed.insert(place, command)
        self._engine.loop.call_soon(self._submit)

    def hold(self, cause: DrainCause) -> None:
        """Record that a trigger in this worker holds a claim."""
        self._held[cause.trigger] = cause

    def drop(self, trigger: str) -> bool:
        """Record that it holds none; return whether to withdraw it for the task: not if another worker holds it."""
        self._held.pop(trigger, None)
        return trigger in self.leads or not any(self._holds(pid, trigger) for pid in self._others)

    def _holds(self, pid: int, trigger: str) -> bool:
        """Return whether the worker *pid* holds a claim of *trigger*, as far as this one knows."""
        other, claim = self._others[pid], self._logged.of(trigger)
        if other.holds is not None and trigger in other.holds:
            return True
        # The last worker to publish the claim holds it, until a later heartbeat says otherwise.
        has_dropped = other.holds is not None and claim is not None and other.at > claim.at
        return self._claimants.get(trigger) == pid and not has_dropped

    async def refresh(self) -> None:
        """Read what the others have published; wait for at most `COMMAND_TIMEOUT`."""
        if self._exchange is not None and not self._hangs:
            await asyncio.wait((self._begin_exchange(self._exchange),), timeout=COMMAND_TIMEOUT)

    async def wait_published(self) -> None:
        """Wait until the others can read what was published here, for at most `COMMAND_TIMEOUT`."""
        self._submit()
        if self._publishing is not None and not self._hangs:
            await asyncio.wait((self._publishing,), timeout=COMMAND_TIMEOUT)

    async def wait_others_drained(self) -> bool:
        """
        Wait until the other workers have drained too; return False if this one serves again before that.

        A worker that was told to stop does not wait: the others may go on, and its exit must not be delayed.
        """
        while self._engine.state is DrainState.DRAINED:
            if self._impaired_at is not None or not self._engine.is_revocable or self._has_left:
                return True
            if self._agree() and all(each.state == DrainState.DRAINED.value for each in self._others.values()):
                return True
            await asyncio.shield(self._next)
        return False

    def share_window(self, stop: DrainCause) -> None:
        """
        Take only a share of the window for *stop* if only this worker was told to stop.

        A supervisor that replaces its workers one after the other waits for each, and handles its own SIGTERM only
        afterwards (uvicorn's SIGHUP). With a share each, all workers together take one window.
        """
        if self._exchange is not None and self._sharing is None:
            self._sharing = self._engine.loop.create_task(self._share_window(stop))

    async def _share_window(self, stop: DrainCause) -> None:
        await self.refresh()
        await asyncio.sleep(SIGNAL_SPREAD)
        await self.refresh()
        now = self._engine.time()
        stopping = [each.is_told_to_stop for each in self._others.values() if now - each.at <= SILENT]
        if stopping and stop.deadline is not None and all(each is False for each in stopping) and not self._has_left:
            ends = now + (stop.deadline - stop.at) / self.workers
            self._engine.claim(replace(stop, deadline=min(stop.deadline, ends)))

    # Leadership

    def leader_of(self, task: str) -> int | None:
        """Return the pid of the worker that does *task* for all; ``None`` before it is known."""
        if not self._has_settled:
            return None
        return leader(task, {**self._others, self.pid: self._own}, self._own.at)

    async def wait_elected(self, task: str) -> None:
        """Return when this worker is the leader of *task*."""
        while self.leader_of(task) != self.pid:
            await asyncio.shield(self._next)
        self.leads.add(task)

    async def wait_deposed(self, task: str) -> None:
        """Return when this worker is no longer the leader of *task*."""
        while self.leader_of(task) == self.pid:
            await asyncio.shield(self._next)
        self.leads.discard(task)

    def give_up(self, task: str) -> None:
        """Leave *task* to another worker: it has failed in this one."""
        self.leads.discard(task)
        self._failures[task] = self._failures.get(task, 0) + 1

    # The exchange

    async def _meet(self) -> None:
        """Do one exchange, and what follows from it."""
        if self._exchange is not None:
            if self._under_way is None or self._under_way.done():
                self._under_way = self._begin_exchange(self._exchange)
            await asyncio.wait((self._under_way,), timeout=SLOW)
            self._hangs = not self._under_way.done()
            if self._hangs:
                self._impair(HANGS)
                self._own = self._heartbeat()
        self._has_settled = True
        self._next.set_result(None)
        self._next = self._engine.loop.create_future()
        self._exit_when_drained()

    def _pause(self) -> float:
        """Return the seconds until the next exchange."""
        workers = (self._own, *self._others.values())
        if self._impaired_at is not None or any(each.state != DrainState.SERVING.value for each in workers):
            return INTERVAL
        return CALM if any(each.sessions["open"] for each in workers) else IDLE

    def _begin_exchange(self, exchange: Exchange) -> asyncio.Future[Received]:
        self._submit()
        self._own = self._heartbeat()
        self._since = self._own.since
        future = self._engine.loop.run_in_executor(self._thread, exchange.meet, self._own)
        # As a callback, because a caller that waits may be cancelled, and each command is read only once.
        future.add_done_callback(self._take_in)
        return future

    def _submit(self) -> None:
        """Hand the commands that were not submitted yet to the file thread."""
        commands = self._unconfirmed[self._submitted :]
        if commands and self._exchange is not None and not self._has_left:
            self._submitted = len(self._unconfirmed)
            self._publishing = self._engine.loop.run_in_executor(self._thread, self._exchange.publish, commands)
            self._publishing.add_done_callback(self._published)

    def _published(self, outcome: asyncio.Future[None]) -> None:
        if not outcome.cancelled() and (error := outcome.exception()) is not None:
            self._fail(error)

    def _take_in(self, outcome: asyncio.Future[Received]) -> None:
        if outcome.cancelled() or self._has_left:
            return
        try:
            received = outcome.result()
            self.apply(received)
        except Exception as error:  # noqa: BLE001 - it is logged; without further exchanges the whole task would be blind
            self._fail(error)
        else:
            if received.problem is not None:
                self._impair(received.problem)
            else:
                self._restore()

    def apply(self, received: Received) -> None:
        """Apply what the others have published, and record their status."""
        news = received.news
        del self._unconfirmed[: news.confirmed]
        self._submitted -= news.confirmed
        later = tuple(self._unconfirmed)
        try:
            if self._apply_entries(news):
                # These are later in the log than what was just applied.
                for command in later:
                    self._apply(command, self.pid)
            for claim in news.muted:
                self._logged.mute(claim)
                self._engine.mute(claim)
        finally:
            self._applied = max(self._applied, news.last)
        if received.heartbeats is not None:
            self._others = received.heartbeats
            self._engine.divide(len(self._others) + 1)
            # All workers see the same heartbeats, and the oldest worker stays the oldest while it lives.
            self._engine.group = repr(min(each.since for each in (self._own, *self._others.values())))
            self._engine.open_elsewhere = sum(each.sessions["open"] for each in self._others.values())
            self._engine.turnover.elsewhere = int(sum(each.counts["rotating"] for each in self._others.values()))
            for each in self._others.values():
                self._rotation.learn(each.rotation)
                self._window.learn(each.window)
                self._fleet.learn(each.fleet)
            self._look_for_silent()

    def _look_for_silent(self) -> None:
        now, before = self._own.at, self._looked_at
        self._looked_at = now
        if now - before > SILENT / 2:
            return  # this worker was stalled, perhaps with the whole machine: wait for the others to write
        silent = tuple(sorted(pid for pid, each in self._others.items() if now - each.at > SILENT))
        seen = len(self._others) + 1, silent
        if seen != self._seen:
            self._seen = seen
            self._engine.emit(WorkersSeen(now, *seen))

    def _apply_entries(self, news: News) -> bool:
        """Apply what is new in the log; return whether that included commands of other workers."""
        is_late = news.is_first and bool(news.entries)
        for entry in news.entries:
            # This worker's own commands are applied again only if another's came before them.
            is_late = is_late or entry.pid != self.pid
            if is_late:
                if entry.pid != self.pid and isinstance(entry.command, Claim) and not self._logged.standing:
                    self._engine.rename(entry.command.cause)  # it was the first of all claims
                self._apply(entry.command, entry.pid)
            follow(self._logged, entry.command)
        return is_late

    def _apply(self, command: Command, pid: int) -> None:
        engine = self._engine
        match command:
            case Claim(cause):
                self._claimants[cause.trigger] = pid
                if self._logged.of(cause.trigger) is None and engine.is_muted(cause.trigger):
                    engine.withdraw(cause.trigger)  # a cancellation that came before this claim must not mute it
                engine.claim(cause)
            case Withdraw(trigger):
                held = self._held.get(trigger)
                if pid != self.pid and held is not None and not engine.is_muted(trigger):
                    self.publish(Claim(held), self.place)  # the other worker could not know of it yet
                else:
                    engine.withdraw(trigger)
            case Cancel():
                with suppress(IllegalTransition):  # there is no drain, or the process was told to stop
                    engine.cancel()

    def _heartbeat(self) -> Heartbeat:
        engine = self._engine
        now, seen = engine.time(), engine.fleet_seen
        self._window.note(now, engine.advised_window)
        self._fleet.note(now, seen and seen._asdict())
        self._rotation.note(now, engine.turnover.order)
        sessions, counts = count(engine)
        return Heartbeat(
            at=now,
            since=now if self._since is None else self._since,
            applied=self._applied,
            state=engine.state.value,
            sessions=sessions,
            counts=counts,
            report=reported(engine),
            failures=dict(self._failures),
            window=self._window.found,
            fleet=self._fleet.found,
            is_done=is_done(engine),
            holds=sorted(self._held),
            is_told_to_stop=not engine.is_revocable,
            sights=dict(self._sights),
            admission=engine.admission.status() if engine.admission is not None else None,
            rotation=self._rotation.found,
        )

    def _agree(self) -> bool:
        """Return whether, as far as this worker knows, all workers have applied all commands."""
        return not self._unconfirmed and all(each.applied >= self._applied for each in self._others.values())

    def _fail(self, error: BaseException) -> None:
        """Report *error*; the next exchange tries again."""
        if isinstance(error, OSError):
            self._impair(problem_of(error))
            return
        if self._impaired_at is None:
            logger.error("An exchange with the other workers failed; the next one tries again", exc_info=error)
        self._impair(Problem(f"an exchange with the other workers failed: {error!r}", FAILED))

    def _impair(self, problem: Problem) -> None:
        if self._impaired_at is None:
            self._impaired_at = self._engine.time()
            self._engine.emit(TriggerImpaired(self._impaired_at, NAME, problem.text, problem.remedy))

    def _restore(self) -> None:
        if self._impaired_at is not None:
            seconds, self._impaired_at = self._engine.time() - self._impaired_at, None
            self._engine.emit(TriggerRestored(self._engine.time(), NAME, seconds))

    def _exit_when_drained(self) -> None:
        """Stop the task when all workers are done: signal the supervisor, which would replace a worker that ends."""
        if self._has_asked_to_exit or not self._engine.settings.exit_when_drained or not is_done(self._engine):
            return
        if self._impaired_at is not None or self.leader_of("exit") != self.pid:
            return
        if self._agree() and all(each.is_done for each in self._others.values()):
            self._has_asked_to_exit = True
            end(self._engine, self._supervisor or self.pid)
