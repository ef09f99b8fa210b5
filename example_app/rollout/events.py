"""What the lab did and saw, and when."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["Event", "Events", "Kind"]

Kind = Literal[
    "stage", "shifted", "started", "registered", "healthy", "deregistered", "draining seen", "drained", "SIGTERM",
    "cut", "SIGKILL", "exited", "fault", "sessions", "deployment began", "deployment ended",
]  # fmt: skip


class Event(NamedTuple):
    """Something that happened, in Unix time."""

    at: float
    kind: Kind
    what: str


@dataclass(slots=True)
class Events:
    """The log of one rollout."""

    all: list[Event] = field(default_factory=list)
    clock: Callable[[], float] = time.time
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, kind: Kind, what: str = "", *, ago: float = 0.0) -> None:
        """Take note that something happened, now or some seconds ago."""
        self.all.append(Event(self.clock() - ago, kind, what))
        self._news.set()

    @property
    def zero(self) -> float:
        """When sessions could first leave: the shift or the first deregistration; where neither was, the beginning."""
        found = self.times("shifted") or self.times("deregistered") or self.times("deployment began")
        return next(iter(found), 0.0)

    async def wait_for(self, kind: Kind, what: str | None = None) -> None:
        """Wait until an event of that kind has happened, to *what* or to anything."""
        while not any(each.kind == kind and what in (None, each.what) for each in self.all):
            self._news.clear()
            await self._news.wait()

    def times(self, kind: Kind) -> list[float]:
        """Return when events of that kind happened, in order."""
        return sorted(each.at for each in self.all if each.kind == kind)
