# The workers do not negotiate who does what is done once per task. Each publishes since when it runs, and of those that
# are alive the one that has run longest is the leader. All see the same files, so all come to the same result, and a
# mistake (a worker that stalled, or was seen too late) is corrected a moment later. A lock would be no better: a child
# that the application forks keeps it when its worker dies, since it belongs to the open file (flock(2)).
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
"""Seconds without a heartbeat after which a worker is taken to hang."""

SESSIONS = ("open", "waiting", "held", "leaving", "opened", "closed")
UNDER_WAY = ("answers", "working", "failed_hooks", "rotated", "rotating")
PROGRESS = ("shed", "left", "refused", "forced", "return_rate")
PLAN = ("rate", "eta")
REPORT = ("sessions_at_start", "arrived", *PROGRESS, "still_open", "peak_rate", "mean_rate", "duration", "slack")
COMBINED = {"eta": max, "duration": max, "slack": min}
"""How the numbers of several workers become one, where that is not their sum."""
SIGHTS = ("watching", "not yet", "blind")
"""How a trigger may see its source, the worst last."""
ADMISSION = ("limit", "in_progress", "held", "held_ever", "refused_ever")
OUTCOMES = ("drained", "cancelled", "late", "incomplete")
"""How a drain may end, the worst last: the task's outcome is that of the worker in which it ended worst."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """
    The status of one worker. All times are seconds on the monotonic clock, which all processes of a machine share.

    Attributes:
        at: When it was taken.
        since: Since when the worker runs.
        applied: The number of the last command that it has applied.
        state: Its `DrainState`.
        sessions: How many sessions it has, by how they stand.
        counts: Answers and work under way, close hooks that have failed, the sessions that a rotation has asked to
            leave and those that it is still to ask, the tally of its drain, and the rate and the eta of its plan.
        report: The numbers and the outcome of its last report, if there was one.
        failures: How often triggers of which one runs per task have failed in it, by their names.
        window: What it knows of the window that a drain may take, as `Latest`.
        fleet: What it knows of the other tasks, as `Latest`.
        is_done: Whether nothing keeps it from ending.
        holds: The triggers that hold a claim in this very worker; ``None`` of a version that does not say.
        is_told_to_stop: Whether it was told to stop; ``None`` of a version that does not say.
        sights: How its triggers see their sources: ``watching``, ``not yet`` or ``blind``, since when, and why.
        admission: The figures of its limit on handshakes in progress, if it has one.
        rotation: The rotation that was asked for last, as `Latest`.
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
        Read a heartbeat.

        Raises:
            ValueError: If *text* is none, or one of a version that this one cannot read.
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
        """Return what ``GET /drain`` shows of this worker."""
        shown = {"state": self.state, "sessions": self.sessions, **self.counts}
        return shown if self.admission is None else {**shown, "admission": self.admission}


def _sight(state: str, since: float, because: str) -> tuple[str, float, str]:
    return SIGHTS[SIGHTS.index(state)], float(since), str(because)


def _numbers(names: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers with these *names*; 0 for one that an older version does not write."""
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

    That is the one that has run longest, of those in which *task* has failed least often.
    """
    alive = [
        (each.failures.get(task, 0), each.since, pid) for pid, each in heartbeats.items() if now - each.at <= SILENCE
    ]
    return min(alive)[2] if alive else None


def task_state(own: str, others: Iterable[tuple[str, bool]]) -> str:
    """
    Return the state of the task: draining if any worker drains, drained if all are, otherwise serving.

    Args:
        own: The state of this worker.
        others: The state of each other worker, and whether it has applied all commands. One that has not will follow in
            a moment: it serves where this one does, and does not yet drain where this one does.
    """
    serving, draining = DrainState.SERVING.value, DrainState.DRAINING.value
    behind = serving if own == serving else draining
    states = {own, *(state if is_current else behind for state, is_current in others)}
    if draining in states:
        return draining
    return own if len(states) == 1 else serving


def watch(sights: Mapping[str, tuple[str, float, str]], now: float) -> str | None:
    """Return how the sources of a task are seen, where that is worst; ``None`` where nothing was reported."""
    if not sights:
        return None
    trigger, (state, since, because) = max(sights.items(), key=lambda each: (SIGHTS.index(each[1][0]), -each[1][1]))
    return f"blind since {now - since:.0f} s ago because {trigger}: {because}" if state == "blind" else state


def sums(heartbeats: Collection[Heartbeat]) -> dict[str, Any]:
    """Return the numbers of all workers together."""
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
    Something that any worker may find out for all: what was found out last holds.

    Args:
        tell: What to call with something that another worker has found out.
    """

    def __init__(self, tell: Callable[[Any], object]) -> None:
        self._tell = tell
        self.found: tuple[float, Any] = (0.0, None)
        """When, and what."""

    def note(self, now: float, value: Any) -> None:
        """Take note of what is known here: if it is something else than before, it was found out here and now."""
        if value != self.found[1]:
            self.found = now, value

    def learn(self, found: tuple[float, Any]) -> None:
        """Take over what another worker has found out later."""
        at, value = found
        if at > self.found[0]:
            self.found = at, value
            self._tell(value)
