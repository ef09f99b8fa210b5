"""Which target gets the next connection: no sockets here."""

from collections import Counter
from typing import Literal

__all__ = ["Routing", "Rule", "Target"]

Rule = Literal["round-robin", "least-connections"]
Target = tuple[str, int]
"""Address and port."""


class Routing:
    """
    Picks targets, and counts what each has.

    Args:
        rule: ``"round-robin"``, an ALB's default, or ``"least-connections"``.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._healthy: list[Target] = []
        self._turn = 0
        self.connections: Counter[Target] = Counter()

    def route_to(self, healthy: list[Target]) -> None:
        """Pick among these from now on."""
        self._healthy = healthy

    def pick(self) -> Target | None:
        """Return the target of a new connection, counted from now on; ``None`` if no target is healthy."""
        if not self._healthy:
            return None
        self._turn += 1
        start = self._turn % len(self._healthy)
        target = self._healthy[start]
        if self._rule == "least-connections":
            # Beginning at another one each time, so that equals take turns.
            order = self._healthy[start:] + self._healthy[:start]
            target = min(order, key=self.connections.__getitem__)
        self.connections[target] += 1
        return target

    def release(self, target: Target) -> None:
        """Take note that a connection has ended."""
        self.connections[target] -= 1
