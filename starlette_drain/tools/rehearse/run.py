"""Runs a rehearsal: starts the application, connects clients, deregisters the target, sends SIGTERM, and cuts."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.exceptions import DrainError
from starlette_drain.testing import FakeAWS
from starlette_drain.tools.rehearse.clients import Client, Clients
from starlette_drain.tools.rehearse.output import Output
from starlette_drain.tools.rehearse.process import Process
from starlette_drain.tools.rehearse.verdict import Rehearsal
from starlette_drain.tools.tasks.channel import Channel, Refused, Unreachable, find_channel
from starlette_drain.tools.tasks.seen import Seen, counted

__all__ = ["CannotRehearse", "Wanted", "play"]

HOST = "127.0.0.1"
STARTS_WITHIN = 30.0
CONNECTS_WITHIN = 30.0
LONG_DELAY = 60.0
"""With a delay below this, in seconds, the task polls its target every second instead of every five."""

CUT_AFTER = 8.0
"""Seconds from SIGTERM until an ALB cuts the remaining connections, as observed once; AWS does not document it."""

STOP_TIMEOUT = 30.0
"""Seconds from SIGTERM until ECS sends SIGKILL."""

POLL_INTERVAL = 0.5
ANSWERS_WITHIN = 5.0
"""Seconds from the start of the application until its middleware answers."""

NO_MIDDLEWARE = (
    "the application has started, but no DrainMiddleware answers. Remedy: call add_middleware(DrainMiddleware) on the "
    "application that you name here, not on one that it mounts, and without mode='off'"
)
SWITCHED_OFF = "DRAIN_MODE=off switches the middleware off. Remedy: rehearse without it"
CHECK_CLIENTS = (
    "Remedy: check --path (uvicorn answers 403 where no WebSocket route matches), --stream for an event stream, and "
    "--header or --client for clients that log in"
)
CHECK_STREAMS = (
    "Remedy: check --path, and --header for clients that log in. A stream of another content-type is a session if "
    "the option streams declares it; connect to it with --client"
)
UNBLOCK = "Remedy: look for a call that blocks the event loop ('py-spy dump' shows it)"

OURS = ("DRAIN_TARGET_", "DRAIN_ADMIN_")
"""The prefixes of variables about the real task, which the rehearsal must not use."""


class CannotRehearse(DrainError):
    """
    The rehearsal cannot run; the message says why.

    Attributes:
        written: The last lines that the server wrote.
    """

    def __init__(self, why: str, written: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.written = written


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What to rehearse.

    Attributes:
        app: The application, as uvicorn takes it.
        factory: Whether that is a function that returns the application.
        sessions: The number of clients.
        delay: The deregistration delay in seconds.
        client: The client.
        scheme: ``"ws"`` or ``"http"``.
        path: The path that the clients connect to.
    """

    app: str
    factory: bool
    sessions: int
    delay: float
    client: Client
    scheme: str
    path: str


async def play(wanted: Wanted, say: Callable[[str], object], show: Callable[[Seen], object]) -> Rehearsal:
    """
    Run the rehearsal.

    Args:
        wanted: What to rehearse.
        say: Called with each line for the user.
        show: Called with each state of the task.

    Raises:
        CannotRehearse: If the application does not start, or its clients cannot connect.
    """
    with socket.create_server((HOST, 0), backlog=2048) as listening:
        port = listening.getsockname()[1]
        fake = FakeAWS()
        service = fake.add_service("rehearsal", delay=wanted.delay, port=port)
        task = fake.add_task(service, addresses=(HOST,))
        with fake.serve() as aws:
            run = _Run(wanted, say, show)
            try:
                await run.start(listening, aws.environment(task))
                await run.connect(port)
                fake.deactivate(task)
                return await run.leave()
            finally:
                await run.end()


class _Run:
    def __init__(self, wanted: Wanted, say: Callable[[str], object], show: Callable[[Seen], object]) -> None:
        self._wanted = wanted
        self._say, self._show = say, show
        self._output = Output()
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._clients: Clients | None = None
        self._shown: dict[str, Any] = {}

    async def start(self, listening: socket.socket, aws: Mapping[str, str]) -> None:
        """Start the server, and wait until it watches its target."""
        clients = {
            "endpoint_url": aws["AWS_ENDPOINT_URL"],
            "aws_access_key_id": aws["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": aws["AWS_SECRET_ACCESS_KEY"],
        }
        told = {
            "app": self._wanted.app,
            "factory": self._wanted.factory,
            "descriptor": listening.fileno(),
            "clients": clients,
        }
        command = (sys.executable, "-m", "starlette_drain.tools.rehearse.server", json.dumps(told))
        environment = _environment(aws, self._wanted.delay)
        self._process = await Process.start(command, self._take, environment, listening.fileno())
        await self._until(self._is_up, STARTS_WITHIN, f"the application did not start within {STARTS_WITHIN:g} s")
        await self._until(self._is_watching, STARTS_WITHIN, "the application does not see its target in service")

    async def connect(self, port: int) -> None:
        """Connect the clients."""
        wanted = self._wanted
        check = CHECK_CLIENTS if wanted.scheme == "ws" else CHECK_STREAMS
        clients = self._clients = Clients(wanted.client, f"{wanted.scheme}://{HOST}:{port}", wanted.path)

        async def wait_open(count: int) -> None:
            async def are_open() -> bool:
                if clients.ends.codes:
                    why = next(iter(clients.ends.errors), f"it was closed with {clients.ends.codes[0]}")
                    msg = f"a client could not stay connected to {wanted.path}: {why}. {check}"
                    raise CannotRehearse(msg)
                return bool((await self._look())["sessions"]["open"] >= count)

            await self._until(are_open, CONNECTS_WITHIN, f"{wanted.path} has no session for each client. {check}")

        await clients.connect(wanted.sessions, wait_open)
        self._say(f"{counted(wanted.sessions, 'client')} connected")

    async def leave(self) -> Rehearsal:
        """Wait for the delay, stop the server, cut the remaining connections; return the outcome."""
        assert self._clients is not None  # noqa: S101 - for the type checker
        assert self._process is not None  # noqa: S101
        began, ends = time.monotonic(), self._clients.ends
        self._say(f"ECS deregisters the target: {self._wanted.delay:g} s until SIGTERM")
        while (left := began + self._wanted.delay - time.monotonic()) > 0 and self._process.returncode is None:
            with suppress(Unreachable):
                self._show(Seen("rehearsal", await self._look()))
            await asyncio.sleep(min(POLL_INTERVAL, max(left, 0.01)))
        self._say(f"The delay is over: ECS sends SIGTERM. Clients still connected: {self._clients.open}")
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        cut = await self._cut(self._process, self._clients)
        status: int | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT - CUT_AFTER):
                await self._process.ended.wait()
                status = self._process.returncode
        return Rehearsal(
            sessions=self._wanted.sessions,
            delay=self._wanted.delay,
            moments=[each - began for each in ends.moments],
            codes=list(ends.codes),
            cut=cut,
            shown=self._shown,
            forced=self._output.forced,
            tracebacks=self._output.tracebacks,
            status=status,
            errors=list(ends.errors),
        )

    async def end(self) -> None:
        """Close all clients, and kill the server if it still runs."""
        if self._clients is not None:
            await self._clients.cut()
        if self._process is not None:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.ended.wait()
            await self._process.read_rest()
            self._process.close()

    async def _cut(self, process: Process, clients: Clients) -> int:
        until = time.monotonic() + CUT_AFTER
        while clients.open and process.returncode is None and time.monotonic() < until:
            with suppress(Unreachable, CannotRehearse):
                self._show(Seen("rehearsal", await self._look()))
            await asyncio.sleep(POLL_INTERVAL)
        if process.returncode is not None:
            await asyncio.sleep(0.2)  # until the clients have read the last closes
        if clients.open:
            self._say(f"The balancer cuts {counted(clients.open, 'connection')}, {CUT_AFTER:g} s after SIGTERM")
        return await clients.cut()

    async def _is_up(self) -> bool:
        assert self._process is not None  # noqa: S101 - for the type checker
        if self._channel is None:
            with suppress(Unreachable):
                self._channel = (await asyncio.to_thread(find_channel, None, self._process.pid))[1]
        if self._channel is None:
            if time.monotonic() - self._output.started > ANSWERS_WITHIN:
                raise CannotRehearse(SWITCHED_OFF if os.environ.get("DRAIN_MODE") == "off" else NO_MIDDLEWARE)
            return False
        with suppress(Unreachable):
            await self._look()
            return True
        return False

    async def _is_watching(self) -> bool:
        trigger = (await self._look())["triggers"].get("target-health")
        return trigger is None or any(each["verdict"] == "serving" for each in trigger.get("target_groups", ()))

    async def _look(self) -> dict[str, Any]:
        assert self._channel is not None  # noqa: S101 - for the type checker
        try:
            self._shown = (await asyncio.to_thread(self._channel.ask, "GET"))[1]
        except Refused as error:
            raise CannotRehearse(str(error)) from None
        return self._shown

    async def _until(self, true: Callable[[], Any], within: float, otherwise: str) -> None:
        until = time.monotonic() + within
        while True:
            why = otherwise
            try:
                if await true():
                    return
            except Unreachable as error:
                why = f"the server does not answer: {error}. {UNBLOCK}"
            ended = self._process.returncode if self._process is not None else None
            if ended is not None or time.monotonic() > until:
                if self._process is not None and ended is not None:
                    why = f"the server ended with exit code {ended}"
                    await self._process.read_rest()
                raise CannotRehearse(why, list(self._output.lines)[-30:])
            await asyncio.sleep(0.1)

    def _take(self, line: str) -> None:
        with suppress(OSError, UnicodeError):  # what is read must be read on; our own next line ends the rehearsal
            for each in self._output.take(line):
                self._say(f"  server | {each}")


def _environment(aws: Mapping[str, str], delay: float) -> dict[str, str]:
    """
    Return the environment of the server: this process's own, with the metadata endpoint of the fake task.

    It does not contain the endpoint and credentials of FakeAWS, because the application may have its own AWS clients.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    kept[METADATA_VARIABLE] = aws[METADATA_VARIABLE]
    kept["PYTHONUNBUFFERED"] = "1"
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, (kept.get(name), HOST)))
    if delay < LONG_DELAY:
        kept.setdefault("DRAIN_POLL_INTERVAL", "1")
    return kept


def is_on_ecs(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is an ECS task, where a rehearsal must not run."""
    return METADATA_VARIABLE in environ or environ.get("AWS_EXECUTION_ENV", "").startswith("AWS_ECS")


def missing(names: Sequence[str]) -> list[str]:
    """Return the libraries that are not installed."""
    from importlib.util import find_spec  # noqa: PLC0415

    return [name for name in names if find_spec(name) is None]
