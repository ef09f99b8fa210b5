"""
One task leaves, on this machine and without AWS: ``python -m example_app.demo``.

The example server runs under uvicorn with the environment of an ECS task, whose AWS is FakeAWS. Real WebSocket clients
connect, the task's target is deregistered, and after the deregistration delay the process gets SIGTERM, as on ECS.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from example_app.processes import Child, Children, allow_open_files, ask, free_port, sealed_environment
from starlette_drain.testing import FakeAWS

__all__ = ["main"]

RESTART = 1012
"""The close code that says: this server restarts, come back (https://www.iana.org/assignments/websocket)."""

CUT = 1006
"""What a client notes when its connection ends without a close frame."""

EXITS = (0, -signal.SIGTERM)
"""How a server ends that was told to: uvicorn raises the signal again at its end, except as PID 1."""

CONNECTING = 50
"""Clients that connect at a time."""

STOP_TIMEOUT = 30.0
"""Seconds between SIGTERM and SIGKILL: ECS's default."""

LONG_DELAY = 60.0
"""Seconds; with a shorter delay the task looks at its target every second, and not every five."""


class Devices:
    """Real WebSocket clients, and when and with which code each lost its connection."""

    def __init__(self, port: int) -> None:
        self.open: set[int] = set()
        self.closes: list[tuple[float, int]] = []
        self.farewells = 0
        self._port = port
        self._gate = asyncio.Semaphore(CONNECTING)
        self._living: list[asyncio.Task[None]] = []

    async def connect(self, count: int) -> None:
        """
        Connect *count* devices, and return when all are there.

        Raises:
            RuntimeError: If one cannot connect.
        """
        try:
            async with asyncio.TaskGroup() as connecting:
                for number in range(count):
                    connecting.create_task(self._connect(number))
        except* (OSError, WebSocketException) as failed:
            msg = f"{len(failed.exceptions)} of {count} devices could not connect: {failed.exceptions[0]!r}"
            raise RuntimeError(msg) from failed

    async def disconnect(self) -> None:
        """Let those go that are still there."""
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)

    async def _connect(self, number: int) -> None:
        async with self._gate:
            uri = f"ws://127.0.0.1:{self._port}/devices/{number}"
            websocket = await connect(uri, compression=None, open_timeout=30)
        self.open.add(number)
        self._living.append(asyncio.create_task(self._live(number, websocket)))

    async def _live(self, number: int, websocket: ClientConnection) -> None:
        try:
            while True:
                await self._obey(websocket, json.loads(await websocket.recv()))
        except ConnectionClosed:
            self.closes.append((time.monotonic(), websocket.close_code or CUT))
        finally:
            self.open.discard(number)
            websocket.transport.abort()

    async def _obey(self, websocket: ClientConnection, message: dict[str, Any]) -> None:
        if message["type"] == "command":
            await websocket.send(json.dumps({"type": "ack", "id": message["id"]}))
        elif message["type"] == "goodbye":
            self.farewells += 1


class Screen:
    """A terminal, where the last line is rewritten in place; or a file or pipe, which gets plain lines now and then."""

    def __init__(self) -> None:
        self._lively = sys.stdout.isatty()
        self._next = 0.0
        self.zero: float | None = None
        """When the target was deregistered: the time that is shown counts from there."""

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(f"{self._time():>8}  {text}", flush=True)

    def show(self, text: str) -> None:
        """Show how far it is."""
        if self._lively:
            self._clear()
            print(f"{self._time():>8}  {text}"[: _width()], end="", flush=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + 5
            self.say(text)

    def _clear(self) -> None:
        if self._lively:
            print("\r\x1b[2K", end="")

    def _time(self) -> str:
        return "" if self.zero is None else f"{time.monotonic() - self.zero:.1f} s"


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
        self._port = free_port()
        self._token = secrets.token_urlsafe(24)
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
        return self._conclude(server, status, deregistered)

    async def _start(self, children: Children, aws: dict[str, str]) -> Child:
        allow_open_files(self._clients)
        own = {"DRAIN_ADMIN_TOKEN": self._token}
        if self._delay < LONG_DELAY:
            own["DRAIN_POLL_INTERVAL"] = "1"
        command = [sys.executable, "-m", "uvicorn", "example_app.server:app", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--log-level", "warning", "--timeout-graceful-shutdown", "5"]
        environ = sealed_environment(**aws, **own)
        server = await children.start("the task", command, environ=environ, on_line=self._overhear)
        await server.answers(self._port, "/healthz")
        self._screen.say(f"The task serves on 127.0.0.1:{self._port}, as process {server.pid}")
        return server

    async def _drain(self, server: Child, ends: float) -> None:
        """Show what happens until the deregistration delay is over, and go on publishing commands meanwhile."""
        publishing = asyncio.create_task(self._publish())
        try:
            while (left := ends - time.monotonic()) > 0:
                drain = await self._look(server)
                self._report = drain.get("report")
                if self._noticed is None and drain["state"] != "serving":
                    self._noticed = time.monotonic()
                self._screen.show(_progress(drain, len(self._devices.open), self._clients, left))
                await asyncio.sleep(min(0.25, max(left, 0)))
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing

    async def _publish(self) -> None:
        """Publish a command every second, to whoever is there: a task that drains still works."""
        for number in itertools.count():
            if not self._devices.open:
                return
            device = random.choice(list(self._devices.open))
            path = f"/devices/{device}/commands"
            with contextlib.suppress(OSError):
                _, answer = await ask(self._port, "POST", path, body={"light": "on" if number % 2 else "off"})
                self._commands[bool(answer.get("acknowledged"))] += 1
            await asyncio.sleep(1)

    async def _stop(self, server: Child) -> int | None:
        server.signal(signal.SIGTERM)
        status = await server.wait(STOP_TIMEOUT)
        if status is None:
            self._screen.say(f"The stop timeout of {STOP_TIMEOUT:g} s is over: ECS sends SIGKILL")
            server.signal(signal.SIGKILL)
            status = await server.wait(STOP_TIMEOUT)
        await asyncio.sleep(0.2)  # the last closes are read
        return status

    async def _until_watching(self, server: Child) -> None:
        """Wait until the task has found out who it is, and has seen its target in service."""
        async with asyncio.timeout(20):
            while not _is_watching(await self._look(server)):  # noqa: ASYNC110 - a process cannot set our events
                await asyncio.sleep(0.1)

    async def _look(self, server: Child) -> dict[str, Any]:
        if server.returncode is not None:
            raise RuntimeError("\n".join([f"the task ended with {server.returncode}; it wrote:", *server.lines]))
        _, drain = await ask(self._port, "GET", "/drain", token=self._token)
        return dict(drain)

    def _overhear(self, line: str) -> None:
        """Show what the package logs in the task."""
        level, _, text = line.partition(" starlette_drain: ")
        if text:
            self._screen.say(f"  task | {level} {text}")

    def _conclude(self, server: Child, status: int | None, deregistered: float) -> bool:
        """Print the report; return whether all went well."""
        times = sorted(moment for moment, _ in self._devices.closes)
        codes = Counter(code for _, code in self._devices.closes)
        tracebacks = sum("Traceback" in line for line in server.lines)
        is_gentle = codes == {RESTART: self._clients}
        is_clean = status in EXITS and not tracebacks and self._report is not None
        counted = ", ".join(f"{count} x {code}" for code, count in codes.most_common()) or "none"
        print("\nReport, as the devices saw it")
        _line("closes by code", f"{counted} ({'all 1012' if is_gentle else 'NOT all 1012'})")
        _line("farewells before", str(self._devices.farewells))
        if times:
            seconds = Counter(int(moment - times[0]) for moment in times)
            mean = len(times) / max(times[-1] - times[0], 1.0)
            _line("closes per second", f"{max(seconds.values())} at the peak, {mean:.1f} in the mean")
            _line("", _bars([seconds[each] for each in range(max(seconds) + 1)]))
            _line("last close", f"{deregistered + self._delay - times[-1]:.1f} s before the delay was over")
        _line("commands meanwhile", f"{self._commands.total()} published, {self._commands[True]} acknowledged")
        print("As the task saw it")
        if self._noticed is not None:
            _line("noticed", f"{self._noticed - deregistered:.1f} s after the deregistration")
        if report := self._report:
            shown = ("shed", "left", "refused", "forced", "still_open", "peak_rate", "mean_rate", "slack")
            _line("its own report", ", ".join(f"{name} {report[name]:.4g}" for name in shown))
        else:
            _line("its own report", "none: it did not drain before SIGTERM")
        _line("exit status", f"{status}{' (SIGTERM, which uvicorn raises again at its end)' if status == -15 else ''}")
        _line("tracebacks logged", str(tracebacks))
        cut = codes[CUT] + self._clients - len(times)
        if is_gentle and is_clean:
            print(f"\nAll {self._clients} devices were asked to come back; none was cut.")
        else:
            print(f"\nThat did not go as it should: {cut} devices were cut. The task wrote:", *server.lines, sep="\n")
        return is_gentle and is_clean


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


def _bars(counts: Sequence[int]) -> str:
    """Draw closes per second, a character for each second."""
    steps = " ▁▂▃▄▅▆▇█"
    try:
        steps.encode(sys.stdout.encoding)
    except UnicodeError:
        steps = " .:-=+*#@"
    top = max(counts)
    return "".join(steps[-(-8 * count // top)] for count in counts[:100])


def _line(name: str, value: str) -> None:
    print(f"  {name:<18}  {value}")


def _width() -> int:
    try:
        return os.get_terminal_size().columns - 1
    except OSError:
        return 100


async def _run(clients: int, delay: float) -> bool:
    # Without this a SIGTERM to the demo would leave the children to PR_SET_PDEATHSIG, where there is one.
    task = asyncio.current_task()
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await Demo(clients, delay).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status: 0 if every device was let go gently, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m example_app.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clients", type=int, default=500, metavar="N", help="devices that connect (500)")
    parser.add_argument("--delay", type=float, default=60.0, metavar="S", help="deregistration delay, 4 to 3600 s (60)")
    options = parser.parse_args(arguments)
    if options.clients < 1:
        parser.error("--clients: at least 1")
    if not 4 <= options.delay <= 3600:
        parser.error("--delay: from 4 to 3600 seconds")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    print(f"One task of {options.clients} devices leaves a service; the deregistration delay is {options.delay:g} s.")
    try:
        return 0 if asyncio.run(_run(options.clients, options.delay)) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nInterrupted; everything that was started has been stopped.")
        return 130
    except (OSError, RuntimeError, TimeoutError) as error:
        print(f"\nThe demo could not be run: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
