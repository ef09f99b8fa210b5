"""The lab's own balancer: asyncio, TCP, one process for some 8,000 connections."""

import asyncio
import sys

from example_app.rollout.balancer.base import Balancer, Target

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
            async with asyncio.timeout(20):
                await anext(node.messages())

    async def route_to(self, healthy: list[Target]) -> None:
        """Tell every node."""
        for node in self.nodes:
            node.tell({"route_to": healthy})

    async def cut(self, target: Target) -> None:
        """Tell every node."""
        for node in self.nodes:
            node.tell({"cut": target})
