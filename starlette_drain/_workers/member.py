# How the workers of one task agree.
#
# Each worker process has its own event loop, sessions and drain. When a claim begins, changes or ends a drain in one of
# them, that worker publishes a command to the log in their shared directory. The others read the log four times a
# second, and before every command by hand, and apply what is new. A worker that starts half-way applies the claims that
# stand. All keep to one deadline, since the monotonic clock is the machine's: a moment in one process is the same in
# another.
#
# The log decides. What a worker does itself it does at once, and publishes it; if a command of another worker got into
# the log before that, it applies that one and then its own again. So all end up with the claims that the log leads to.
#
# Each worker sheds its own sessions over the same window, so the sum is as even as each part. What a pacing promises
# for the task (a limit per second) is divided by the number of workers, and a trigger that calls somebody else's API
# runs in the leader only (leader.py).
"""One worker of a task, as part of the group: what it publishes, what it applies, and how the others stand."""

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
"""What the agreement is called in logs and in ``GET /drain``."""

INTERVAL = 0.25
"""Seconds between two exchanges."""

CALM = 0.5
"""The same while all serve: each exchange wakes two threads, which is most of what it costs."""

IDLE = 1.0
"""The same while there is no session either, which a drain would ask to leave."""

SILENT = 5.0
"""Seconds without a heartbeat after which nothing is claimed of a worker: it stalls, hangs or was stopped."""

TELLING = 0.5
"""Seconds in which all workers of a task that stops have been told to, and have let the others know."""

SLOW = 5.0
"""Seconds after which an exchange is taken to hang."""

COMMAND_TIMEOUT = 1.0
"""Seconds that a command by hand waits for the file system, before it and after it."""

HANGS = Problem(
    f"the shared directory has not answered for {SLOW:g} s",
    "set TMPDIR to a directory on a local file system; until then /drain acts on one worker only",
)
FAILED = "look into the log for the error and report it; the next exchange tries again"

logger = logging.getLogger("starlette_drain")


class Member:
    """
    One worker during one lifetime.

    Args:
        engine: The engine of this worker.
        environ: The environment.
        pid: The process id of this worker; by default that of this process.
        directory: Where the workers meet; by default in the temporary directory, if they have a supervisor.
    """

    def __init__(
        self, engine: Engine, environ: Mapping[str, str], pid: int | None = None, directory: str | None = None
    ) -> None:
        # With gunicorn's --preload the application is made in the arbiter; a lifetime begins in the worker.
        self.pid = pid or os.getpid()
        self.leads: set[str] = set()
        """The triggers that this worker runs for all."""
        self._engine = engine
        self._supervisor = supervisor = find_supervisor(environ)
        self._thread = FileThread()
        self._exchange: Exchange | None = None
        if supervisor is not None or directory is not None:
            self._exchange = Exchange(lambda: find_shared_directory(supervisor, directory, environ), self.pid)
        self._since: float | None = None
        self._unconfirmed: list[Command] = []
        """The commands of this worker that it has not read back from the log."""
        self._submitted = 0
        """How many of them were handed to the thread."""
        self._applied = 0
        self._logged = Claims()
        """The claims that the log leads to, as far as it was read."""
        self._claimants: dict[str, int] = {}
        self._held: dict[str, DrainCause] = {}
        """The claims that triggers of this very worker hold, no matter which worker published them first."""
        self._others: dict[int, Heartbeat] = {}
        self._failures: dict[str, int] = {}
        self._window = Latest(engine.note_window)
        self._fleet = Latest(lambda seen: engine.note_fleet(**seen))
        self._sights: dict[str, tuple[str, float, str]] = {}
        self._rotation = Latest(engine.follow_rotation)
        self._own = self._heartbeat()
        self._looked_at = self._own.at
        self._seen: tuple[int, tuple[int, ...]] | None = None
        """How many workers there are, and which are silent, as was last emitted."""
        self._under_way: asyncio.Future[Any] | None = None
        self._hangs = False
        """Whether the exchange under way is one that takes longer than any file system should."""
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
        """How many workers the group has."""
        return self._engine.workers

    def speaks(self, task: str) -> bool:
        """Return whether this worker does *task* for all, as far as is known."""
        return self.leader_of(task) in (None, self.pid)

    async def run(self) -> None:
        """Meet the other workers for as long as the application runs; again where an error has ended that."""
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
        """Return how every worker stands, and their numbers together; of this worker alone if it is on its own."""
        others = self._others
        if self._impaired_at is not None:  # a file that cannot be read for a moment makes no worker's sessions vanish
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

    # What this worker does, and the others have to know

    def see(self, trigger: str, sight: tuple[str, float, str] | None) -> None:
        """Take note how *trigger* sees its source here: its state, since when, and why; ``None`` where it is off."""
        self._sights.pop(trigger, None)
        if sight is not None:
            self._sights[trigger] = sight

    @property
    def place(self) -> int:
        """The place of the next command: take it before you act, since what is told of the act may act again."""
        return len(self._unconfirmed)

    def publish(self, command: Command, place: int) -> None:
        """Publish *command*, which has been done here, in its *place* among the others."""
        if self._exchange is None or self._has_left:
            return
        if isinstance(command, Claim):
            self._claimants[command.cause.trigger] = self.pid
        self._unconfirmed.insert(place, command)
        self._engine.loop.call_soon(self._submit)

    def hold(self, cause: DrainCause) -> None:
        """Take note that a trigger of this very worker holds a claim."""
        self._held[cause.trigger] = cause

    def drop(self, trigger: str) -> bool:
        """Take note that it holds none; return whether that is the task's: not while another worker still holds it."""
        self._held.pop(trigger, None)
        return trigger in self.leads or not any(self._holds(pid, trigger) for pid in self._others)

    def _holds(self, pid: int, trigger: str) -> bool:
        """Return whether another worker holds a claim of *trigger*, as far as is known."""
        other, claim = self._others[pid], self._logged.of(trigger)
        if other.holds is not None and trigger in other.holds:
            return True
        # What it published last is its own, until a heartbeat that came later says otherwise.
        has_said = other.holds is not None and claim is not None and other.at > claim.at
        return self._claimants.get(trigger) == pid and not has_said

    async def refresh(self) -> None:
        """Read now what the others have published, for a second at most."""
        if self._exchange is not None and not self._hangs:
            await asyncio.wait((self._begin_exchange(self._exchange),), timeout=COMMAND_TIMEOUT)

    async def wait_published(self) -> None:
        """Wait until the others can read what was published here, for a second at most."""
        self._submit()
        if self._publishing is not None and not self._hangs:
            await asyncio.wait((self._publishing,), timeout=COMMAND_TIMEOUT)

    async def wait_others_drained(self) -> bool:
        """
        Wait until the other workers have drained too; return False if this one serves again meanwhile.

        If this one was told to stop it waits for none: the others go on, and it must not be held up.
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
        Take only a share of the window for *stop* where this worker alone was told to stop.

        A supervisor that replaces its workers in turn waits for each, and hears of its own SIGTERM only then
        (uvicorn's SIGHUP). With a share each, all of them take one window, at the pace of a task that stops.
        """
        if self._exchange is not None and self._sharing is None:
            self._sharing = self._engine.loop.create_task(self._share_window(stop))

    async def _share_window(self, stop: DrainCause) -> None:
        await self.refresh()
        await asyncio.sleep(TELLING)
        await self.refresh()
        now = self._engine.time()
        told = [each.is_told_to_stop for each in self._others.values() if now - each.at <= SILENT]
        if told and stop.deadline is not None and all(each is False for each in told) and not self._has_left:
            ends = now + (stop.deadline - stop.at) / self.workers
            self._engine.claim(replace(stop, deadline=min(stop.deadline, ends)))

    # What one worker does for all

    def leader_of(self, task: str) -> int | None:
        """Return the pid of the worker that does *task*; ``None`` before it is known."""
        if not self._has_settled:
            return None
        return leader(task, {**self._others, self.pid: self._own}, self._own.at)

    async def wait_elected(self, task: str) -> None:
        """Return when this worker is the one that does *task*."""
        while self.leader_of(task) != self.pid:
            await asyncio.shield(self._next)
        self.leads.add(task)

    async def wait_deposed(self, task: str) -> None:
        """Return when this worker is that one no longer."""
        while self.leader_of(task) == self.pid:
            await asyncio.shield(self._next)
        self.leads.discard(task)

    def give_up(self, task: str) -> None:
        """Leave *task* to another worker: it has failed in this one."""
        self.leads.discard(task)
        self._failures[task] = self._failures.get(task, 0) + 1

    # The exchange

    async def _meet(self) -> None:
        """Have one exchange, and do what follows from it."""
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
        # Not where it is awaited: the caller may be cancelled, and each command is read only once.
        future.add_done_callback(self._take_in)
        return future

    def _submit(self) -> None:
        """Have written what was not submitted yet."""
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
        except Exception as error:  # noqa: BLE001 - it is logged; what stops the exchanges would blind the whole task
            self._fail(error)
        else:
            if received.problem is not None:
                self._impair(received.problem)
            else:
                self._restore()

    def apply(self, received: Received) -> None:
        """Do what the others have published, and take note of how they stand."""
        news = received.news
        del self._unconfirmed[: news.confirmed]
        self._submitted -= news.confirmed
        later = tuple(self._unconfirmed)
        try:
            if self._apply_entries(news):
                # They come later in the log than what was just applied.
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
            # All workers see the same heartbeats, and the oldest stays the oldest for as long as it lives.
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
            return  # this worker stalled itself, perhaps with the whole machine: the others have yet to write
        silent = tuple(sorted(pid for pid, each in self._others.items() if now - each.at > SILENT))
        seen = len(self._others) + 1, silent
        if seen != self._seen:
            self._seen = seen
            self._engine.emit(WorkersSeen(now, *seen))

    def _apply_entries(self, news: News) -> bool:
        """Apply what is new in the log; return whether that was more than what this worker has done itself."""
        is_late = news.is_first and bool(news.entries)
        for entry in news.entries:
            # What this worker has done itself is done again only if something came before it.
            is_late = is_late or entry.pid != self.pid
            if is_late:
                if entry.pid != self.pid and isinstance(entry.command, Claim) and not self._logged.standing:
                    self._engine.rename(entry.command.cause)  # of all claims it was the first
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
                    self.publish(Claim(held), self.place)  # the other one could not know yet
                else:
                    engine.withdraw(trigger)
            case Cancel():
                with suppress(IllegalTransition):  # it does not drain, or was told to stop: nothing to cancel
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
        """Return whether all workers have applied all commands, as far as this one knows."""
        return not self._unconfirmed and all(each.applied >= self._applied for each in self._others.values())

    def _fail(self, error: BaseException) -> None:
        """Go on after an *error*, whatever it is: the next exchange tries again."""
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
        """Tell the process to end when all are done; or the supervisor, which would start a worker again."""
        if self._has_asked_to_exit or not self._engine.settings.exit_when_drained or not is_done(self._engine):
            return
        if self._impaired_at is not None or self.leader_of("exit") != self.pid:
            return
        if self._agree() and all(each.is_done for each in self._others.values()):
            self._has_asked_to_exit = True
            end(self._engine, self._supervisor or self.pid)
