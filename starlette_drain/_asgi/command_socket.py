# The command talks to the process through a Unix socket in a directory that only the process's user (and root, the user
# of ECS Exec) may enter. A user who can open it could also signal the process, so no token is needed. While unused it
# costs one file descriptor and no wake-ups.
#
# A connection carries one request and one answer, each a line of JSON. The requests go to an admin route with a token
# of its own, so the command can do what the route can, with the same checks and answers.
"""The Unix socket on which this process answers the ``starlette-drain`` command in its own container."""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.types import Message, Scope

from starlette_drain._asgi.admin import COMMAND, MAX_BODY, AdminRoute
from starlette_drain._asgi.process import SERVERS, look_at_self, program_of, words_of
from starlette_drain._engine.drain import Drain
from starlette_drain._workers.file_thread import FileThread
from starlette_drain._workers.shared_directory import find_shared_directory, find_supervisor, socket_file
from starlette_drain.triggers.base import Control

__all__ = ["CommandSocket", "is_served"]

PATH = "/drain"

TIMEOUT = 5.0
"""Seconds in which a request must arrive, and in which the client must read the answer."""

LONGEST_PATH = 100
"""The most bytes in the path of a Unix socket: systems allow 103 to 107."""


class CommandSocket:
    """
    Answers the command while the application runs.

    Args:
        drain: The drain.
        is_wanted: Returns whether to open a socket: not in tests, nor in scripts that import the application.
        environ: The environment variables.
    """

    name = COMMAND

    def __init__(
        self, drain: Drain, is_wanted: Callable[[], bool] | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._is_wanted = is_wanted or is_served
        self._environ = environ
        self._token = secrets.token_urlsafe(24)
        self._route = AdminRoute(drain, self._token, PATH)
        self._status: dict[str, str] = {}
        self._connections: set[asyncio.Task[Any]] = set()

    async def watch(self, control: Control) -> None:  # noqa: ARG002 - requests go to the admin route
        """Answer until cancelled."""
        loop, thread = asyncio.get_running_loop(), FileThread()
        if not self._is_wanted():
            return
        try:
            listening = await loop.run_in_executor(thread, _listen, self._environ)
        except OSError as error:
            thread.shutdown()
            self._status = {"why_not": f"the starlette-drain command does not reach this process: {error}"}
            return
        path = Path(listening.getsockname())
        try:
            server = await asyncio.start_unix_server(self._answer, sock=listening, limit=2 * MAX_BODY)
            self._status = {"socket": str(path)}
            try:
                await loop.create_future()
            finally:
                server.close()
                for each in self._connections:
                    each.cancel()
                await asyncio.gather(*self._connections, return_exceptions=True)
        finally:
            self._status = {}
            listening.close()
            removing = loop.run_in_executor(thread, _remove, path)
            thread.shutdown()
            await asyncio.wait((removing,), timeout=TIMEOUT / 2)

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the path of the socket, or why there is none; empty if none is wanted."""
        return self._status

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._connections.add(task)
        try:
            # An invalid request, or a client that does not read, gets no answer.
            with suppress(OSError, ValueError, TimeoutError, KeyError, TypeError, asyncio.CancelledError):
                async with asyncio.timeout(TIMEOUT):
                    request = json.loads(await reader.readline())
                answer = await self._ask(reader, request)
                writer.write(json.dumps(answer).encode() + b"\n")
                async with asyncio.timeout(TIMEOUT):
                    await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send *request* to the admin route, and return its answer."""
        body = b"" if request.get("body") is None else json.dumps(request["body"]).encode()
        incoming: list[Message] = [{"type": "http.request", "body": body}]
        status, parts = 0, bytearray()

        async def receive() -> Message:
            if incoming:
                return incoming.pop()
            while await reader.read(1024):
                pass
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.extend(message.get("body", b""))

        await self._route(self._scope(request), receive, send)
        return {"status": status, "body": json.loads(parts or b"null")}

    def _scope(self, request: Mapping[str, Any]) -> Scope:
        headers = {"authorization": f"Bearer {self._token}", "accept": "application/json"}
        if request.get("body") is not None:
            headers["content-type"] = "application/json"
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": str(request["method"]),
            "scheme": "http",
            "path": PATH + str(request.get("path", "")),
            "query_string": str(request.get("query", "")).encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 0),
            "server": None,
        }


def is_served() -> bool:
    """Return whether this process is a server, or was started by one."""
    process = look_at_self()
    return bool(process.server) or not SERVERS.isdisjoint((program_of(words_of(process.pid)), *process.parents))


def _listen(environ: Mapping[str, str]) -> socket.socket:
    pid = os.getpid()
    path = socket_file(find_shared_directory(find_supervisor(environ) or pid, None, environ).path, pid)
    if len(os.fsencode(path)) > LONGEST_PATH:  # TMPDIR is too long
        path = socket_file(find_shared_directory(find_supervisor(environ) or pid, None, {}).path, pid)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(16)
    except OSError:
        listening.close()
        raise
    return listening


def _remove(path: Path) -> None:
    """Remove the socket, and its directory if that is empty: workers that share it remove it with their files."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
