"""The figures of all scenarios, side by side in the terminal and in a JSON file."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from example_app.rollout.rollout import Outcome, Plan

__all__ = ["table", "write_json"]

SURVIVORS = {
    "stall": "longest stall of an event loop, seconds",
    "busy": "                            of CPU time",
    "collection": "longest garbage collection,  of CPU time",
    "quiet_p99": "handshake before the crash, seconds, p99",
    "set_up_p50": "          after it,                  p50",
    "set_up_p99": "                                     p99",
    "late_checks": "health checks without an answer in 2 s",
    "seconds": "until the last client was back, seconds",
    "ideal": "the same on an ideal schedule",
}
"""What became of the tasks that a crash has left."""


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the figures, one column for each scenario."""
    rows: list[tuple[str, list[str]]] = [("", [each.scenario.name for each in outcomes])]
    figures = [each.figures for each in outcomes]
    rows += [
        ("peak new connections/s", [f"{each.peak:,}" for each in figures]),
        ("mean over the windows/s", [f"{each.mean:,.1f}" for each in figures]),
        ("peak ÷ mean", [f"{each.ratio:.2f}" for each in figures]),
        ("peak WebSockets opened/s", [f"{each.peak_opened:,}" for each in figures]),
        ("clients cut without a close frame", [f"{each.cut:,}" for each in figures]),
        ("closes by code", [_counts(each.codes) for each in figures]),
        ("failed attempts", [_counts(each.failures) for each in figures]),
        ("connections lost per client", [f"{each.hops:.2f}" for each in figures]),
        ("seconds without a connection, p50", [f"{each.without_p50:.2f}" for each in figures]),
        ("                              p99", [f"{each.without_p99:.2f}" for each in figures]),
        ("                              max", [f"{each.without_max:.2f}" for each in figures]),
        ("clients that never came back", [f"{each.never_back:,}" for each in figures]),
        ("deployment, seconds", [f"{each.duration:.0f}" for each in figures]),
        ("tracebacks in the tasks' logs", [f"{each.tracebacks:,}" for each in outcomes]),
    ]
    if any(each.events.times("sessions") for each in outcomes):
        rows.append(("fullest ÷ emptiest task", [_balance(each) for each in outcomes]))
    if any(each.deaf for each in figures):
        rows.append(("what the deaf found in the end", [_counts(each.deaf) for each in figures]))
    if any(each.survivors for each in outcomes):
        rows += [
            (title, [f"{each.survivors.figures()[name]}" if each.survivors else "" for each in outcomes])
            for name, title in SURVIVORS.items()
        ]
    return "\n".join(_aligned(rows))


def write_json(outcomes: Sequence[Outcome], plan: Plan) -> Path:
    """Write everything that the table and the picture are made of, and return the file."""
    path = plan.results / "rollout.json"
    content = {"plan": _plan(plan), "scenarios": [_outcome(each) for each in outcomes]}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "tasks": plan.tasks,
        "fleet": dataclasses.asdict(plan.fleet),
        "times": dataclasses.asdict(plan.times),
        "deployment": dataclasses.asdict(plan.deployment),
        "balancer": plan.balancer,
        "routing": plan.routing,
        "faults": [each.name for each in plan.faults],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    zero = outcome.events.zero
    return {
        "scenario": outcome.scenario.name,
        "figures": dataclasses.asdict(outcome.figures) | {"ratio": outcome.figures.ratio},
        "tracebacks": outcome.tracebacks,
        "survivors": dataclasses.asdict(outcome.survivors) if outcome.survivors else None,
        "events": [
            {"at": round(each.at - zero, 3), "kind": each.kind, "what": each.what} for each in outcome.events.all
        ],
        "new_connections_by_second": _by_second(outcome.records.connected, zero),
        "closes_by_second": _by_second((each.lost for each in outcome.records.losses), zero),
    }


def _by_second(moments: Iterable[float], zero: float) -> dict[str, int]:
    counts = Counter(int((each - zero) // 1) for each in moments)
    return {str(second): count for second, count in sorted(counts.items())}


def _balance(outcome: Outcome) -> str:
    """Return how many times as many sessions the fullest task had in the end as the emptiest."""
    last = dict(each.what.split(": ") for each in outcome.events.all if each.kind == "sessions")
    numbers = [int(each) for each in last.values()]
    return f"{max(numbers) / max(1, min(numbers)):.2f}" if numbers else ""


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items()) or "none"


def _aligned(rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    first = max(len(name) for name, _ in rows)
    widths = [max(len(row[1][column]) for row in rows) for column in range(len(rows[0][1]))]
    lines = [
        f"{name:{first}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for name, cells in rows
    ]
    return [lines[0], "─" * len(lines[0]), *lines[1:]]
