"""The outcome of a rehearsal, and the reasons why it is not good. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette_drain.tools.rehearse.clients import CUT
from starlette_drain.tools.tasks.seen import counted

__all__ = ["Rehearsal", "bars", "reasons"]

BURST = 3.0
"""The factor above the mean rate from which a second counts as a burst, unless it has only a few closes."""

FEW = 10

SPREAD = 20.0
"""
Seconds that a drain takes if the delay, of which half is free at least, allows. It may take longer, but one that takes
less is compared with this; else a burst of all clients would be its own mean.
"""

LONGEST_BARS = 100


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """
    The outcome of a rehearsal. Times are seconds since the deregistration.

    Attributes:
        sessions: The number of clients that connected.
        delay: The deregistration delay in seconds.
        moments: When the clients' connections ended.
        codes: Their close codes.
        cut: How many were left when the balancer cut.
        shown: The last answer of the process at ``/drain``.
        forced: The path of an endpoint for each time that it had to be cancelled.
        tracebacks: The last line of each logged traceback.
        status: The exit status of the server; ``None`` if it had to be killed.
        errors: The errors of the clients.
    """

    sessions: int
    delay: float
    moments: Sequence[float]
    codes: Sequence[int]
    cut: int
    shown: dict[str, Any]
    forced: Sequence[str]
    tracebacks: Sequence[str]
    status: int | None
    errors: Sequence[str]


def reasons(seen: Rehearsal) -> list[tuple[str, str]]:
    """Return the reasons why it is not good, each with a remedy; empty if it is good."""
    return [*_of_clients(seen), *_of_application(seen), *_of_drain(seen)]


def _of_clients(seen: Rehearsal) -> Iterator[tuple[str, str]]:
    # All sessions have ended, so what was left for the balancer to cut had come back, or did not see the end.
    stayed = seen.cut if _outcome(seen) == "drained" and not _is_observed(seen) else 0
    if (cut := Counter(seen.codes)[CUT] - stayed) > 0:
        yield (
            f"{cut} of {counted(seen.sessions, 'client')} lost the connection without a close",
            "see the reasons below; if there are none, the delay is too short for the window and the margin",
        )
    if stayed:
        yield (
            f"{stayed} of {counted(seen.sessions, 'client')} did not return when the connection ended",
            "let the client return its close code, and not connect again",
        )
    asked = [moment for moment, code in zip(seen.moments, seen.codes, strict=True) if code != CUT]
    if (peak := _peak(each for each in asked if each <= seen.delay)) > max(FEW, BURST * _mean(asked, seen.delay)):
        yield (
            f"{peak} of {counted(seen.sessions, 'client')} left within one second",
            "check whether something else ends them; if not, use an even pacing, a lower rate or a longer window",
        )


def _of_drain(seen: Rehearsal) -> Iterator[tuple[str, str]]:
    outcome = _outcome(seen)
    late = sum(moment > seen.delay and code != CUT for moment, code in zip(seen.moments, seen.codes, strict=True))
    if _is_observed(seen):
        yield (
            "mode='observe' asked no client to leave: SIGTERM ended the sessions",
            "rehearse with mode='drain', or with DRAIN_MODE=drain if the application does not set the mode",
        )
    elif outcome is None:
        yield (
            "it did not finish draining before SIGTERM",
            "check in its log whether it watched its target; 'starlette-drain doctor' checks a set-up on AWS",
        )
    elif outcome != "drained":
        kept = "let the endpoints above return sooner"
        slow = "give it more time: a longer delay, or a pacing without a limit"
        yield f"the drain ended {outcome}", kept if seen.forced or seen.shown.get("working") else slow
    elif late:
        yield (
            f"{late} of {counted(seen.sessions, 'client')} left only after SIGTERM",
            "check in its log whether it watched its target, and what ended these connections",
        )
    if seen.status is None:
        yield "the server did not end within 30 s of SIGTERM", "find out what it waits for; ECS would send SIGKILL"
    elif seen.status not in (0, -15):
        yield f"the server ended with exit code {seen.status}", "see its log"


def _of_application(seen: Rehearsal) -> Iterator[tuple[str, str]]:
    for path, count in Counter(re.sub(r"\d+", "{n}", each) for each in seen.forced).most_common():
        yield (
            f"the endpoint {path} had to be cancelled {counted(count, 'time')}: it did not return after the disconnect",
            "let it return when receive() gives the disconnect, or raise DRAIN_GRACE if it needs longer",
        )
    if working := seen.shown.get("working"):
        yield (
            f"{counted(working, 'endpoint')} still running when the server stopped had to be cancelled",
            "let them end in time, or give them longer: --timeout-graceful-shutdown, and stopTimeout on ECS",
        )
    if failed := seen.shown.get("failed_hooks"):
        yield (
            f"{counted(failed, 'close hook')} failed or took too long",
            "see the first in the log; all hooks of a session together have 2 s",
        )
    for line, count in Counter(seen.tracebacks).most_common():
        yield (
            f"a traceback was logged {counted(count, 'time')}: {line}",
            "see the log: an endpoint should return after the disconnect, not raise",
        )


def bars(moments: Sequence[float], delay: float, steps: str = " ▁▂▃▄▅▆▇█") -> str:
    """Draw the closes over the delay, with a character for each second or for several."""
    width = max(1, -(-int(delay + 1) // LONGEST_BARS))
    counts = Counter(int(max(0.0, each)) // width for each in moments)
    top = max(counts.values(), default=1)
    last = max([int(delay) // width, *counts])
    return "".join(steps[-(-(len(steps) - 1) * counts[each] // top)] for each in range(last + 1))


def _outcome(seen: Rehearsal) -> str | None:
    report = seen.shown.get("report")
    return None if report is None else str(report["outcome"])


def _is_observed(seen: Rehearsal) -> bool:
    return seen.shown.get("mode") == "observe"


def _peak(moments: Iterable[float]) -> int:
    return max(Counter(int(each) for each in moments).values(), default=0)


def _mean(moments: Sequence[float], delay: float) -> float:
    took = max(moments) - min(moments) if moments else 0.0
    return len(moments) / max(took, min(SPREAD, delay / 2))
