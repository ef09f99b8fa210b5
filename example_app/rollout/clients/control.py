"""The lab's side of the fleet: it starts the processes, adds up what they say, collects the records."""

import asyncio
import math
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from example_app.limits import raise_file_limit
from example_app.processes import Child, Children
from example_app.rollout.clients.records import Records

__all__ = ["FLEETS", "Fleet", "FleetOptions"]

FLEETS = {"lean": "example_app.rollout.clients.fleet", "websockets": "example_app.rollout.clients.stock"}
CLIENTS_PER_PROCESS = 8000
COLLECT_WITHIN = 60.0
"""Seconds the processes have to write their records."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """
    Which clients.

    Attributes:
        clients: How many.
        reconnect: How they come back, see `backoff`.
        ramp: How many of them connect per second at first, all together.
        kind: ``"lean"``, ``"websockets"``, or the command of a load generator that takes the same options.
        honour_retry_after: Whether they wait as long as a 503 asks for.
        deaf: Share of them that never read.
    """

    clients: int
    reconnect: str = "phoenix"
    ramp: float = 500.0
    kind: str = "lean"
    honour_retry_after: bool = False
    deaf: float = 0.0

    def command(self) -> list[str]:
        """Return the command of one process, without its options."""
        module = FLEETS.get(self.kind)
        return [sys.executable, "-m", module] if module else shlex.split(self.kind)


class Fleet:
    """All client processes of one rollout."""

    def __init__(self, options: FleetOptions, children: Children, results: Path) -> None:
        self.options = options
        self._children = children
        self._results = results
        self._processes: list[Child] = []
        self._listening: list[asyncio.Task[None]] = []
        self._said: dict[str, dict[str, int]] = {}
        self._reports: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @property
    def open(self) -> int:
        """How many have a connection, as of half a second ago."""
        return sum(said.get("open", 0) for said in self._said.values())

    @property
    def opened(self) -> int:
        """How many connections have been established so far."""
        return sum(said.get("opened", 0) for said in self._said.values())

    async def start(self, url: str) -> None:
        """Start the processes; they connect at once."""
        options = self.options
        limit = min(CLIENTS_PER_PROCESS, raise_file_limit())
        count = math.ceil(options.clients / limit)
        if options.clients > 1000:
            count = max(count, 2)
        for number in range(count):
            first, last = options.clients * number // count, options.clients * (number + 1) // count
            arguments = ["--url", url, "--clients", str(last - first), "--first", str(first)]
            arguments += ["--ramp", f"{options.ramp / count:g}", "--records", str(self._file(number))]
            arguments += ["--reconnect", options.reconnect]
            if options.honour_retry_after:
                arguments.append("--honour-retry-after")
            if options.deaf:
                arguments += ["--deaf", f"{options.deaf:g}"]
            self._file(number).unlink(missing_ok=True)  # an earlier run's would be taken for this one's
            name = f"clients-{number + 1}"
            log = self._results / f"{name}.log"
            child = await self._children.start(name, [*options.command(), *arguments], log=log, talks=True)
            self._processes.append(child)
            self._listening.append(asyncio.create_task(self._listen(child)))

    async def wait_open(self, share: float = 1.0) -> None:
        """
        Wait until that share of the clients has a connection.

        Raises:
            RuntimeError: If a process has ended before.
        """
        # A process that was too busy to speak says first what it had been about to say.
        fresh = {child.name: self._reports[child.name] + 2 for child in self._processes}
        while self.open < self.options.clients * share or any(self._reports[name] < fresh[name] for name in fresh):
            for child in self._processes:
                if not child.is_alive:
                    msg = f"{child.name} has ended too early, with {child.returncode}; see {child.log}"
                    raise RuntimeError(msg)
            self._changed.clear()
            await self._changed.wait()

    async def finish(self) -> Records:
        """
        Stop all clients and return what they remember.

        Raises:
            RuntimeError: If a process leaves no records.
        """
        for child in self._processes:
            child.hang_up()
        for number, child in enumerate(self._processes):
            status = await child.wait(COLLECT_WITHIN)
            if status != 0 or not self._file(number).exists():
                msg = f"{child.name} left no records (exit status {status}); see {child.log}"
                raise RuntimeError(msg)
        for task in self._listening:
            task.cancel()
        return Records.read(self._file(number) for number in range(len(self._processes)))

    def _file(self, number: int) -> Path:
        return self._results / f"clients-{number + 1}.json"

    async def _listen(self, child: Child) -> None:
        async for said in child.messages():
            if "open" in said:
                self._said[child.name] = said
                self._reports[child.name] += 1
            self._changed.set()
        self._changed.set()
