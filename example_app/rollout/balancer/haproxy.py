"""A real HAProxy, driven over its runtime socket."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from example_app.limits import raise_file_limit
from example_app.processes import Child
from example_app.rollout.balancer.base import STARTS_WITHIN, Balancer, Target, not_started

__all__ = ["HAProxyBalancer", "MissingHAProxy"]

TAKEN = "by 'stats socket command'"
"""How HAProxy ends its answer to a new address; its good answer to anything else is empty."""

IN_A_LINE = 200
"""Commands in one line, of which it reads 16 KiB."""

CONFIGURATION = """\
global
    stats socket {socket} mode 600 level admin
    maxconn {connections}
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 1d
    timeout server 1d
frontend clients
    bind 127.0.0.1:{port}
    default_backend tasks
backend tasks
    balance {rule}
    server-template task 1-{slots} 127.0.0.1:1 disabled
"""
"""One thread a process, since the open files are counted by process, and processes share the port."""


class MissingHAProxy(Exception):
    """There is no HAProxy on this machine."""


class HAProxyBalancer(Balancer):
    """
    HAProxy in TCP mode.

    ``set server … state drain`` stops new connections to a server and keeps the others, which is what an ALB does with
    a draining target; ``shutdown sessions server`` closes them without a close frame, which is what it does at the end.
    https://docs.haproxy.org/2.6/management.html#9.3
    """

    name = "haproxy"

    async def start(self) -> None:
        """
        Start the processes.

        Raises:
            MissingHAProxy: If there is none to start.
            RuntimeError: If one does not come up.
        """
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
        if program is None:
            msg = "HAProxy is not installed: on Debian and Ubuntu, apt-get install haproxy; or take --balancer tcp"
            raise MissingHAProxy(msg)
        self._slots: dict[Target, int] = {}
        self._ready: set[Target] = set()
        self._weights: dict[Target, int] = {}
        # Only its owner can enter a directory made by mkdtemp, so nobody else can reach the sockets in it.
        self._private = tempfile.TemporaryDirectory(prefix="rollout-")
        for number in range(1, self.number_of_nodes + 1):
            name = f"haproxy-{number}"
            settings = CONFIGURATION.format(
                socket=self._socket(number),
                connections=raise_file_limit() // 2 - 50,
                port=self.port,
                slots=self.targets,
                rule=self.rule.replace("round-robin", "roundrobin").replace("least-connections", "leastconn"),
            )
            file = Path(self._private.name, f"{name}.cfg")
            await asyncio.to_thread(file.write_text, settings)
            command = [program, "-db", "-f", str(file)]
            self.nodes.append(await self.children.start(name, command, log=self.results / f"{name}.log"))
        for number, node in enumerate(self.nodes, 1):
            await _wait_up(node, self._socket(number))

    async def stop(self) -> None:
        """End the processes and remove their sockets."""
        await super().stop()
        if hasattr(self, "_private"):
            self._private.cleanup()

    async def route_to(self, weights: Mapping[Target, int]) -> None:
        """
        Set the states of those servers whose state has changed, and the weights.

        A new target takes a slot of the backend, and keeps it.
        """
        healthy = [target for target, weight in weights.items() if weight]
        for host, port in healthy:
            if (host, port) not in self._slots:
                slot = self._slots[host, port] = len(self._slots) + 1
                await self._command(f"set server tasks/task{slot} addr {host} port {port}")
        for target in set(healthy) - self._ready:
            await self._command(f"set server tasks/task{self._slots[target]} state ready")
        for target in healthy:
            if self._weights.get(target, 1) != weights[target]:
                await self._command(f"set server tasks/task{self._slots[target]} weight {weights[target]}")
                self._weights[target] = weights[target]
        for target in self._ready - set(healthy):
            await self._command(f"set server tasks/task{self._slots[target]} state drain")
        self._ready = set(healthy)

    async def cut(self, target: Target) -> None:
        """Shut down the sessions of the server."""
        await self._command(f"shutdown sessions server tasks/task{self._slots[target]}")

    async def drop(self, share: float) -> None:
        """Shut down sessions one by one, many in a line: it knows no command for a part of them."""
        for number in range(1, len(self.nodes) + 1):
            found = [
                line.partition(":")[0]
                for line in (await self._ask(number, "show sess")).splitlines()
                if " fe=clients " in line
            ]
            dropped = [f"shutdown session {each}" for each in found[: round(share * len(found))]]
            for first in range(0, len(dropped), IN_A_LINE):
                await self._ask(number, ";".join(dropped[first : first + IN_A_LINE]))

    async def retire(self) -> None:
        """Let the frontend listen no more."""
        await self._command("disable frontend clients")

    def _socket(self, number: int) -> Path:
        return Path(self._private.name, f"{number}.sock")

    async def _command(self, command: str) -> None:
        for number, node in enumerate(self.nodes, 1):
            answer = await self._ask(number, command)
            if answer and not answer.endswith(TAKEN):
                msg = f"{node.name} answers “{command}” with “{answer}”; see {node.log}"
                raise RuntimeError(msg)

    async def _ask(self, number: int, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self._socket(number))
        writer.write(command.encode() + b"\n")
        answer = (await reader.read()).decode().strip()
        writer.close()
        await writer.wait_closed()
        return answer


async def _wait_up(node: Child, door: Path) -> None:
    give_up = time.monotonic() + STARTS_WITHIN
    while not door.exists():  # noqa: ASYNC240 - HAProxy tells nobody that it is up
        if not node.is_alive or time.monotonic() > give_up:
            raise not_started(node)
        await asyncio.sleep(0.05)
