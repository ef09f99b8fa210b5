"""The tables of the log in docs/telemetry.md name every line that the package can write, at its level, and no other."""

import ast
import dataclasses
import logging
import re
from pathlib import Path

import pytest
from telemetry_samples import CANCELLED_LATER, JOINED, OFF, finished, story

import starlette_drain
from starlette_drain import telemetry
from starlette_drain._core.events import Event, RotationEnded, WatchChanged, WatchReported
from starlette_drain.telemetry.logs import LogObserver

PACKAGE = Path(starlette_drain.__file__).parent
DOCS = Path(__file__).parents[3] / "docs" / "telemetry.md"
COMMANDS = ("doctor", "planning", "testing", "cli.py")
"""What speaks to a terminal, or is not part of a server."""
LEVELS = {"exception": "ERROR", "error": "ERROR", "warning": "WARNING", "info": "INFO", "debug": "DEBUG"}

pytestmark = pytest.mark.skipif(
    not DOCS.is_file(), reason="the documentation is not here: these are the tests of a wheel"
)


def documented():
    """Return the level and the pattern of each line in the tables."""
    section = DOCS.read_text(encoding="utf-8").split("\n## The log\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (DEBUG|INFO|WARNING|ERROR) \| (.+?) \|", section, re.MULTILINE)
    return [(level, line) for level, lines in rows for line in re.findall(r"`([^`]+)`", lines)]


def matches(line, text):
    """Tell whether *text* begins as a documented *line* says; … stands for anything."""
    return re.match(".+?".join(map(re.escape, line.rstrip("… ").split("…"))), text) is not None


def calls():
    """Return the level and the sentence of each call of a module's logger."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in COMMANDS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger"), attr=method),
                    args=[ast.Constant(value=str(sentence)), *_],
                ):
                    yield LEVELS[method], re.sub(r"%[srdg]", "x", sentence)
                case ast.Call(func=ast.Attribute(attr="_count"), args=[_, ast.Constant(value=str(sentence)), *_]):
                    # Close hooks, of which only the first failure of a kind is logged.
                    level = "ERROR" if any(each.arg == "error" for each in node.keywords) else "WARNING"
                    yield level, re.sub(r"%[srdg]", "x", sentence)


def told(caplog):
    """Return the level and the text of each line that an observer writes."""
    caplog.set_level(logging.DEBUG, "starlette_drain")
    observer = LogObserver()
    for event in (
        WatchChanged(0.0, (), OFF, is_alarm=True),
        WatchChanged(0.0, (), OFF, is_alarm=False),
        WatchChanged(0.0, ("sigterm (in place)",), OFF, is_alarm=True),
        WatchReported(0.0, "target-health", "watching", "a in b"),
        WatchReported(0.0, "target-health", "blind", "a in b", "no answer has come"),
        WatchReported(0.0, "target-health", "elsewhere", ""),
        JOINED,
        CANCELLED_LATER,
        *story(),
        finished(slack=-5.0),
        finished(still_open=3),
        *(RotationEnded(0.0, "rotation", each, 9.0, 1, 0, 1) for each in ("complete", "replaced", "interrupted")),
        finished(),
    ):
        observer.notify(event)
    return {(record.levelname, record.getMessage()) for record in caplog.records}


def test_the_tables_of_the_log_are_complete(caplog):
    """Every line is in one of the tables, and every entry of the tables is a line: who alerts on them misses none."""
    written = told(caplog) | set(calls())
    lines = documented()
    missing = [
        (level, text) for level, text in written if not any(level == its and matches(line, text) for its, line in lines)
    ]
    assert missing == []
    idle = [
        (level, line) for level, line in lines if not any(its == level and matches(line, text) for its, text in written)
    ]
    assert idle == []


def test_the_table_of_events_is_complete():
    """Every event that an observer can get is in it, with all its fields in their order."""
    section = DOCS.read_text(encoding="utf-8").split("\n## The events\n")[1]
    rows = re.findall(r"^\| (`[A-Z].*?) \| (.+) \|$", section, re.MULTILINE)
    named = {
        name: re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", fields))
        for names, fields in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    events = [getattr(telemetry, name) for name in telemetry.__all__]
    assert named == {
        each.__name__: [field.name for field in dataclasses.fields(each) if field.name != "at"]
        for each in events
        if isinstance(each, type) and issubclass(each, Event) and each is not Event
    }


def test_no_line_shows_a_path_as_it_came():
    """A path is what a client made of it: each call of a module's logger escapes it with `printable`."""
    bare = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and any(isinstance(each, ast.Attribute) and each.attr == "path" for each in node.args)
    ]
    assert bare == []
