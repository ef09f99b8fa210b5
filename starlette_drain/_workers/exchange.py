"""The exchange with the other workers: all use of files, in a separate thread."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from starlette_drain._core.state import DrainState
from starlette_drain._workers.command import Command, fold
from starlette_drain._workers.command_log import CommandLog, News
from starlette_drain._workers.heartbeat import Heartbeat
from starlette_drain._workers.shared_directory import SharedDirectory

__all__ = ["Exchange", "Problem", "Received", "problem_of"]

BEAT = 1.0
"""Seconds between two heartbeats of a worker with no news but changed counts."""

COUNTS = frozenset({"sessions", "counts", "admission"})
"""The fields that may be out of date for `BEAT` seconds while a worker serves."""

EVERYTHING = frozenset(each.name for each in fields(Heartbeat))

SERVING = DrainState.SERVING.value

NO_DIRECTORY = (
    "set TMPDIR to a directory that the workers share and can write; until then /drain acts on one worker only"
)
NO_FILE = "remove the file, or run one version in all workers; until then this worker may miss what the others do"


class Problem(NamedTuple):
    """Why the workers cannot exchange, and the remedy."""

    text: str
    remedy: str


@dataclass(slots=True)
class Received:
    """
    What a worker has read in one exchange.

    Attributes:
        news: The new commands.
        heartbeats: The heartbeats of the other workers, by pid; ``None`` if they could not be read.
        problem: The first problem, if there was one.
    """

    news: News = field(default_factory=News)
    heartbeats: dict[int, Heartbeat] | None = None
    problem: Problem | None = None


class Exchange:
    """
    Publishes commands and heartbeats of this worker, and reads those of the others. It is used by one thread.

    Args:
        find: Creates or enters the shared directory.
        pid: The process id of this worker.
    """

    def __init__(self, find: Callable[[], SharedDirectory], pid: int) -> None:
        self._find = find
        self._pid = pid
        self._directory: SharedDirectory | None = None
        self._log = CommandLog(pid)
        self._written: Heartbeat | None = None
        self._beat_at = float("-inf")

    def publish(self, commands: Iterable[Command]) -> None:
        """
        Write *commands* and those that could not be written before.

        Raises:
            OSError: If they cannot be written now. The next exchange tries again.
        """
        self._log.keep(commands)
        self._log.write(self._enter())

    def meet(self, heartbeat: Heartbeat) -> Received:
        """Read commands and heartbeats, then publish *heartbeat*. If one step fails, the others are still done."""
        received = Received()
        try:
            directory = self._enter()
        except OSError as error:
            received.problem = problem_of(error)
            return received
        for step in (self._read_commands, self._read_workers, self._publish):
            try:
                step(directory, heartbeat, received)
            except OSError as error:
                received.problem = received.problem or problem_of(error)
        return received

    def leave(self, supervisor: int | None) -> None:
        """Leave the group: remove the files of this worker."""
        if self._directory is not None:
            with suppress(OSError):
                self._log.read(self._directory)
                is_draining = bool(fold(each.command for each in self._log.entries).standing)
                self._directory.leave(self._pid, supervisor, is_draining=is_draining)
            self._directory.spares.close()

    def _enter(self) -> SharedDirectory:
        if self._directory is None:
            self._directory = self._find()
        else:
            self._directory.enter()  # the last worker that left may have removed it
        return self._directory

    def _publish(self, directory: SharedDirectory, heartbeat: Heartbeat, received: Received) -> None:  # noqa: ARG002
        try:
            before, at = self._written, heartbeat.at
            differs = _differences(before, heartbeat) if before is not None else EVERYTHING
            is_due = before is None or at - self._beat_at >= BEAT
            is_urgent = bool(differs - COUNTS) or (bool(differs) and heartbeat.state != SERVING)
            if is_urgent or (is_due and (differs or not directory.beat(self._pid, at))):
                directory.write_heartbeat(self._pid, heartbeat)
                self._written = heartbeat
            elif not is_due:
                return
            self._beat_at = at
        finally:
            self._log.write(directory)
            directory.keep_reserve(self._pid)

    def _read_commands(self, directory: SharedDirectory, heartbeat: Heartbeat, received: Received) -> None:  # noqa: ARG002
        received.news = self._log.read(directory)
        self._find_unreadable(directory, self._log.unreadable, received)

    def _read_workers(self, directory: SharedDirectory, heartbeat: Heartbeat, received: Received) -> None:
        heartbeats, unreadable = directory.read_heartbeats(self._pid, heartbeat.at)
        received.heartbeats = heartbeats
        self._find_unreadable(directory, unreadable, received)
        if not unreadable:
            applied = min(each.applied for each in (heartbeat, *heartbeats.values()))
            self._log.prune(directory, applied)

    def _find_unreadable(self, directory: SharedDirectory, unreadable: dict[str, str], received: Received) -> None:
        for name, why in unreadable.items():
            received.problem = received.problem or Problem(f"{directory.path / name} cannot be read: {why}", NO_FILE)


def _differences(one: Heartbeat, other: Heartbeat) -> frozenset[str]:
    """Return the names of the fields that differ, except the time."""
    return frozenset(name for name in EVERYTHING if name != "at" and getattr(one, name) != getattr(other, name))


def problem_of(error: OSError) -> Problem:
    """Return the problem that an *error* of the file system causes for the workers."""
    return Problem(str(error) or repr(error), NO_DIRECTORY)
