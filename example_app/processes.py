"""Child processes that cannot outlive the rollout lab."""

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

__all__ = ["ROOT", "Child", "Children", "sealed_environment"]

ROOT = Path(__file__).resolve().parent.parent
"""Where ``example_app`` can be imported from."""

PATIENCE = 5.0
"""Seconds that the end of a killed process is waited for."""

# PR_SET_PDEATHSIG (prctl(2)) survives the exec and ends the child even when we are killed with SIGKILL. The child sets
# it itself, since Python code between fork and exec may deadlock. It comes too late if we have died already.
LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent has gone")
os.nice(int(sys.argv[2]))
os.execvp(sys.argv[3], sys.argv[3:])
"""

# What would lead a child out of its pretended task: the user's own AWS account, settings for other servers, proxies.
FOREIGN = ("AWS_", "ECS_", "DRAIN_", "UVICORN_", "WEB_CONCURRENCY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Child:
    """
    A process in a process group of its own: Ctrl-C reaches only us, and we stop it in our own order.

    Attributes:
        name: For messages.
        log: The file that it writes to; ``None`` where its output comes to us.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path | None) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        """Process id, and the id of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; ``None`` while it runs."""
        return self._process.returncode

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.returncode is None

    def terminate(self) -> None:
        """
        Send SIGTERM to the process itself, as a container engine does.

        To a whole group of uvicorn and its workers it would come twice, since the first process passes it on.
        """
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the whole process group at once."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self, within: float | None = None) -> int | None:
        """Wait for its end and return its exit status; ``None`` if it has not come *within* so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._process.wait()
        return self.returncode

    def emit(self, message: Mapping[str, Any]) -> None:
        """Write one line of JSON to its standard input."""
        if self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def hang_up(self) -> None:
        """Close its standard input: the sign to finish."""
        if self._process.stdin:
            self._process.stdin.close()

    async def lines(self) -> AsyncIterator[str]:
        """Yield what it writes to us, line by line, until it closes its standard output."""
        while self._process.stdout and (line := await self._process.stdout.readline()):
            yield line.decode(errors="replace").rstrip()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what it says in JSON, one object a line; whatever else it prints is passed over."""
        async for line in self.lines():
            with suppress(ValueError):
                if isinstance(message := json.loads(line), dict):
                    yield message


class Children:
    """
    Starts processes; those that still run at the end of the ``async with`` block are killed.

    Args:
        niceness: How far they stand back behind us: what nice(1) adds.
    """

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness
        self._all: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._all:
            child.kill()
        for child in self._all:
            await child.wait(PATIENCE)

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> Child:
        """
        Start *command*; best done from the main thread, since on Linux the child ends with the thread that starts it.

        Args:
            name: For messages.
            command: Program and arguments. A program that does not exist is a child that ends with 1, and says why.
            log: The file that gets its output; without one we do, see `Child.lines`.
            environment: What is added to ours, see `sealed_environment`.
            talks: Whether its standard input and output come to us, and only its standard error goes to *log*.
        """
        with open(log or os.devnull, "wb") as file:  # noqa: ASYNC230, PTH123 - a file on this machine, opened once
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", LAUNCH, str(os.getpid()), str(self._niceness)),
                *command,
                stdin=asyncio.subprocess.PIPE if talks else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if talks or log is None else file,
                stderr=asyncio.subprocess.STDOUT if log is None else file,
                env=sealed_environment(**(environment or {})),
                cwd=ROOT,
                process_group=0,
            )
        child = Child(name, process, log)
        self._all.append(child)
        return child


def sealed_environment(**variables: str) -> dict[str, str]:
    """Return our environment with *variables*, and without what would lead a child to AWS itself or through a proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(FOREIGN)}
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return kept | nothing | {"PYTHONUNBUFFERED": "1"} | variables
