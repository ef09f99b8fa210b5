# Leader election without negotiation: each worker publishes when it started, and of those alive the one that has run
# longest is the leader. All workers see the same files, so all elect the same one, and a mistake (a worker that was
# stalled or seen too late) is corrected a moment later. A lock would be no better: it belongs to the open file
# (flock(2)), so a child forked by the application keeps it when the worker dies.
"""The status that each worker of a task publishes, and what follows from all of them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from starlette_drain._core.state import DrainState
from starlette_drain._core.turnover import Rotation
from starlette_drain._engine.engine import Engine
from starlette_drain._workers import file_format

__all__ = ["SILENCE", "Heartbeat", "Latest", "count", "leader", "reported", "sums", "task_state", "watch"]

SILENCE = 20.0
"""Seconds without a heartbeat after which a worker counts as dead."""

SESSIONS = ("open", "waiting", "held", "leaving", "opened", "closed")
UNDER_WAY = ("answers", "working", "failed_hooks", "rotated", "rotating")
PROGRESS = ("shed", "left", "refused", "forced", "return_rate")
PLAN = ("rate", "eta")
REPORT = ("sessions_at_start", "arrived", *PROGRESS, "still_open", "peak_rate", "mean_rate", "duration", "slack")
COMBINED = {"eta": max, "duration": max, "slack": min}
"""How the numbers of several workers are combined, if not by their sum."""
SIGHTS = ("watching", "not yet", "blind")
"""The watch states of a trigger, the worst last."""
ADMISSION = ("limit", "in_progress", "held", "held_ever", "refused_ever")
OUTCOMES = ("drained", "cancelled", "late", "incomplete")
"""The outcomes of a drain, the worst last: the task's outcome is the worst of its workers'."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """
    The status of one worker. All times are in seconds on the monotonic clock, which all processes of a machine share.

    Attributes:
        at: When it was taken.
        since: When the worker started.
        applied: The number of the last command that the worker has applied.
        state: Its `DrainState`.
        sessions: The number of its sessions in each state.
        counts: Answers and work in progress, failed close hooks, the sessions that a rotation has asked to leave and
            has still to ask, the tally of its drain, and the rate and eta of its plan.
        report: The numbers and the outcome of its last report, if there is one.
        failures: How often triggers that run once per task have failed in it, by name.
        window: What it knows about the window that a drain can have, as `Latest`.
        fleet: What it knows about the other tasks, as `Latest`.
        is_done: Whether it may end.
        holds: The triggers that hold a claim in this worker; ``None`` if an older version wrote it.
        is_told_to_stop: Whether it was told to stop; ``None`` if an older version wrote it.
        sights: The watch state of each trigger: ``watching``, ``not yet`` or ``blind``, since when, and why.
        admission: The figures of its limit on handshakes in progress, if it has one.
        rotation: The last rotation that was ordered, as `Latest`.
    """

    at: float
    since: float
    applied: int
    state: str
    sessions: dict[str, int]
    counts: dict[str, float]
    report: dict[str, Any] | None
    failures: dict[str, int]
    window: tuple[float, Any]
    fleet: tuple[float, Any]
    is_done: bool
    holds: list[str] | None = None
    is_told_to_stop: bool | None = None
    sights: dict[str, tuple[str, float, str]] = field(default_factory=dict)
    admission: dict[str, float] | None = None
    rotation: tuple[float, Any] = (0.0, None)

    def dump(self) -> str:
        """Return the heartbeat as JSON."""
        return file_format.dump(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Heartbeat":
        """
        Parse a heartbeat.

        Raises:
            ValueError: If *text* is not a heartbeat, or has a version that this one cannot read.
        """
        content = file_format.load(text)
        try:
            heartbeat = cls(**{each.name: content[each.name] for each in fields(cls) if each.name in content})
            (_, _), (_, _), (_, rotation) = heartbeat.window, heartbeat.fleet, heartbeat.rotation
            if rotation is not None:
                Rotation.load(rotation)
            float(heartbeat.at), float(heartbeat.since), int(heartbeat.applied), sum(heartbeat.failures.values())
            frozenset(heartbeat.holds or ())
            sights = {str(name): _sight(*each) for name, each in heartbeat.sights.items()}
            report = heartbeat.report
            if report is not None:
                report = _numbers(REPORT, report) | {"outcome": OUTCOMES[OUTCOMES.index(report["outcome"])]}
            return replace(
                heartbeat,
                sessions=_numbers(SESSIONS, heartbeat.sessions),
                counts=_numbers((*UNDER_WAY, *PROGRESS, *PLAN), heartbeat.counts),
                report=report,
                sights=sights,
                admission=_numbers(ADMISSION, heartbeat.admission) if heartbeat.admission is not None else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"it is not a heartbeat: {text!r:.80}"
            raise ValueError(msg) from error

    def shown(self) -> dict[str, Any]:
        """Return what ``GET /drain`` shows about this worker."""
        shown = {"state": self.state, "sessions": self.sessions, **self.counts}
        return shown if self.admission is None else {**shown, "admission": self.admission}


def _sight(state: str, since: float, because: str) -> tuple[str, float, str]:
    return SIGHTS[SIGHTS.index(state)], float(since), str(because)


def _numbers(names: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers with these *names*; 0 for those that an older version does not write."""
    numbers = {name: given.get(name, 0) for name in names}
    sum(numbers.values())
    return numbers


def count(engine: Engine) -> tuple[dict[str, int], dict[str, float]]:
    """Return the sessions and the counts of this worker."""
    statistics, progress = engine.statistics(), engine.progress()
    sessions = {name: getattr(statistics, name) for name in SESSIONS}
    tally = {name: getattr(progress, name) if progress else 0 for name in PROGRESS}
    plan = progress if engine.state is DrainState.DRAINING else None
    pace = {name: round(getattr(plan, name), 3) if plan else 0.0 for name in PLAN}
    rotation = engine.rotation()
    rotated = (rotation.asked, rotation.remaining) if rotation else (0, 0)
    under_way = len(engine.answers), statistics.working, engine.close_hooks.failures, *rotated
    return sessions, {**dict(zip(UNDER_WAY, under_way, strict=True)), **tally, **pace}


def reported(engine: Engine) -> dict[str, Any] | None:
    """Return the numbers and the outcome of the last report of this worker."""
    if (report := engine.report) is None:
        return None
    return {name: round(getattr(report, name), 3) for name in REPORT} | {"outcome": report.outcome}


def leader(task: str, heartbeats: Mapping[int, Heartbeat], now: float) -> int | None:
    """
    Return the pid of the worker that does *task* for all; ``None`` if none is alive.

    Of the workers in which *task* has failed least often, it is the one that has run longest.
    """
    alive = [
        (each.failures.get(task, 0), each.since, pid) for pid, each in heartbeats.items() if now - each.at <= SILENCE
    ]
    return min(alive)[2] if alive else None


def task_state(own: str, others: Iterable[tuple[str, bool]]) -> str:
    """
    Return the state of the task: draining if any worker drains, drained if all have drained, otherwise serving.

    Args:
        own: The state of this worker.
        others: The state of each other worker, and whether it has applied all commands. One that has not is about to
            follow this worker: it counts as serving if this one serves, and otherwise as draining.
    """
    serving, draining = DrainState.SERVING.value, DrainState.DRAINING.value
    behind = serving if own == serving else draining
    states = {own, *(state if is_current else behind for state, is_current in others)}
    if draining in states:
        return draining
    return own if len(states) == 1 else serving


def watch(sights: Mapping[str, tuple[str, float, str]], now: float) -> str | None:
    """Return the worst watch state of a task's triggers; ``None`` if nothing was reported."""
    if not sights:
        return None
    trigger, (state, since, because) = max(sights.items(), key=lambda each: (SIGHTS.index(each[1][0]), -each[1][1]))
    return f"blind for {now - since:.0f} s: {trigger}: {because}" if state == "blind" else state


def sums(heartbeats: Collection[Heartbeat]) -> dict[str, Any]:
    """Return the combined numbers of all workers."""
    reports = [each.report for each in heartbeats if each.report]
    report = None
    if reports:
        report = {name: _combine(name, reports) for name in REPORT}
        report["outcome"] = max((each["outcome"] for each in reports), key=OUTCOMES.index)
    limits = [each.admission for each in heartbeats if each.admission is not None]
    return {
        "admission": {name: _combine(name, limits) for name in ADMISSION} if limits else None,
        "sessions": {name: _combine(name, [each.sessions for each in heartbeats]) for name in SESSIONS},
        **{name: _combine(name, [each.counts for each in heartbeats]) for name in (*UNDER_WAY, *PROGRESS, *PLAN)},
        "report": report,
    }


def _combine(name: str, numbers: Sequence[Mapping[str, Any]]) -> Any:
    return round(COMBINED.get(name, sum)([each[name] for each in numbers]), 3)


class Latest:
    """
    A value that any worker may find out for all. The last one wins.

    Args:
        tell: Called with a value that another worker has found out.
    """

    def __init__(self, tell: Callable[[Any], object]) -> None:
        self._tell = tell
        self.found: tuple[float, Any] = (0.0, None)
        """When it was found out, and the value."""

    def note(self, now: float, value: Any) -> None:
        """Record the value known here; a value that has changed was found out *now*."""
        if value != self.found[1]:
            self.found = now, value

    def learn(self, found: tuple[float, Any]) -> None:
        """Take over the value of another worker if it is newer."""
        at, value = found
        if at > self.found[0]:
            self.found = at, value
            self._tell(value)
