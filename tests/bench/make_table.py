"""
Writes the tables of ``docs/performance.md`` anew, from what the benchmarks wrote when they ran last.

Run ``make bench``, look at what differs, then ``.venv/bin/python tests/bench/make_table.py``.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "bench-results"
END = "<!-- until here -->"
NOISE = "bare against bare"
"""Ends the name of a figure that says by how much the bare server differs from itself."""

HEAD = ("", "bare", "with the middleware", "added", "ratio", "bare ÷ itself", "goal")


def spread(value: Mapping[str, float] | None, unit: str = "") -> str:
    """Return a median with the quartiles around it."""
    if not value:
        return ""
    text = f"{value['median']:,.4g}"
    if value["low"] != value["high"]:
        text += f" ({value['low']:,.4g} … {value['high']:,.4g})"
    return f"{text} {unit}".strip()


def goal(figure: Mapping[str, Any]) -> str:
    """Return what was to be reached, and whether it was."""
    if figure["goal"] is None:
        return ""
    judged = {"ratio": "ratio", "added": "added", "ours": ""}[figure["judged"]]
    return f"{judged} ≤ {figure['goal']:g}: {'met' if figure['met'] else '**missed**'}".strip()


def rows(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Return the rows of a table: a figure and its noise share one."""
    noise = {name_of(each): each for each in figures if each["what"].endswith(NOISE)}
    for each in figures:
        if not each["what"].endswith(NOISE):
            yield row(each, noise.get(each["what"]))


def name_of(noise: Mapping[str, Any]) -> str:
    """Return the name of the figure whose noise this is."""
    return str(noise["what"].removesuffix(NOISE).rstrip(" :,"))


def row(figure: Mapping[str, Any], noise: Mapping[str, Any] | None) -> str:
    """Return one row of a table."""
    unit = figure["unit"]
    cells = (
        figure["what"],
        spread(figure["bare"], unit),
        spread(figure["ours"], unit),
        spread(figure["added"]),
        spread(figure["ratio"]),
        spread(noise["ratio"]) if noise else "",
        goal(figure),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write each table between its markers."""
    page = PAGE.read_text()
    for file in sorted(RESULTS.glob("*.json")):
        seen = json.loads(file.read_text())
        begin = f"<!-- bench-results/{file.name}, written by tests/bench/make_table.py: -->"
        before, marker, rest = page.partition(begin)
        if not marker:
            sys.exit(f"{PAGE} has no place for {file.name}; add the two comments\n{begin}\n{END}")
        head = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
        table = "\n".join([*head, *rows(seen["figures"])])
        page = f"{before}{begin}\n\n{table}\n\n{END}{rest.partition(END)[2]}"
        sys.stdout.write(f"{file.stem}: {len(seen['figures'])} figures\n")
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
