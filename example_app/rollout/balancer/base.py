"""What a balancer must be able to do, and how many processes it takes."""

import math
import resource
import socket
from abc import ABC, abstractmethod
from pathlib import Path
from random import Random

from example_app.rollout.balancer.routing import Rule, Target
from example_app.rollout.children import Child, Children

__all__ = ["Balancer", "Target", "files_per_process", "find_port"]

PORTS = range(20000, 32000)
"""Below the ports that the kernel hands out for outgoing connections."""


class Balancer(ABC):
    """
    A balancer of one or more nodes that share one port, as a real one consists of nodes behind one name.

    Args:
        children: Where its processes are started.
        results: Where its logs go.
        clients: How many connections it must hold, each of which takes two open files.
        rule: Which target gets the next one.
    """

    name: str

    def __init__(self, children: Children, results: Path, *, clients: int, rule: Rule) -> None:
        self.children = children
        self.results = results
        self.rule = rule
        # One in four to spare: a client may be back before its former connection is gone.
        self.number_of_nodes = max(1, math.ceil(clients * 2 * 1.25 / files_per_process()))
        # Bound for as long as the lab lives, so that a second lab on this machine takes another one.
        self._claim = socket.socket()
        self._claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.port = find_port()
        self._claim.bind(("127.0.0.1", self.port))
        self.nodes: list[Child] = []

    @abstractmethod
    async def start(self) -> None:
        """Accept connections."""

    @abstractmethod
    async def route_to(self, healthy: list[Target]) -> None:
        """Send new connections to these targets from now on, and to no other."""

    @abstractmethod
    async def cut(self, target: Target) -> None:
        """Close every connection with *target* at once, without a word to either side."""

    async def stop(self) -> None:
        """End the nodes."""
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            await node.wait(5)
        self._claim.close()


def files_per_process() -> int:
    """Return how many files a process may open, less some for itself; the limit is raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard if hard != resource.RLIM_INFINITY else 1_000_000) - 100


def find_port(taken: frozenset[int] = frozenset()) -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    start = Random().randrange(len(PORTS))  # two labs at once look in different places
    for offset in range(len(PORTS)):
        port = PORTS[(start + offset) % len(PORTS)]
        if port not in taken:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
    msg = f"no free port between {PORTS.start} and {PORTS.stop}"
    raise OSError(msg)
