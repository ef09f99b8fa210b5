"""The state of tasks, the problems in it, and the outcome of a deployment. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starlette_drain._core.printable import printable

__all__ = [
    "Problem",
    "Seen",
    "Totals",
    "counted",
    "lag_of",
    "only_observes",
    "outcome",
    "planned",
    "problems",
    "totals",
]

TOLERANCE = 1.0
"""Seconds after the deadline at which the last session may be asked without a problem."""


@dataclass(frozen=True, slots=True)
class Seen:
    """
    The state of a task.

    Attributes:
        task: Its name.
        shown: Its last answer at ``/drain``, if there was one.
        why_not: Why it does not answer now; empty if it does.
        remedy: What to do about that, if there is a specific remedy.
        is_gone: Whether it has ended.
        is_starting: Whether ECS has not started its containers yet.
    """

    task: str
    shown: Mapping[str, Any] | None = None
    why_not: str = ""
    remedy: str = ""
    is_gone: bool = False
    is_starting: bool = False

    @property
    def state(self) -> str:
        """Its state in a word."""
        if self.is_gone:
            return "gone"
        if self.is_starting:
            return "starting"
        return str((self.shown or {}).get("state", "")) if not self.why_not else "not known"


@dataclass(frozen=True, slots=True)
class Problem:
    """
    Something that is wrong.

    Attributes:
        task: The name of the task.
        problem: What is wrong.
        remedy: What to do about it.
    """

    task: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Totals:
    """
    The sums over all tasks.

    Attributes:
        tasks: The number of tasks.
        draining: The number of draining tasks.
        open: The number of open sessions.
        planned: How many sessions would be open if all drains were even.
        rate: Sessions asked to leave per second.
    """

    tasks: int
    draining: int
    open: int
    planned: int
    rate: float


def counted(number: int, noun: str) -> str:
    """Return *number* with its *noun*, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def only_observes(shown: Mapping[str, Any]) -> bool:
    """Return whether the task closes no session: its drain, and its report, are what would have been."""
    return shown.get("mode") == "observe"


def planned(shown: Mapping[str, Any]) -> int | None:
    """Return how many sessions would be left by now in an even drain; ``None`` if no drain runs."""
    drain = shown.get("drain") or {}
    if not drain.get("window"):
        return None
    at_start: float = shown["sessions"]["open"] + drain.get("shed", 0) + drain.get("left", 0)
    at_start -= shown["sessions"].get("leaving", 0)  # they are counted as shed too
    return int(at_start * max(0.0, min(1.0, drain.get("time_left", 0.0) / drain["window"])) + 0.5)


def lag_of(shown: Mapping[str, Any]) -> float | None:
    """Return how late, at most, the first cause of the running drain, or else of the last, was noticed, in seconds."""
    drain = shown.get("drain")
    cause = next(iter(drain.get("causes") or ()), {}) if drain else shown.get("report") or {}
    lag = cause.get("detection_lag")
    return float(lag) if isinstance(lag, int | float) else None


def totals(tasks: Iterable[Seen]) -> Totals:
    """Return the sums over all tasks that have answered and are not gone."""
    shown = [each.shown for each in tasks if each.shown and not each.is_gone]
    return Totals(
        tasks=len(shown),
        draining=sum(each["state"] == "draining" for each in shown),
        open=sum(each["sessions"]["open"] for each in shown),
        planned=sum(each["sessions"]["open"] if (even := planned(each)) is None else even for each in shown),
        rate=round(sum((each.get("drain") or {}).get("rate", 0.0) for each in shown), 3),
    )


def problems(tasks: Iterable[Seen]) -> list[Problem]:
    """Return all problems, the worst first."""
    return [problem for _, problem in sorted(_ranked(tasks), key=lambda each: each[0])]


def _ranked(tasks: Iterable[Seen]) -> Iterator[tuple[int, Problem]]:
    for each in tasks:
        if each.is_gone or each.is_starting:
            continue
        if each.why_not:
            remedy = "check that it runs, and its log; until it answers nothing is known about its sessions"
            yield 1, Problem(each.task, each.why_not, each.remedy or remedy)
        elif each.shown is not None:
            for rank, problem, remedy in _of(each.shown):
                yield rank, Problem(each.task, problem, remedy)


def _of(shown: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    yield from _of_workers(shown)
    yield from _of_drain(shown)
    yield from _of_sources(shown)
    yield from _of_process(shown)


def _of_workers(shown: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    for worker in shown.get("workers", ()):
        if worker.get("silent"):
            pid, of_it = worker["pid"], worker["sessions"]["open"]
            problem = f"worker {pid} is stuck: no heartbeat for {worker['seconds_ago']:.0f} s"
            if of_it:
                problem += f", with {counted(of_it, 'open session')} that it does not ask to leave"
            remedy = (
                f"find out what blocks its event loop ('py-spy dump --pid {pid}'); if it stays blocked, "
                f"'kill -KILL {pid}' cuts its sessions now, while the others still leave evenly"
            )
            yield 0, problem, remedy
    if shown.get("scope") == "worker" and not any(each.get("silent") for each in shown.get("workers", ())):
        remedy = "its log says why, under 'workers'; until then each worker drains on its own"
        yield 3, "its workers cannot reach each other: the figures are those of one, and so is a command", remedy


def _of_drain(shown: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    drain, sessions = shown.get("drain") or {}, shown["sessions"]
    if drain and drain.get("eta", 0.0) > drain.get("time_left", 0.0) + TOLERANCE:
        late = drain["eta"] - drain["time_left"]
        remedy = "the balancer cuts the rest; raise the deregistration delay, or the limit of the pacing"
        yield 2, f"the last session would be asked {late:.0f} s after the deadline", remedy
    if only_observes(shown) and shown["state"] != "serving" and sessions["open"]:
        remedy = "set DRAIN_MODE to 'drain' to close sessions; this mode only logs which it would close"
        yield 4, f"the drain is only observed: {counted(sessions['open'], 'session')} open, and none is closed", remedy
    elif shown["state"] == "drained" and sessions["open"]:
        remedy = "find out what their endpoints do; the balancer cuts them at the end of the delay"
        yield 4, f"drained, with {counted(sessions['open'], 'session')} still open", remedy
    if (held := sessions.get("held", 0)) and shown["state"] == "draining" and held == sessions["open"]:
        yield 5, f"all remaining sessions are held: {held}", "find out why the application holds them"


def _of_sources(shown: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    remedy = "see its log for the remedy, or run 'starlette-drain doctor' in the container"
    blind = [each for each in shown["triggers"].values() if isinstance(each, Mapping) and each.get("watch") == "blind"]
    if (watch := str(shown.get("watch"))).startswith("blind") and not blind:  # another worker watches, or it is off
        yield 3, f"its sources see nothing: {printable(watch)}", remedy
    for name, status in shown["triggers"].items():
        if not isinstance(status, Mapping):
            continue
        has_failed = status.get("failed") or status.get("error")
        is_absent = status.get("watch") == "not yet" and status.get("last_error")
        if status.get("watch") == "blind" or has_failed or is_absent:
            why = has_failed or status.get("last_error") or status.get("because")
            yield 3, f"{printable(name)} sees nothing: {printable(str(why))}", remedy


def _of_process(shown: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    for each in (shown.get("process") or {}).get("problems", ()):
        if each["level"] == "unsafe":
            yield 6, printable(each["problem"]), printable(each["remedy"])


def outcome(tasks: Sequence[Seen]) -> list[dict[str, Any]]:
    """
    Return the outcome of each task that drained or is gone.

    If a task is gone and its report was not seen, only its last state is known; the rest is ``None``.
    """
    rows = []
    for each in tasks:
        shown = each.shown or {}
        report, drain = shown.get("report"), shown.get("drain") or {}
        if not (report or drain or (shown and each.is_gone)):
            continue
        source = report or drain
        rows.append(
            {
                "task": each.task,
                "outcome": _outcome(shown, report) if report else None,
                "sessions_at_start": (report or {}).get("sessions_at_start"),
                **{name: source.get(name) for name in ("shed", "left", "refused", "forced")},
                "arrived": (report or {}).get("arrived"),
                "still_open": _still_open(shown, report) if report else None,
                "last_seen_open": shown["sessions"]["open"],
                "peak_rate": (report or {}).get("peak_rate"),
                "detection_lag": lag_of(shown),
                "slack": (report or {}).get("slack"),
                "is_gone": each.is_gone,
            }
        )
    return rows


def _outcome(shown: Mapping[str, Any], report: Mapping[str, Any]) -> Any:
    return "observed" if only_observes(shown) and report.get("outcome") == "drained" else report.get("outcome")


def _still_open(shown: Mapping[str, Any], report: Mapping[str, Any]) -> Any:
    return shown["sessions"]["open"] if only_observes(shown) else report.get("still_open")


def as_json(tasks: Sequence[Seen]) -> dict[str, Any]:
    """Return the output of ``--json``."""
    return {
        "tasks": [asdict(each) for each in tasks],
        "sum": asdict(totals(tasks)),
        "problems": [asdict(each) for each in problems(tasks)],
    }
