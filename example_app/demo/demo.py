"""One run of the demo: a task is started, deregistered, watched and stopped."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from typing import Any

from example_app.demo.devices import Devices
from example_app.demo.report import Course, conclude
from example_app.demo.screen import Screen
from example_app.demo.server import Server
from example_app.limits import raise_file_limit
from example_app.ports import find_port
from example_app.processes import Children
from starlette_drain.testing import FakeAWS

__all__ = ["Demo"]

STOP_TIMEOUT = 30.0
"""Seconds between SIGTERM and SIGKILL: ECS's default."""

LONG_DELAY = 60.0
"""Seconds; with a shorter delay the task looks at its target every second, and not every five."""

SEEN_WITHIN = 20.0
NOT_SEEN = f"the task did not see its target in service within {SEEN_WITHIN:g} s; it wrote:"


class Demo:
    """
    One run.

    Args:
        clients: How many devices connect.
        delay: The target group's deregistration delay in seconds.
    """

    def __init__(self, clients: int, delay: float) -> None:
        self._clients = clients
        self._delay = delay
        self._port = find_port()
        self._screen = Screen()
        self._devices = Devices(self._port)
        self._commands = Counter[bool]()
        self._noticed: float | None = None
        self._report: dict[str, Any] | None = None

    async def run(self) -> bool:
        """Play it all through; return whether every device was let go gently."""
        fake = FakeAWS()
        task = fake.add_task(fake.add_service("streams", delay=self._delay, port=self._port), addresses=("127.0.0.1",))
        with fake.serve() as aws:
            async with Children() as children:
                server = await self._start(children, aws.environment(task))
                try:
                    await self._devices.connect(self._clients)
                    self._screen.say(f"{self._clients} devices are connected")
                    await self._until_watching(server)
                    fake.deactivate(task)
                    deregistered = self._screen.zero = time.monotonic()
                    self._screen.say(f"ECS deregisters the task's target: {self._delay:g} s until SIGTERM")
                    await self._drain(server, deregistered + self._delay)
                    left = len(self._devices.open)
                    self._screen.say(f"The delay is over: ECS sends SIGTERM. {left} devices are still connected")
                    status = await self._stop(server)
                finally:
                    await self._devices.disconnect()
        return conclude(
            Course(
                clients=self._clients,
                closes=self._devices.closes,
                close_hooks=self._devices.close_hooks,
                commands=self._commands,
                deregistered=deregistered,
                delay=self._delay,
                noticed=self._noticed,
                report=self._report,
                status=status,
                written=server.lines,
            )
        )

    async def _start(self, children: Children, aws: dict[str, str]) -> Server:
        if (most := raise_file_limit()) < self._clients:
            msg = f"this system allows {most} connections a process, and {self._clients} were asked for: take fewer"
            raise RuntimeError(msg)
        own = {"DRAIN_POLL_INTERVAL": "1"} if self._delay < LONG_DELAY else {}
        server = await Server.start(children, self._port, aws | own, self._overhear)
        await server.wait_up()
        self._screen.say(f"The task serves on 127.0.0.1:{self._port}, as process {server.child.pid}")
        return server

    async def _drain(self, server: Server, ends: float) -> None:
        """Show what happens until the deregistration delay is over, and go on publishing commands meanwhile."""
        publishing = asyncio.create_task(self._publish(server))
        try:
            while (left := ends - time.monotonic()) > 0:
                drain = await server.drain()
                self._report = drain.get("report")
                if self._noticed is None and drain["state"] != "serving":
                    self._noticed = time.monotonic()
                self._screen.show(_progress(drain, len(self._devices.open), self._clients, left))
                await asyncio.sleep(min(0.25, max(left, 0)))
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing

    async def _publish(self, server: Server) -> None:
        """Publish a command every second, to whoever is there: a task that drains still works."""
        for number in itertools.count():
            if not self._devices.open:
                return
            device = random.choice(list(self._devices.open))
            path = f"/devices/{device}/commands"
            with contextlib.suppress(OSError):
                _, answer = await server.ask("POST", path, {"light": "on" if number % 2 else "off"})
                self._commands[bool(answer.get("acknowledged"))] += 1
            await asyncio.sleep(1)

    async def _stop(self, server: Server) -> int | None:
        server.child.terminate()
        status = await server.wait_ended(STOP_TIMEOUT)
        if status is None:
            self._screen.say(f"The stop timeout of {STOP_TIMEOUT:g} s is over: ECS sends SIGKILL")
            server.child.kill()
            status = await server.wait_ended(STOP_TIMEOUT)
        await asyncio.sleep(0.2)  # the last closes are read
        return status

    async def _until_watching(self, server: Server) -> None:
        """Wait until the task has found out who it is, and has seen its target in service."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + SEEN_WITHIN
        while not _is_watching(await server.drain()):
            if loop.time() > give_up:
                raise RuntimeError("\n".join([NOT_SEEN, *server.lines]))
            await asyncio.sleep(0.1)

    def _overhear(self, line: str) -> None:
        """Show what the package logs in the task."""
        level, _, text = line.partition(" starlette_drain: ")
        if text:
            self._screen.say(f"  task | {level} {text}")


def _is_watching(drain: dict[str, Any]) -> bool:
    groups = drain["triggers"]["target-health"].get("target_groups", ())
    return any(each["verdict"] == "serving" for each in groups)


def _progress(drain: dict[str, Any], still_open: int, clients: int, left: float) -> str:
    width = 12
    gone = width * (clients - still_open) // clients
    bar = f"[{'#' * gone}{'-' * (width - gone)}] {still_open:>4} open"
    match drain["state"]:
        case "serving":
            return f"{bar}; it is draining; the task has not looked yet"
        case "draining":
            progress = drain["drain"]
            doing = f"{progress['shed']} shed, {progress['rate']:.1f}/s, {progress['time_left']:.0f} s left"
            return f"{bar}, {doing}; SIGTERM in {left:.0f} s"
    return f"{bar}; drained; SIGTERM in {left:.0f} s"
