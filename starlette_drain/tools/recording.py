"""``starlette-drain record``: extracts a recording from a log written with ``DRAIN_RECORD=1``."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import click

__all__ = ["record"]

MARK = "drain_record"
GZIP = "\x1f"
"""The first character of a compressed file."""


@click.command()
@click.argument("log", type=click.File(encoding="utf-8", errors="replace"), default="-")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option(
    "--run", metavar="ID", help="Process to take, if there are several. Default: the one with the most lines."
)
def record(log: TextIO, output: Path | None, run: str | None) -> int:
    """
    Make a recording from an exported log.

    FakeAWS can replay it, and you can send it to us. The lines may be embedded in those of CloudWatch, of a JSON
    formatter or of a CSV file.
    """
    if log.isatty():
        msg = "give the file of the log, or pipe the log into the command"
        raise click.UsageError(msg)
    first = log.readline()
    if first.startswith(GZIP):
        msg = "the log is compressed: unpack it with gunzip, or pipe it: zcat exported.log.gz | starlette-drain record"
        raise click.ClickException(msg)
    runs = _runs(chain([first], log))
    if not runs:
        msg = "the log has no recording: set DRAIN_RECORD=1 on the tasks, and deploy"
        raise click.ClickException(msg)
    chosen = run or max(runs, key=lambda each: len(runs[each]))
    if chosen not in runs:
        msg = f"there is no process {chosen} in the log, but {', '.join(runs)}"
        raise click.UsageError(msg)
    lines = sorted(runs[chosen], key=lambda each: float(each["at"]))
    text = "".join(f"{json.dumps(each, separators=(',', ':'))}\n" for each in lines)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
    counts = Counter(str(each["what"]) for each in lines)
    said = ", ".join(f"{number} {what}" for what, number in counts.most_common())
    click.echo(f"{chosen}: {lines[-1]['at']:g} s; {said}", err=True)
    for other in runs:
        if other != chosen:
            click.echo(f"Not taken: {other}, {len(runs[other])} lines (--run {other})", err=True)
    return 0


def _runs(log: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of each process, without duplicates, which an export may contain."""
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for text in log:
        for line in _lines_in(text) if MARK in text else ():
            if isinstance(line.get("run"), str) and isinstance(line.get("at"), int | float) and "what" in line:
                runs.setdefault(line["run"], {})[json.dumps(line, sort_keys=True)] = line
    return {name: list(lines.values()) for name, lines in runs.items()}


def _lines_in(text: str) -> Iterator[dict[str, Any]]:
    """Yield our objects in a log line, which may be embedded in other objects or their strings, or in CSV."""
    found = list(_objects_in(text))
    # In indented JSON a line holds only the inside of a string, and CSV doubles its quotes.
    for plain in (text.replace('\\"', '"').replace("\\\\", "\\"), text.replace('""', '"')):
        found = found or list(_objects_in(plain))
    yield from found


def _objects_in(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            yield from _ours(found)
        at = text.find("{", end)


def _ours(found: object) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        if "drain_record" in found:
            yield found
            return
        for each in found.values():
            yield from _ours(each)
    elif isinstance(found, list):
        for each in found:
            yield from _ours(each)
    elif isinstance(found, str) and MARK in found:
        yield from _lines_in(found)
