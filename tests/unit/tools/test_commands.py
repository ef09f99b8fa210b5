"""The command itself: help, version, errors, and what it says where its libraries are not installed."""

import builtins
import io
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import starlette_drain
from starlette_drain.tools.cli import main

FULL = Path("/dev/full")


@pytest.mark.parametrize("given", [[], ["--help"], ["-h"]])
def test_help(given, capsys):
    """The commands, the exit codes, and every variable; alone, only what fits on a screen. No line is cut."""
    code = main(given)
    told = capsys.readouterr()
    text = told.out + told.err
    for words in ("doctor", "plan", "Exit codes:"):
        assert words in text
    assert ("DRAIN_SOURCES=target-health" in text) == bool(given)
    assert max(map(len, text.splitlines())) <= 80
    assert "...\n" not in text.partition("Commands:")[2]
    assert len(text.splitlines()) < 30 or given
    assert code == (2 if not given else 0)


def test_a_full_disk():
    """One line, not a traceback, with exit code 2."""
    if not FULL.exists():
        pytest.skip("there is no /dev/full here")
    words = [sys.executable, "-m", "starlette_drain", "--version"]
    with FULL.open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "Error: cannot write the output: No space left on device\n")


def test_record_does_not_wait_for_the_keyboard(monkeypatch, capsys):
    """At a terminal it asks for the log."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["record"]) == 2
    assert "give the file of the log" in capsys.readouterr().err


def test_version(capsys):
    """The package's."""
    assert main(["--version"]) == 0
    assert starlette_drain.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["docter"], "Did you mean 'doctor'?"),
        (["plan", "--sesions", "4"], "--sessions"),
        (["doctor", "--sessions", "-5"], "'--sessions': '-5' cannot work: give a whole number, at least 1"),
        (["doctor", "--rate", "nan"], "'--rate': 'nan' cannot work"),
        (["doctor", "--wait", "inf"], "'--wait': 'inf' cannot work"),
        (["doctor", "--target-group", "garbage"], "'--target-group': 'garbage' is not the ARN of a target group"),
        (["doctor", "--command", "sh -c 'uvicorn"], "is not a command line"),
    ],
)
def test_a_wrong_usage(given, words, capsys):
    """It is answered with what to give instead, and exit code 2."""
    assert main(given) == 2
    assert words in capsys.readouterr().err


def test_completion(monkeypatch, capsys):
    """A shell is told the commands that begin alike."""
    monkeypatch.setenv("_STARLETTE_DRAIN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "starlette-drain st")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == ["plain,start", "plain,status"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["start", "--cluster", "main", "--service", "web"], "an outage"),
        (["status", "--service", "web"], "give --cluster with --service or --task"),
        (["status", "--cluster", "main", "--service", "web", "--pid", "3"], "go with none of --cluster"),
        (["start", "--window", "-1"], "'--window': '-1' cannot work"),
        (["rehearse", "app:app", "--delay", "1"], "'--delay': '1' cannot work"),
        (["rehearse", "app:app", "--client", "a:b", "--header", "A: b"], "--header is for the built-in clients"),
        (["rehearse"], "Missing argument 'MODULE:APP'"),
    ],
)
def test_a_wrong_usage_of_the_commands_for_tasks(given, words, capsys):
    """It is refused before anything is asked, with exit code 2."""
    assert main(given) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_libraries(missing, capsys, monkeypatch):
    """One line says what to install."""
    for name in [*sys.modules]:
        is_ours = name.startswith("starlette_drain.tools.") and name.endswith(("command", "commands"))
        if is_ours or name.partition(".")[0] == missing:
            monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def importing(name, *rest):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(name, name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert main(["plan"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("starlette-drain needs click and rich: pip install 'click>=")
    needed = [each.partition(";")[0] for each in requires("starlette-drain") if each.startswith(("click", "rich"))]
    assert all(f"'{each}'" in error for each in needed)
