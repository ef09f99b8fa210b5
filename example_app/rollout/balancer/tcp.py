"""The lab's own balancer: asyncio, TCP, as many connections a process as it may open files for."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress

from example_app.processes import Child
from example_app.rollout.balancer.base import STARTS_WITHIN, Balancer, Target, not_started

__all__ = ["TCPBalancer"]


class TCPBalancer(Balancer):
    """Nodes of `example_app.rollout.balancer.node` that share a port through ``SO_REUSEPORT``."""

    name = "tcp"

    async def start(self) -> None:
        """Start the nodes."""
        for number in range(1, self.number_of_nodes + 1):
            name = f"balancer-{number}"
            command = [sys.executable, "-m", "example_app.rollout.balancer.node", str(self.port), self.rule]
            node = await self.children.start(name, command, log=self.results / f"{name}.log", talks=True)
            self.nodes.append(node)
        for node in self.nodes:
            await _wait_listening(node)

    async def route_to(self, weights: Mapping[Target, int]) -> None:
        """Tell every node: a target is listed as often as it weighs."""
        turns = [target for target, weight in weights.items() for _ in range(weight)]
        for node in self.nodes:
            if not node.is_alive:
                raise not_started(node)
            node.emit({"route_to": turns})

    async def cut(self, target: Target) -> None:
        """Tell every node."""
        for node in self.nodes:
            node.emit({"cut": target})

    async def drop(self, share: float) -> None:
        """Tell every node."""
        for node in self.nodes:
            node.emit({"drop": share})

    async def retire(self) -> None:
        """Tell every node."""
        for node in self.nodes:
            node.emit({"retire": True})


async def _wait_listening(node: Child) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STARTS_WITHIN):
            if await anext(node.messages(), None):
                return
            await node.wait()
    raise not_started(node)
