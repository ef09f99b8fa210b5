"""The log of the task's commands, as one worker reads and writes it: each command once, in the same order for all."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from starlette_drain._core.cause import DrainCause
from starlette_drain._workers.command import Claim, Command, Entry, compact, fold
from starlette_drain._workers.shared_directory import SharedDirectory

__all__ = ["CommandLog", "News"]


@dataclass(slots=True)
class News:
    """
    What is new in the log.

    Attributes:
        entries: The new commands, in order. At the first read, the claims that stand instead.
        muted: At the first read, the muted claims.
        confirmed: How many of this worker's own commands were read back from the log.
        is_first: Whether it is the first read of this worker.
        last: The number of the last command that was read.
    """

    entries: list[Entry] = field(default_factory=list)
    muted: list[DrainCause] = field(default_factory=list)
    confirmed: int = 0
    is_first: bool = False
    last: int = 0


class CommandLog:
    """
    Reads and writes the commands. Not thread-safe: it is used by one thread.

    Args:
        pid: The process id of this worker.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pending: list[Command] = []
        self._own: set[int] = set()
        self._entries: dict[int, Entry] = {}
        self._last = 0
        self._has_begun = False
        self._pruned: tuple[int, int] = (0, 0)
        self.unreadable: dict[str, str] = {}
        """Why files could not be read, by file name."""

    @property
    def entries(self) -> list[Entry]:
        """The commands in the log that were not pruned, in order."""
        return [entry for _, entry in sorted(self._entries.items())]

    def keep(self, commands: Iterable[Command]) -> None:
        """Queue *commands*, to be written by `write`."""
        self._pending += commands

    def write(self, directory: SharedDirectory) -> None:
        """Write the queued commands. After an `OSError` those not written stay queued."""
        if not self._pending:
            return
        # If the directory was cleared, its numbers would restart below those that the other workers have read.
        number = max(*directory.commands(), self._last, *self._own, 0, 0) + 1
        while self._pending:
            entry = Entry(number, self._pid, self._pending[0])
            while not directory.write_command(entry):  # another worker took that number just now
                entry = replace(entry, number=entry.number + 1)
            del self._pending[0]
            self._own.add(entry.number)
            number = entry.number + 1

    def read(self, directory: SharedDirectory) -> News:
        """Read the new commands."""
        news = self._read_new(directory)
        for number in [number for number in self._own if number <= self._last]:
            self._own.remove(number)
            news.confirmed += 1
        news.last = self._last
        if not self._has_begun:
            self._has_begun = news.is_first = True
            self._summarize(news)
        return news

    def prune(self, directory: SharedDirectory, applied: int) -> None:
        """Remove redundant commands up to number *applied*, the last one that every worker has applied."""
        if (applied, self._last) == self._pruned:
            return
        self._pruned = applied, self._last
        for number in sorted(compact([entry for entry in self.entries if entry.number <= applied])):
            if number != self._last:  # the last one stays, so that no number is used twice
                directory.remove_command(number)
                del self._entries[number]

    def _read_new(self, directory: SharedDirectory) -> News:
        """Read all new files; start over if one of them is removed in the meantime."""
        while True:
            files = directory.commands()
            self.unreadable = {name: why for name, why in self.unreadable.items() if name in files.values()}
            found: dict[int, Entry] = {}
            try:
                for number in sorted(number for number in files if number > self._last):
                    try:
                        found[number] = replace(directory.read_command(number), number=number)
                    except (ValueError, PermissionError, IsADirectoryError) as error:
                        self.unreadable[files[number]] = str(error)
            except FileNotFoundError:
                continue
            self._entries = {number: entry for number, entry in self._entries.items() if number in files} | found
            self._last = max(self._last, *files, 0)
            return News(list(found.values()))

    def _summarize(self, news: News) -> None:
        """Replace the entries of *news* by the claims that follow from them."""
        claims = fold(each.command for each in news.entries)
        pids = {each.command.cause.trigger: each.pid for each in news.entries if isinstance(each.command, Claim)}
        news.entries = [Entry(self._last, pids[each.trigger], Claim(each)) for each in claims.standing]
        news.muted = list(claims.muted)
