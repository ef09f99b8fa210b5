"""
The house stands: a folder imports only folders that stand before it in the list `FLOORS`.

A rule, not a list of files: a new file obeys it by where it lies. A new folder, or a new library, has to be given its
place here. What the folders are for is told in docs/contributing.md.
"""

import ast
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

import starlette_drain

PACKAGE = Path(starlette_drain.__file__).parent
OURS = "starlette_drain"
FLOORS = (
    {"exceptions"},
    {"_core"},
    {"triggers", "telemetry"},
    {"_engine", "aws"},
    {"_workers"},
    {"_asgi"},
    {"testing"},
    {"tools"},
    {"__init__", "__main__"},
)
"""Everything in the package, from the ground up. Those on one floor do not import one another."""
WINGS = {"triggers", "telemetry"}
"""Of these, others import `base.py` only."""
CHOOSERS = {"_asgi/defaults.py", "testing/__init__.py"}
"""The one place that chooses the defaults, and the one that names what tests need."""
LONG_FILE, LONG_FUNCTION = 300, 40
"""Lines above which the report of these tests names a file or a function. A hint, never a failure."""

LIBRARIES = {
    "aiobotocore": ("aws", "testing"),
    "anyio": ("_asgi",),
    "aioboto3": ("aws", "testing"),
    "boto3": ("aws", "testing"),
    "botocore": ("aws", "testing"),
    "click": ("tools",),
    "matplotlib": ("tools",),
    "opentelemetry": ("telemetry/otel", "aws"),
    "rich": ("tools",),
    "starlette": ("_asgi", "testing"),
    "uvicorn": ("testing", "tools"),
    "websockets": ("tools",),
}
"""Where each library may be imported."""

IMPURE = {
    *("_thread", "asyncio", "concurrent", "contextvars", "multiprocessing", "queue", "sched", "threading"),
    *("datetime", "locale", "random", "secrets", "time", "uuid", "zoneinfo"),
    *("ctypes", "fcntl", "importlib", "io", "logging", "mmap", "os", "pathlib", "shutil", "sqlite3", "tempfile"),
    *("ftplib", "http", "select", "selectors", "signal", "smtplib", "socket", "socketserver", "ssl", "urllib"),
    *("subprocess", "warnings"),
}
"""What the ground floor does without: clocks, loops, threads, files, sockets, the environment, global luck."""
PURE_PARTS = {("random", "Random")}
"""What it may import of them: a class whose luck is handed in."""
NAMELESS = ("_core", "_engine")
"""What knows no kind of connection and no server by name, in words neither: each is a file above."""
NAMES = re.compile(
    r"websocket|(?<![a-z])sse(?![a-z])|event.?(stream|source)|server.sent|uvicorn|hypercorn|granian|daphne|gunicorn",
    re.IGNORECASE,
)
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}


class Import(NamedTuple):
    """One name that a module imports."""

    module: str
    name: str
    is_lazy: bool


def is_put_off(node):
    """Return whether what stands in *node* is not run while the module is imported."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=[]):
            return True
    return False


def imports_of(tree):
    """Return everything that a module imports, wherever it does, and by whatever means."""
    lazy = {node for outer in ast.walk(tree) if is_put_off(outer) for node in ast.walk(outer)}
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [Import(each.name, "", node in lazy) for each in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                found += [Import("." * level + (module or ""), each.name, node in lazy) for each in names]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                found.append(Import(module, "", node in lazy))
    return found


def parts_of(module):
    """Return the folder or file that a module of ours lies in, and what it is called there."""
    _, first, *rest = [*module.split("."), ""]
    return first, ".".join(rest).strip(".")


def height(part):
    """Return how high a part of the package lies; None for one that has no place."""
    return next((floor for floor, parts in enumerate(FLOORS) if part in parts), None)


def place_of(path):
    """Return the first part of a path within the package, without its suffix."""
    return PurePosixPath(path).with_suffix("").parts[0]


def complaint(path, wanted):
    """Return what is wrong with one import of the file at *path*; None where nothing is."""
    here, library = place_of(path), wanted.module.split(".")[0]
    if wanted.module.startswith("."):
        return "imports relatively; say where it comes from"
    return ours(here, path, wanted) if library == OURS else theirs(here, path, wanted, library)


def theirs(here, path, wanted, library):
    """Return what is wrong with an import of a library, the standard one included; None where nothing is."""
    if here == "_core" and library in IMPURE and (wanted.module, wanted.name) not in PURE_PARTS:
        return f"imports {library} on the ground floor, which knows no clock, no loop, no luck and no world"
    if library in sys.stdlib_module_names:
        return None
    places = LIBRARIES.get(library)
    if places is None:
        return f"imports {library}; say in LIBRARIES where that is allowed"
    if not any(f"{path.removesuffix('.py')}/".startswith(f"{place}/") for place in places):
        return f"imports {library}, which only {' and '.join(places)} may"
    return None


def ours(here, path, wanted):
    """Return what is wrong with an import of our own; None where nothing is."""
    module = wanted.module
    if (PACKAGE / "/".join([*module.split(".")[1:], wanted.name])).with_suffix(".py").is_file() and wanted.name:
        module = f"{module}.{wanted.name}"
    there, rest = parts_of(module)
    mine, its = height(here), height(there or "__init__")
    if mine is None or its is None:
        return f"has to do with {here if mine is None else there}; give that a place in FLOORS"
    if here == there:
        return None
    if its >= mine:
        return f"imports {module}, which does not stand before {here}"
    if there in WINGS and rest != "base" and path not in CHOOSERS and wanted.name != "base":
        return f"imports {module}; from here only {there}/base.py is known"
    return None


def complaints(path, source):
    """Return all that is wrong with the file at *path*, a path within the package."""
    tree = ast.parse(source)
    found = [complaint(path, each) for each in imports_of(tree)]
    if place_of(path) == "_core":
        for node in ast.walk(tree):
            match node:
                case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                    found.append(f"line {node.lineno}: waits; the ground floor is told, and answers")
                case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                    found.append(f"line {node.lineno}: calls {name}; the ground floor touches nothing")
    if place_of(path) in NAMELESS and (name := NAMES.search(source)):
        found.append(f"knows of {name[0]}; that belongs to the floor that speaks with it")
    return [each for each in found if each]


FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_to_its_floor(path):
    """Every file of the package imports only what stands before its folder."""
    assert complaints(path, FILES[path].read_text(encoding="utf-8")) == []


FAULTS = [
    ("_core/plan.py", "import asyncio", "imports asyncio"),
    ("_core/plan.py", "import random", "imports random"),
    ("_core/plan.py", "from random import random", "imports random"),
    ("_core/plan.py", "def now():\n    from time import monotonic", "imports time"),
    ("_core/plan.py", "import starlette.types", "imports starlette"),
    ("_core/plan.py", "async def due(): ...", "waits"),
    ("_core/settings.py", "open('x')", "calls open"),
    ("_core/settings.py", "kind = 'websocket'", "knows of websocket"),
    ("_core/session.py", "class EventStream: ...", "knows of EventStream"),
    ("_engine/drain.py", "# uvicorn does this", "knows of uvicorn"),
    ("_engine/engine.py", "def end_sse(): ...", "knows of sse"),
    ("_core/new.py", "import numpy", "say in LIBRARIES"),
    ("_core/events.py", "from starlette_drain.telemetry.base import Observer", "does not stand before"),
    ("_core/events.py", "from starlette_drain import Drain", "does not stand before"),
    ("_core/events.py", "from . import plan", "relatively"),
    ("exceptions.py", "from starlette_drain._core.state import DrainState", "does not stand before"),
    ("triggers/new.py", "from starlette_drain._engine.drain import Drain", "does not stand before"),
    (
        "triggers/new.py",
        "from starlette_drain.aws.sources.target_health import TargetHealthTrigger",
        "does not stand before",
    ),
    ("triggers/new.py", "import aioboto3", "only aws and testing"),
    ("aws/new.py", "from starlette_drain.triggers import sigterm", "only triggers/base.py"),
    ("telemetry/logs.py", "from opentelemetry import trace", "only telemetry/otel and aws"),
    ("telemetry/otel_too.py", "import opentelemetry.trace", "only telemetry/otel and aws"),
    ("_engine/drain.py", "from starlette_drain.triggers.sigterm import SigtermTrigger", "only triggers/base.py"),
    ("_engine/drain.py", "import importlib\nimportlib.import_module('starlette.types')", "imports starlette"),
    ("_engine/new.py", "from starlette_drain.telemetry.otel import OpenTelemetry", "only telemetry/base.py"),
    ("loose.py", "import math\nfrom starlette_drain.exceptions import DrainError", "give that a place"),
    ("_engine/new.py", "from starlette_drain.aws.options import AWSOptions", "does not stand before"),
    ("_asgi/new.py", "from starlette_drain.triggers.sigterm import SigtermTrigger", "only triggers/base.py"),
    ("_workers/group.py", "from starlette_drain._asgi.middleware import DrainMiddleware", "does not stand before"),
    ("_asgi/new.py", "import botocore", "only aws and testing"),
    ("_asgi/new.py", "from starlette_drain.testing import FakeAWS", "does not stand before"),
]

SOUND = [
    ("_core/plan.py", "import math\nfrom random import Random\nfrom starlette_drain._core.pacing import Pacing"),
    ("_core/state.py", "from starlette_drain.exceptions import IllegalTransition"),
    ("triggers/new.py", "import asyncio\nfrom starlette_drain._core.cause import DrainCause"),
    (
        "aws/new.py",
        "from starlette_drain.triggers.base import Trigger\nimport aioboto3\nfrom opentelemetry import context",
    ),
    ("telemetry/otel.py", "from opentelemetry import trace"),
    ("telemetry/otel/spans.py", "from opentelemetry import trace"),
    ("_engine/drain.py", "from starlette_drain.triggers import base\nfrom starlette_drain._core.plan import ShedPlan"),
    (
        "_asgi/new.py",
        "from starlette.types import Scope\nfrom starlette_drain.aws.sources.target_health import TargetHealthTrigger",
    ),
    ("__init__.py", "from starlette_drain._asgi.middleware import DrainMiddleware"),
    ("tools/cli.py", "from starlette_drain._engine.drain import Drain"),
    ("testing/new.py", "import uvicorn, botocore\nfrom starlette.types import Scope"),
    ("_asgi/long.py", "pass\n" * 400),
    ("_asgi/new.py", "kind = 'websocket'"),
    ("_core/session.py", "def assess(): ...  # the server's event stops streaming"),
]


@pytest.mark.parametrize(("path", "source", "words"), FAULTS, ids=[f"{path}: {words}" for path, _, words in FAULTS])
def test_fault_is_found(path, source, words):
    """The rules can fail: each planted fault is found, and the complaint says what is wrong."""
    (found,) = complaints(path, source)
    assert words in found


@pytest.mark.parametrize(("path", "source"), SOUND)
def test_sound_import_is_let_be(path, source):
    """The rules forbid no more than they say."""
    assert complaints(path, source) == []


def test_new_folder_needs_a_floor(monkeypatch, tmp_path):
    """A folder that nobody has given a floor cannot be imported unnoticed."""
    (tmp_path / "cellar").mkdir()
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    assert "give that a place" in complaints("_asgi/new.py", "from starlette_drain.cellar import Wine")[0]
    assert "give that a place" in complaints("cellar/wine.py", "from starlette_drain.exceptions import X")[0]


def test_nothing_lies_loose_beside_the_folders():
    """Beside the folders there are the public names, the command, the errors, and the marker of typed packages."""
    loose = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert loose == {"__init__.py", "__main__.py", "exceptions.py", "py.typed"}


def test_long_files_and_functions_are_named(record_property):
    """Length is a hint for whoever reads the report, never a gate: no class is split to please a number."""
    long = [f"{path}: {count} lines" for path in FILES if (count := FILES[path].read_text().count("\n")) > LONG_FILE]
    for path, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = node.end_lineno - node.lineno + 1
                long += [f"{path}: {node.name} has {count} lines"] if count > LONG_FUNCTION else []
    record_property("long", long)
    print("\n".join(long))  # noqa: T201


def test_every_folder_has_a_floor():
    """No folder of the package is without a floor, and none is called one that it is not."""
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set().union(*FLOORS)


def modules():
    """Return every module of the package by its name, with what it imports of ours while it is being imported."""
    paths = {f"{OURS}.{path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__"): path for path in FILES}
    graph = {}
    for name, path in paths.items():
        wanted = [each for each in imports_of(ast.parse(FILES[path].read_text(encoding="utf-8"))) if not each.is_lazy]
        candidates = [(f"{each.module}.{each.name}", each.module) for each in wanted]
        graph[name] = {next((one for one in pair if one in paths), None) for pair in candidates} - {None}
    return graph


def test_imports_go_round_in_no_circle():
    """Any module may be imported first."""
    try:
        TopologicalSorter(modules()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


PROBE = """
import signal, sys, threading
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
known = set(sys.modules)
import starlette_drain
import logging
assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
assert threading.active_count() == 1
assert not logging.getLogger("starlette_drain").handlers and not logging.getLogger().handlers
print("\\n".join(set(sys.modules) - known))
"""
HEAVY = (
    *("click", "rich"),
    *("aioboto3", "aiobotocore", "aiohttp", "boto3", "botocore", "moto", "urllib3", "requests", "httpx"),
    *("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation"),
    *("fastapi", "uvicorn", "uvloop", "websockets", "wsproto", "starlette.testclient"),
    *("starlette_drain.tools.cli", "starlette_drain.testing"),
)


@pytest.mark.slow
def test_import_is_light_and_changes_nothing():
    """`import starlette_drain` imports nothing heavy, patches no signal, starts no thread and sets up no logging."""
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    assert "starlette_drain._engine.drain" in imported
    assert [name for name in imported for heavy in HEAVY if f"{name}.".startswith(f"{heavy}.")] == []
