"""A server in a process of its own: started, waited for, listened to, always ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["REASON", "TOKEN", "ServerProcess", "eventually"]

APPS = Path(__file__).parent / "apps"
ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds until something that is sure to happen counts as not happening: generous, for machines that are busy."""

PORT_TAKEN = ("address already in use", "connection in use")
"""What servers say when somebody has taken the port between our look and theirs; the second is gunicorn's."""

REASON = "server draining"
TOKEN = "correct-horse-battery-staple"


class ServerProcess:
    """
    One server, as a context manager. It is ready, on a free port of 127.0.0.1, when the block begins.

    Args:
        app: Module in ``apps`` and name of the application, as uvicorn takes it.
        *arguments: Further arguments of the command.
        log: The file that gets all it writes.
        env: Environment variables besides those of this process; ``DRAIN_*`` and ``AWS_*`` are not inherited.
        command: What to run instead of uvicorn; ``{app}``, ``{port}`` are filled in.
        workers: How many processes must have answered until it is ready.
        probe: The path that is asked; any other than ``/pid`` need only answer.
        python: The interpreter that runs the command.
        patience: Seconds until it must be ready.
    """

    def __init__(
        self,
        app: str,
        *arguments: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        command: tuple[str, ...] = ("-m", "uvicorn", "{app}", "--port", "{port}"),
        workers: int = 1,
        probe: str = "/pid",
        python: str | Path = sys.executable,
        patience: float = PATIENCE,
    ) -> None:
        self._log = log
        self._workers = workers
        self._probe = probe
        self._patience = patience
        self._command_line = lambda port: [
            str(python),
            *(part.format(app=app, port=port) for part in command),
            *arguments,
        ]
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DRAIN_", "AWS_", "ECS_", "OTEL_", "PYTEST_", "COV_"))
        }
        self._environment |= {"PYTHONPATH": os.pathsep.join((str(APPS), str(ROOT))), "PYTHONUNBUFFERED": "1"}
        self._environment |= env or {}
        self.pids: set[int] = set()

    def __enter__(self) -> Self:
        try:
            self._start()
        except AssertionError:
            if not any(words in self.log.lower() for words in PORT_TAKEN):
                raise
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kill()
        if error is not None:
            sys.stdout.write(f"--- log of {' '.join(self._command[1:])}\n{self.log[-8000:]}\n")

    @property
    def log(self) -> str:
        """All it has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def trouble(self) -> list[str]:
        """The lines of the log that nobody wants to see, and what follows each."""
        lines = self.log.splitlines()
        bad = ("ERROR", "Traceback", "CRITICAL", "never retrieved", "RuntimeWarning", "ResourceWarning")
        return [
            "\n".join(lines[max(0, at - 1) : at + 30])
            for at, line in enumerate(lines)
            if any(word in line for word in bad)
        ]

    @property
    def pid(self) -> int:
        """Process id of what was started."""
        return self._process.pid

    def websocket(self, path: str) -> str:
        """Return the address of a WebSocket."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def get(self, path: str, *, timeout: float = PATIENCE) -> str:
        """Get the body at *path*."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout) as answer:
            return answer.read().decode()

    def drain(self, method: str = "GET", query: str = "", token: str = TOKEN, **body: Any) -> tuple[int, Any]:
        """Ask the admin route; return status and answer."""
        request = urllib.request.Request(
            f"{self.url}/drain{query}",
            data=json.dumps(body).encode() if body else None,
            method=method,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=2 * PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the process that was started, not to its workers."""
        self._process.send_signal(number)

    @property
    def is_running(self) -> bool:
        """Whether it has not exited."""
        return self._process.poll() is None

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it has exited by itself; return its exit status."""
        return self._process.wait(timeout)

    def _start(self) -> None:
        self.pids.clear()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = self._command_line(self.port)
        with self._log.open("wb") as log:
            # In a session of its own: a signal to this process is for this process, and the group can be killed whole.
            self._process = subprocess.Popen(
                self._command,
                cwd=APPS,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # The leash: should the tests be killed themselves, its input ends and the whole group goes with them.
        leash = f"cat >/dev/null; kill -s KILL -- -{self._process.pid}"
        self._leash = subprocess.Popen(["sh", "-c", leash], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            eventually(self._answers, f"the server does not answer:\n{self.log[-4000:]}", within=self._patience)
        except BaseException:
            self._kill()
            raise

    def _answers(self) -> bool:
        if not self.is_running:
            raise AssertionError("the server exited:\n" + self.log[-4000:])
        try:
            answer = self.get(self._probe, timeout=2)
            self.pids.add(int(answer) if self._probe == "/pid" else self.pid)
        except (OSError, HTTPException):
            return False
        return len(self.pids) >= self._workers

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._leash.kill()
        self._leash.wait()
        if self._leash.stdin:
            self._leash.stdin.close()


def eventually(true: Callable[[], bool], otherwise: str, *, within: float = PATIENCE) -> None:
    """Wait until *true* returns true; fail saying *otherwise*."""
    until = time.monotonic() + within
    while not true():
        if time.monotonic() > until:
            raise AssertionError(otherwise)
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
