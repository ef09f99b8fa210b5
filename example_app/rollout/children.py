"""Child processes that cannot outlive the lab, and that talk in lines of JSON."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from example_app.processes import LAUNCH, ROOT, sealed_environment

__all__ = ["Child", "Children"]


class Child:
    """A process of the lab's, in a process group of its own, so that Ctrl-C in the terminal reaches only the lab."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def signal(self, number: int) -> None:
        """Send a signal to the process itself."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def kill(self) -> None:
        """End the whole process group at once."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end; return whether it came within *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
        except TimeoutError:
            return False
        return True

    def tell(self, message: Mapping[str, Any]) -> None:
        """Write one line of JSON to its standard input."""
        if self.process.stdin and not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def hang_up(self) -> None:
        """Close its standard input: the sign to finish."""
        if self.process.stdin:
            self.process.stdin.close()

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what it says, one object a line, until it closes its standard output."""
        while self.process.stdout and (line := await self.process.stdout.readline()):
            # A load generator that is not ours may print other things too.
            with suppress(ValueError):
                if isinstance(message := json.loads(line), dict):
                    yield message


class Children:
    """Starts processes, and leaves none behind when its ``async with`` block ends."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._all:
            child.kill()
        for child in self._all:
            await child.wait(5)

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> Child:
        """
        Start *command*; its output goes to *log*, or with *talks* its standard input and output to us.

        Raises:
            FileNotFoundError: If there is no such program.
        """
        launcher = (sys.executable, "-c", LAUNCH, str(os.getpid()))
        pipe = asyncio.subprocess.PIPE if talks else None
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                *command,
                stdin=pipe or asyncio.subprocess.DEVNULL,
                stdout=pipe or output,
                stderr=output,
                env=sealed_environment(**(environment or {})),
                cwd=ROOT,
                process_group=0,
            )
        child = Child(name, process)
        self._all.append(child)
        return child
