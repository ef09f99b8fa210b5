"""Child processes that end with the rollout lab, even if it is killed."""

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
"""The directory from which ``example_app`` can be imported."""

KILL_TIMEOUT = 5.0
"""Seconds to wait for the end of a killed process."""

# PR_SET_PDEATHSIG (prctl(2)) survives the exec and ends the child even if we are killed with SIGKILL. The child sets it
# itself, since Python code between fork and exec may deadlock. If we have died before that, the child exits.
LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent has gone")
os.nice(int(sys.argv[2]))
os.execvp(sys.argv[3], sys.argv[3:])
"""

# Prefixes of variables that a simulated task must not inherit: the user's AWS account, settings of servers, proxies.
FOREIGN = ("AWS_", "ECS_", "DRAIN_", "UVICORN_", "WEB_CONCURRENCY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Child:
    """
    A process in its own process group, so that Ctrl-C reaches only us.

    Attributes:
        name: The name in messages.
        log: The file for its output; ``None`` if its output is a pipe to us.
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

        Sent to the group, uvicorn's workers would get it twice, since the main process forwards it.
        """
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the process group."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self, within: float | None = None) -> int | None:
        """Wait for its end and return its exit status; ``None`` if it has not ended *within* that many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._process.wait()
        return self.returncode

    def emit(self, message: Mapping[str, Any]) -> None:
        """Write one line of JSON to its standard input."""
        if self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def hang_up(self) -> None:
        """Close its standard input, which tells it to finish."""
        if self._process.stdin:
            self._process.stdin.close()

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines of its standard output until it closes it."""
        while self._process.stdout and (line := await self._process.stdout.readline()):
            yield line.decode(errors="replace").rstrip()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the JSON objects among the lines of its standard output, and skip other lines."""
        async for line in self.lines():
            with suppress(ValueError):
                if isinstance(message := json.loads(line), dict):
                    yield message


class Children:
    """
    Starts processes, and kills those that still run at the end of the ``async with`` block.

    Args:
        niceness: The increment of their niceness, as for nice(1).
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
            await child.wait(KILL_TIMEOUT)

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
        Start *command*.

        Call this from the main thread: on Linux the child is killed when the thread that started it ends.

        Args:
            name: The name in messages.
            command: Program and arguments. If the program does not exist, the child prints an error and ends with 1.
            log: The file for its output; ``None`` for a pipe to us, see `Child.lines`.
            environment: Variables to add to ours, see `sealed_environment`.
            talks: Whether its standard input and output are pipes to us, and only standard error goes to *log*.
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
    """Return our environment with *variables*, without those that name an AWS account or a proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(FOREIGN)}
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return kept | nothing | {"PYTHONUNBUFFERED": "1"} | variables
