"""The demo's one task: a process that is asked over HTTP, and whose every line is kept."""

import asyncio
import contextlib
import http.client
import json
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Self

from example_app.processes import Child, Children

__all__ = ["Server"]

LOOPBACK = "127.0.0.1"
LINES_KEPT = 5000
STARTS_WITHIN = 20.0


class Server:
    """
    A uvicorn process.

    Attributes:
        child: Its process.
        lines: The last lines that it wrote, standard error among them.
    """

    def __init__(self, child: Child, port: int, token: str, on_line: Callable[[str], object]) -> None:
        self.child = child
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._port = port
        self._token = token
        self._on_line = on_line
        self._reading = asyncio.create_task(self._read(), name="output of the task")

    @classmethod
    async def start(
        cls, children: Children, port: int, environment: Mapping[str, str], on_line: Callable[[str], object]
    ) -> Self:
        """Start one on *port*; *on_line* is called with every line that it writes."""
        command = [sys.executable, "-m", "uvicorn", "example_app.server:app", "--host", LOOPBACK, "--port", str(port)]
        command += ["--log-level", "warning", "--timeout-graceful-shutdown", "5"]
        token = secrets.token_urlsafe(24)
        environment = {**environment, "DRAIN_ADMIN_TOKEN": token}
        return cls(await children.start("the task", command, environment=environment), port, token, on_line)

    async def wait_up(self) -> None:
        """
        Wait until it answers its health check.

        Raises:
            RuntimeError: If it ends instead, or does not answer in time; with what it wrote.
        """
        give_up = time.monotonic() + STARTS_WITHIN
        while not await self._serves():
            if time.monotonic() > give_up:
                msg = f"the task does not answer after {STARTS_WITHIN:g} s; it wrote:"
                raise RuntimeError("\n".join([msg, *self.lines]))
            await asyncio.sleep(0.05)

    async def drain(self) -> dict[str, Any]:
        """
        Return what its admin route tells.

        Raises:
            RuntimeError: If it has ended; with what it wrote.
        """
        await self._check()
        _, drain = await self.ask("GET", "/drain")
        return dict(drain)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """
        Send a request, from a thread; return the status, and the JSON value of the answer.

        Raises:
            OSError: If it does not answer.
        """
        return await asyncio.to_thread(_ask, self._port, method, path, self._token, body)

    async def wait_ended(self, within: float) -> int | None:
        """Wait for its end and its last line; return the exit status, ``None`` if it has not come in time."""
        status = await self.child.wait(within)
        if status is not None:
            await asyncio.wait((self._reading,), timeout=1)
        return status

    async def _serves(self) -> bool:
        await self._check()
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _ = await self.ask("GET", "/healthz")
            return status == http.client.OK
        return False

    async def _check(self) -> None:
        if (status := self.child.returncode) is not None:
            await self.wait_ended(0)
            raise RuntimeError("\n".join([f"the task ended with {status}; it wrote:", *self.lines]))

    async def _read(self) -> None:
        async for line in self.child.lines():
            self.lines.append(line)
            self._on_line(line)


def _ask(port: int, method: str, path: str, token: str, body: Any) -> tuple[int, Any]:
    headers = {"Connection": "close", "Authorization": f"Bearer {token}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(answer)
    except ValueError:
        return response.status, None
