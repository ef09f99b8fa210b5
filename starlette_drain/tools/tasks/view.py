"""The output of ``status`` and ``watch``: a table on a terminal, lines elsewhere."""

import math
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from starlette_drain._core.printable import printable
from starlette_drain.tools.tasks.seen import Seen, counted, lag_of, outcome, planned, problems, totals

__all__ = ["console", "is_lively", "line", "outcome_table", "print_out", "screen"]

WIDTH = 140
"""Columns if the output is not a terminal."""

NARROWEST = 80
"""Columns that a table gets at least: a narrower terminal wraps its lines, and nothing is left out."""

STYLES = {"draining": "yellow", "drained": "green", "gone": "dim", "not known": "bold red"}
UNKNOWN = "not known"
LAST_SEEN = ("gone", UNKNOWN)
"""The states in which a task's numbers are those of the last look that it answered."""


def console() -> Console:
    """Return the console, without colours if NO_COLOR is set or the output is not a terminal."""
    made = Console(highlight=False, markup=False)
    if not made.is_terminal:
        made.width = WIDTH
    return made


def is_lively() -> bool:
    """Return whether the output can be redrawn in place."""
    made = console()
    return made.is_terminal and not made.is_dumb_terminal


def print_out(shown: Any) -> None:
    """Print a rich renderable, without trailing spaces."""
    made = console()
    made.width = max(made.width, NARROWEST)
    with made.capture() as captured:
        made.print(shown)
    click.echo("\n".join(each.rstrip() for each in captured.get().splitlines()), color=made.is_terminal)


def screen(tasks: Sequence[Seen]) -> Group:
    """Return the whole screen: problems first, then a row for each task, and the sums."""
    parts: list[Any] = []
    for each in problems(tasks):
        found = Table.grid(padding=(0, 1, 0, 0))
        found.add_row(Text("PROBLEM", "bold red"), Text(f"{each.task}: {each.problem}"))
        found.add_row("", Text(f"-> {each.remedy}"))
        parts.append(found)
    if parts:
        parts.append("")
    parts.append(_table(tasks))
    if len(tasks) == 1 and (note := (tasks[0].shown or {}).get("note")):
        parts.append(Text(f"note: {printable(str(note))}"))
    return Group(*parts)


def _table(tasks: Sequence[Seen]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="")
    for name, justify in (
        *(("TASK", "left"), ("STATE", "left"), ("OPEN", "right"), ("PLAN", "right")),
        *(("RATE", "right"), ("REMAINING", "right"), ("LAG", "right")),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for each in tasks:
        table.add_row(*_cells(each))
    if len(tasks) > 1:
        all_of_them = totals(tasks)
        left = max((_left(each) for each in tasks if not each.is_gone), default=0.0)
        table.add_row(
            f"{len(tasks)} tasks",
            f"{all_of_them.draining} draining",
            f"{all_of_them.open:,}",
            f"{all_of_them.planned:,}",
            f"{all_of_them.rate:.1f}/s",
            f"{left:.0f} s" if left else "",
            "",
        )
    return table


def _cells(seen: Seen) -> tuple[str | Text, ...]:
    state = Text(seen.state, STYLES.get(seen.state, ""))
    if seen.shown is None:
        return (seen.task, state, *[""] * 5)
    drain = seen.shown.get("drain") or {}
    even = planned(seen.shown)
    lag = None if seen.shown["state"] == "serving" else lag_of(seen.shown)
    return (
        seen.task,
        state,
        f"{seen.shown['sessions']['open']:,}",
        "" if even is None else f"{even:,}",
        f"{drain['rate']:.1f}/s" if "rate" in drain else "",
        f"{_left(seen):.0f} s" if drain else "",
        "" if lag is None else f"{lag:.1f} s",
    )


def line(tasks: Sequence[Seen]) -> str:
    """Return the sums in one line, for a log."""
    if len(tasks) == 1:
        (each,) = tasks
        words = [each.task, each.state]
        if each.shown and each.state in LAST_SEEN:
            words.append(f"{each.shown['sessions']['open']:,} open when last seen")
        elif each.shown:
            drain, even = each.shown.get("drain") or {}, planned(each.shown)
            words.append(f"{each.shown['sessions']['open']:,} open")
            words += [f"{even:,} by the plan"] if even is not None else []
            words += [f"{drain.get('rate', 0):.1f}/s, {_left(each):.0f} s remain"] if drain else []
        return ", ".join(words)
    found = totals(tasks)
    gone = sum(each.is_gone for each in tasks)
    return (
        f"{counted(len(tasks) - gone, 'task')}, {found.draining} draining, {gone} gone, {found.open:,} open, "
        f"{found.planned:,} by the plan, {found.rate:.1f}/s"
    )


def outcome_table(tasks: Sequence[Seen]) -> Table:
    """Return a table with the outcome of each task; unknown values say so."""
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="")
    columns = (
        *(("outcome", "OUTCOME"), ("sessions_at_start", "START"), ("shed", "ASKED"), ("left", "LEFT")),
        *(("forced", "FORCED"), ("arrived", "NEW"), ("still_open", "OPEN"), ("peak_rate", "PEAK")),
        *(("detection_lag", "LAG"), ("slack", "SLACK")),
    )
    table.add_column("TASK", no_wrap=True)
    for _, title in columns:
        table.add_column(title, justify="right", no_wrap=title == "OUTCOME")
    for row in outcome(tasks):
        table.add_row(row["task"], *(_value(name, row[name]) for name, _ in columns))
    return table


def _value(name: str, value: Any) -> str:
    match value:
        case None:
            return UNKNOWN if name == "outcome" else "-"
        case str():
            return value
    if name in ("slack", "detection_lag"):
        return f"{value:.1f} s"
    return f"{value:,.1f}" if name == "peak_rate" else f"{value:,}"


def _left(seen: Seen) -> float:
    left = ((seen.shown or {}).get("drain") or {}).get("time_left", 0.0)
    return float(left) if math.isfinite(left) else 0.0
