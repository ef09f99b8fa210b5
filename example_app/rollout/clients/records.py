"""
What clients remember, and the file they leave it in.

The file is the contract between the lab and any load generator: one JSON object with

- ``opened``: when WebSockets were established, one Unix time for each;
- ``connected``: when TCP connections were, whatever came of them; ``opened`` where it is missing;
- ``losses``: ``[client, lost at, close code, back at or null]`` for each connection that ended; the code is 1006 where
  there was no close frame (RFC 6455 section 7.4.1);
- ``failures``: how often an attempt failed, by reason;
- ``deaf``: what clients that never read found in the end, by close code.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["NO_CLOSE_FRAME", "Loss", "Records"]

NO_CLOSE_FRAME = 1006


class Loss(NamedTuple):
    """A connection that ended; *back* is when its client had one again."""

    client: int
    lost: float
    code: int
    back: float | None


@dataclass(slots=True)
class Records:
    """All that happened to a fleet; see the module."""

    opened: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    deaf: Counter[str] = field(default_factory=Counter)

    def write(self, path: Path) -> None:
        """Leave the file."""
        content = {
            "opened": self.opened,
            "connected": self.connected,
            "losses": self.losses,
            "failures": self.failures,
            "deaf": self.deaf,
        }
        path.write_text(json.dumps(content))

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "Records":
        """Put the files of several processes together."""
        together = cls()
        for path in paths:
            content = json.loads(path.read_text())
            together.opened.extend(content["opened"])
            together.connected.extend(content.get("connected", content["opened"]))
            together.losses += [Loss(*each) for each in content["losses"]]
            together.failures.update(content.get("failures", {}))
            together.deaf.update(content.get("deaf", {}))
        return together
