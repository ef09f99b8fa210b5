"""Child processes for the demo and the rollout lab: started, waited for, and surely stopped."""

import asyncio
import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ROOT", "Child", "Children", "allow_open_files", "ask", "free_port", "sealed_environment"]

ROOT = Path(__file__).resolve().parent.parent
"""Where ``example_app`` can be imported from."""

LOOPBACK = "127.0.0.1"
LINES_KEPT = 5000

# PR_SET_PDEATHSIG (prctl(2)) survives the exec and ends the child even when we are killed with SIGKILL. The child sets
# it itself, since Python code between fork and exec may deadlock. It comes too late if we have died already.
LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent has gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""

# What would lead a child out of its pretended task: the user's own AWS account, settings for other servers, proxies.
FOREIGN = ("AWS_", "ECS_", "DRAIN_", "UVICORN_", "WEB_CONCURRENCY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Child:
    """
    A process in a process group of its own: Ctrl-C reaches only us, and we stop it in our own order.

    Attributes:
        name: For messages.
        lines: The last lines that it wrote, standard error among them.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: Callable[[str], object] | None) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._process = process
        self._on_line = on_line
        self._reading = asyncio.create_task(self._read(), name=f"output of {name}")

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Self:
        """
        Start *command*; best done from the main thread, since on Linux the child ends with the thread that starts it.

        Args:
            name: For messages.
            command: Program and arguments.
            environ: The whole environment; ours by default.
            on_line: Called with every line that it writes.
        """
        launcher = (sys.executable, "-c", LAUNCH, str(os.getpid()))
        process = await asyncio.create_subprocess_exec(
            *launcher,
            *command,
            env=environ,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
        )
        return cls(name, process, on_line)

    @property
    def pid(self) -> int:
        """Process id, and the id of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; ``None`` while it runs."""
        return self._process.returncode

    def signal(self, signum: signal.Signals) -> None:
        """
        Send it a signal, if it still runs, as a container engine does: only to the process itself, but SIGKILL to all.

        To a whole group of uvicorn and its workers SIGTERM would come twice, since the first process passes it on.
        """
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if signum == signal.SIGKILL else os.kill)(self.pid, signum)

    async def wait(self, within: float | None = None) -> int | None:
        """Wait until it has ended and return its exit status; ``None`` if it has not ended in time."""
        try:
            async with asyncio.timeout(within):
                await self._process.wait()
        except TimeoutError:
            return None
        await asyncio.wait((self._reading,), timeout=1)
        return self.returncode

    async def stop(self, patience: float = 3.0) -> None:
        """SIGTERM, and SIGKILL for one that has not ended after *patience* seconds."""
        self.signal(signal.SIGTERM)
        try:
            await self.wait(patience)
        finally:
            self.signal(signal.SIGKILL)
        await self.wait(patience)

    async def answers(self, port: int, path: str, *, within: float = 20.0) -> None:
        """
        Wait until ``GET path`` is answered with 200.

        Raises:
            RuntimeError: If the process ends instead, or does not answer in time; with what it wrote.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.returncode is None:
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        status, _ = await ask(port, "GET", path)
                        if status == http.client.OK:
                            return
                    await asyncio.sleep(0.05)
        how = "does not answer" if self.returncode is None else f"ended with {self.returncode}"
        msg = "\n".join([f"{self.name} {how}; it wrote:", *self.lines])
        raise RuntimeError(msg)

    async def _read(self) -> None:
        output = self._process.stdout
        while output and (line := await output.readline()):
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            if self._on_line:
                self._on_line(text)


class Children:
    """All children of a run; at the end of the ``async with`` block those that still run are stopped, together."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(child.stop() for child in self._all), return_exceptions=True)

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Child:
        """Start a child: see `Child.start`."""
        child = await Child.start(name, command, environ=environ, on_line=on_line)
        self._all.append(child)
        return child


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def sealed_environment(**variables: str) -> dict[str, str]:
    """Return our environment with *variables*, and without what would lead a child to AWS itself or through a proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(FOREIGN)}
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return kept | nothing | {"PYTHONUNBUFFERED": "1"} | variables


def allow_open_files(count: int) -> None:
    """
    Raise the limit of open files for us and our children to *count* and some.

    Raises:
        RuntimeError: If the system does not allow so many.
    """
    wanted = count + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and wanted > hard:
        msg = f"{count} connections need {wanted} open files and this system allows {hard}: ask for fewer clients"
        raise RuntimeError(msg)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def ask(
    port: int, method: str, path: str, *, token: str | None = None, body: Any = None, within: float = 10.0
) -> tuple[int, Any]:
    """
    Send a request to a child on *port*, from a thread; return the status, and the JSON value of the answer.

    Raises:
        OSError: If it does not answer.
    """
    return await asyncio.to_thread(_ask, port, method, path, token=token, body=body, within=within)


def _ask(port: int, method: str, path: str, *, token: str | None, body: Any, within: float) -> tuple[int, Any]:
    headers = {"Connection": "close"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    content = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        content = json.dumps(body)
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=within)
    try:
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(answer)
    except ValueError:
        return response.status, None
