"""
Writes the tables of ``docs/measurements.md`` anew, from what the benchmarks wrote when they ran last.

Run ``make bench``, look at what differs, then ``.venv/bin/python tests/bench/make_table.py``.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "measurements.md"
RESULTS = ROOT / "bench-results"
END = "<!-- until here -->"
NOISE = "bare against bare"
"""Ends the name of a figure that says by how much the bare server differs from itself."""

HEAD = ("", "bare", "watched", "difference", "bare ÷ itself", "goal")

SHOWN = (
    r"in-process, \w+$",
    r"importing the package",
    r"^bare, .*(asyncio|deflate offered, true)$",
    r"^in process, 100,000, .*(busiest second|CPU)",
    r"^real, .*(CPU|bare loop of closes$)",
    r"^one bare server .*: (new connections|until)",
    r"\(bare: one server cut\)",
    r"^resident with polling|CPU of a poll",
    r"full collection",
    r"longest stall$",
)
"""Patterns of the figures that the page shows besides those with a goal. The others stay in ``bench-results``."""


def number(value: float) -> str:
    """Return four digits of *value*, without an exponent below ten million."""
    return f"{float(f'{value:.4g}'):,.7g}"


def median(value: Mapping[str, float] | None) -> str:
    """Return a median."""
    return number(value["median"]) if value else ""


def difference(figure: Mapping[str, Any]) -> str:
    """Return what the goal is about, the ratio or what is added, with the quartiles around it."""
    is_ratio = figure["ratio"] and figure["judged"] != "added"
    sign, value = ("\N{MULTIPLICATION SIGN} ", figure["ratio"]) if is_ratio else ("+ ", figure["added"])
    if not value:
        return ""
    text = f"{sign}{number(value['median'])}"
    if value["low"] != value["high"]:
        text += f" ({number(value['low'])}…{number(value['high'])})"
    return text.replace("+ -", "- ")


def goal(figure: Mapping[str, Any]) -> str:
    """Return the goal, and whether it was met."""
    if figure["goal"] is None:
        return ""
    sign = {"ratio": "\N{MULTIPLICATION SIGN} ", "added": "+ ", "ours": ""}[figure["judged"]]
    return f"≤ {sign}{figure['goal']:g}: {'met' if figure['met'] else '**missed**'}"


def table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the figures that are shown, without columns that would be empty."""
    columns = [each for each in zip(HEAD, *rows(figures), strict=True) if any(each[1:])]
    head, *body = zip(*columns, strict=True)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))


def rows(figures: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Return the rows of a table: a figure and its noise share one."""
    noise = {name_of(each): each for each in figures if each["what"].endswith(NOISE)}
    for each in figures:
        what = each["what"]
        is_shown = each["goal"] is not None or any(re.search(pattern, what) for pattern in SHOWN)
        if is_shown and not what.endswith(NOISE):
            yield row(each, noise.get(what))


def name_of(noise: Mapping[str, Any]) -> str:
    """Return the name of the figure whose noise this is."""
    return str(noise["what"].removesuffix(NOISE).rstrip(" :,"))


def row(figure: Mapping[str, Any], noise: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the cells of one row."""
    return (
        f"{figure['what']} ({figure['unit']})" if figure["unit"] else figure["what"],
        median(figure["bare"]),
        median(figure["ours"]),
        difference(figure),
        median(noise["ratio"]) if noise else "",
        goal(figure),
    )


def main() -> None:
    """Write each table between its markers."""
    page = PAGE.read_text()
    for file in sorted(RESULTS.glob("*.json")):
        seen = json.loads(file.read_text())
        begin = f"<!-- bench-results/{file.name}, written by tests/bench/make_table.py: -->"
        before, marker, rest = page.partition(begin)
        if not marker:
            sys.exit(f"{PAGE} has no place for {file.name}; add the two comments\n{begin}\n{END}")
        page = f"{before}{begin}\n\n{table(seen['figures'])}\n\n{END}{rest.partition(END)[2]}"
        sys.stdout.write(f"{file.stem}: {len(seen['figures'])} figures\n")
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
