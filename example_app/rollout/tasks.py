"""Tasks: real uvicorn processes with the environment that an ECS task has."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from example_app.processes import Child
from starlette_drain.testing import FakeTask

__all__ = ["ADMIN_TOKEN", "Task", "TaskFailed", "uvicorn_command"]

ADMIN_TOKEN = "only-for-the-rollout-lab"  # noqa: S105 - it guards processes on this machine's loopback
START_WITHIN = 60.0


class TaskFailed(Exception):
    """A task ended before it listened."""


@dataclass(slots=True)
class Task:
    """A task: what AWS knows of it, its process, where it listens."""

    name: str
    record: FakeTask
    child: Child
    port: int

    @property
    def target(self) -> tuple[str, int]:
        """Where the balancer finds it."""
        return "127.0.0.1", self.port

    async def wait_up(self) -> None:
        """
        Wait until it answers its health check.

        Raises:
            TaskFailed: If it ends before, or takes too long.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + START_WITHIN
        while await self.get("/healthz") is None:
            if not self.child.is_alive or loop.time() > give_up:
                msg = f"{self.name} did not start; see {self.child.log}"
                raise TaskFailed(msg)
            await asyncio.sleep(0.2)

    async def get(self, path: str, *, within: float = 2.0) -> dict[str, Any] | None:
        """Return the JSON object at *path*; ``None`` where there is none to be had."""
        return await self._ask(f"GET {path}", "", within)

    async def post(self, path: str, order: Mapping[str, Any], *, within: float = 10.0) -> dict[str, Any] | None:
        """Send a JSON object to *path*, and return that which answers; ``None`` where it was refused."""
        return await self._ask(f"POST {path}", json.dumps(order), within)

    async def _ask(self, what: str, body: str, within: float) -> dict[str, Any] | None:
        request = (
            f"{what} HTTP/1.1\r\nHost: task\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        try:
            async with asyncio.timeout(within):
                reader, writer = await asyncio.open_connection(*self.target)
                writer.write(request.encode())
                answer = await reader.read()
                writer.close()
        except (OSError, TimeoutError):
            return None
        head, _, content = answer.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] not in ([b"200"], [b"202"]):
            return None
        found = json.loads(content)
        return found if isinstance(found, dict) else None

    def terminate(self) -> None:
        """Send SIGTERM, as ECS does, to the process alone."""
        self.child.terminate()

    async def kill(self) -> None:
        """Send SIGKILL."""
        self.child.kill()
        await self.child.wait(5)

    def tracebacks(self) -> int:
        """Return how many tracebacks it has logged."""
        log = self.child.log
        return log.read_text(errors="replace").count("Traceback (most recent call last)") if log else 0


def uvicorn_command(app: str, port: int) -> list[str]:
    """Return the command line of one task."""
    options: Mapping[str, str] = {"host": "127.0.0.1", "port": str(port), "log-level": "warning", "backlog": "4096"}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "uvicorn", "--factory", "--no-access-log", *flags, app]
