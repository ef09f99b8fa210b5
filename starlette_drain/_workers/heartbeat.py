# Who does what need be done once per task is not negotiated but concluded. Each worker says since when it has been
# there; of those who speak, the one that has been there longest does it. All see the same files, so all conclude the
# same, and a mistake (a worker that stalled, or was seen too late) mends itself at the next look. A lock would not: a
# child that the application forks keeps it when its worker dies, since it belongs to the open file (flock(2)).
"""What each worker of a task says of itself, and what follows from what all of them say."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from starlette_drain._engine.drain import Drain

__all__ = ["SILENCE", "Heartbeat", "Latest", "count", "leader", "sums", "understand"]

SILENCE = 20.0
"""Seconds after which a worker that says nothing is taken to hang."""

SESSIONS = ("open", "waiting", "held", "leaving")
PROGRESS = ("shed", "left", "refused", "forced")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """
    How one worker stands. All times are seconds on the monotonic clock, which all processes of a machine share.

    Attributes:
        at: When it said so.
        since: When it came.
        order: The number of the last order it has obeyed.
        state: Its `DrainState`.
        sessions: How many sessions it has, by how they stand.
        counts: Transfers under way, and the tally of its drain.
        failed: Triggers that have failed in it, and that another worker has to run.
        advice: What it knows of the window that a drain may take, as `Latest`.
        fleet: What it knows of the other tasks, as `Latest`.
        is_done: Whether it has no reason to live on.
    """

    at: float
    since: float
    order: int
    state: str
    sessions: dict[str, int]
    counts: dict[str, int]
    failed: list[str]
    advice: tuple[float, Any]
    fleet: tuple[float, Any]
    is_done: bool

    def shown(self) -> dict[str, Any]:
        """Return what ``GET /drain`` shows of this worker."""
        return {"state": self.state, "sessions": self.sessions, **self.counts}


def count(drain: Drain) -> tuple[dict[str, int], dict[str, int]]:
    """Return the sessions and the counts of this worker."""
    statistics, progress = drain.statistics(), drain.progress()
    sessions = {name: getattr(statistics, name) for name in SESSIONS}
    tally = {name: getattr(progress, name) if progress else 0 for name in PROGRESS}
    return sessions, {"transfers": len(drain.transfers), **tally}


def understand(contents: Mapping[int, Mapping[str, Any]]) -> dict[int, Heartbeat]:
    """
    Read what workers have said, by pid.

    Raises:
        ValueError: If one of them does not speak as this one does.
    """
    try:
        return {pid: Heartbeat(**content) for pid, content in contents.items()}
    except TypeError as error:
        msg = "the workers run different versions of starlette_drain and do not understand each other"
        raise ValueError(msg) from error


def leader(deed: str, words: Mapping[int, Heartbeat], now: float) -> int | None:
    """Return the pid of the worker that does *deed* for all; ``None`` where it has failed in each that speaks."""
    able = [(word.since, pid) for pid, word in words.items() if now - word.at <= SILENCE and deed not in word.failed]
    return min(able)[1] if able else None


def sums(words: Collection[Heartbeat]) -> dict[str, Any]:
    """Return the counts of all workers together."""
    sessions = {name: sum(word.sessions.get(name, 0) for word in words) for name in SESSIONS}
    return {
        "sessions": sessions,
        **{name: sum(word.counts.get(name, 0) for word in words) for name in ("transfers", *PROGRESS)},
    }


class Latest:
    """
    Something that any worker may find out for all: what was found out last holds.

    Args:
        tell: Who is told what another worker has found out.
    """

    def __init__(self, emit: Callable[[Any], object]) -> None:
        self._tell = emit
        self.found: tuple[float, Any] = (0.0, None)
        """When, and what."""

    def note(self, now: float, value: Any) -> None:
        """Take note of what is known here: if it is something else than before, it was found out here and now."""
        if value != self.found[1]:
            self.found = now, value

    def hear(self, found: tuple[float, Any]) -> None:
        """Believe another worker that has found out later."""
        at, value = found
        if at > self.found[0]:
            self.found = at, value
            self._tell(value)
