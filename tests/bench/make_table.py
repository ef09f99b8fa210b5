"""
Writes the tables of ``docs/measurements.md`` anew, from what the benchmarks wrote when they ran last.

Run ``make bench``, look at what differs, then ``.venv/bin/python tests/bench/make_table.py``.
"""

import json
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

HEAD = ("", "bare", "with the middleware", "difference", "bare ÷ itself", "goal")


def median(value: Mapping[str, float] | None, unit: str = "") -> str:
    """Return a median."""
    return f"{value['median']:,.4g} {unit}".strip() if value else ""


def difference(figure: Mapping[str, Any]) -> str:
    """Return what the goal is about, the ratio or what is added, with the quartiles around it."""
    is_ratio = figure["ratio"] and figure["judged"] != "added"
    sign, value = ("\N{MULTIPLICATION SIGN} ", figure["ratio"]) if is_ratio else ("+ ", figure["added"])
    if not value:
        return ""
    text = f"{sign}{value['median']:,.4g}"
    if value["low"] != value["high"]:
        text += f" ({value['low']:,.4g} … {value['high']:,.4g})"
    return text.replace("+ -", "- ")


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
        median(figure["bare"], unit),
        median(figure["ours"], unit),
        difference(figure),
        median(noise["ratio"]) if noise else "",
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
