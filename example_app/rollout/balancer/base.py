"""What a balancer must be able to do."""

import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from example_app.limits import raise_file_limit
from example_app.ports import find_port
from example_app.processes import Child, Children
from example_app.rollout.balancer.routing import Rule, Target

__all__ = ["STARTS_WITHIN", "Balancer", "Target", "not_started"]

STARTS_WITHIN = 20.0
"""Seconds a node has to accept connections."""


class Balancer(ABC):
    """
    A balancer of one or more nodes that share one port, as a real one consists of nodes behind one name.

    Args:
        children: Where its processes are started.
        results: Where its logs go.
        clients: How many connections it must hold, each of which takes two open files.
        targets: How many targets it must know, from the first to the last.
        rule: Which target gets the next one.
        port: Where it listens, beside another that has the port; one of its own by default.
    """

    name: str

    def __init__(
        self, children: Children, results: Path, *, clients: int, targets: int, rule: Rule, port: int | None = None
    ) -> None:
        self.clients = clients
        self.children = children
        self.results = results
        self.targets = targets
        self.rule = rule
        # One in four to spare: a client may be back before its former connection is gone.
        self.number_of_nodes = max(1, math.ceil(clients * 2 * 1.25 / raise_file_limit()))
        # Bound for as long as the lab lives, so that a second lab on this machine takes another one.
        self._claim = _claim_port() if port is None else None
        self.port: int = self._claim.getsockname()[1] if self._claim else port or 0
        self.nodes: list[Child] = []

    @abstractmethod
    async def start(self) -> None:
        """
        Accept connections.

        Raises:
            RuntimeError: If a node does not come up.
        """

    @abstractmethod
    async def route_to(self, weights: Mapping[Target, int]) -> None:
        """
        Send new connections to these targets from now on, by their weights, and to no other.

        Raises:
            RuntimeError, OSError: If a node does not obey.
        """

    @abstractmethod
    async def cut(self, target: Target) -> None:
        """Close every connection with *target* at once, without a word to either side."""

    @abstractmethod
    async def drop(self, share: float) -> None:
        """Close a share of all connections at once, whichever, without a word to either side."""

    async def stop(self) -> None:
        """End the nodes."""
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            await node.wait(5)
        if self._claim:
            self._claim.close()

    @abstractmethod
    async def retire(self) -> None:
        """Accept nothing more, and keep the connections there are."""

    def successor(self) -> Self:
        """Return another balancer on the same port, as behind a name that leads elsewhere from now on."""
        results = self.results / "second-balancer"
        results.mkdir(exist_ok=True)
        return type(self)(
            self.children, results, clients=self.clients, targets=self.targets, rule=self.rule, port=self.port
        )


def not_started(node: Child) -> RuntimeError:
    """Return the error of a node that does not come up."""
    how = "did not start" if node.is_alive else f"ended with {node.returncode}"
    return RuntimeError(f"{node.name} {how}; see {node.log}")


def _claim_port() -> socket.socket:
    """
    Return a socket bound to a port that the nodes can share, and no other program can have.

    One that is free to listen on may not be free to bind: connections of an earlier lab may linger on it (TIME_WAIT).
    """
    taken: set[int] = set()
    while True:
        port, claim = find_port(frozenset(taken)), socket.socket()
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            taken.add(port)
        else:
            return claim
