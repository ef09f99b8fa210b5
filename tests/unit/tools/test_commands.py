"""The command itself: help, version, errors, and what it says where its libraries are not installed."""

import builtins
import sys
from importlib.metadata import requires

import pytest

import starlette_drain
from starlette_drain.tools.cli import main


@pytest.mark.parametrize("given", [[], ["--help"], ["-h"]])
def test_help(given, capsys):
    """Alone, too: the commands, the exit codes, and every variable."""
    code = main(given)
    told = capsys.readouterr()
    text = told.out + told.err
    for words in ("doctor", "plan", "Exit codes:", "DRAIN_SOURCES=target-health"):
        assert words in text
    assert code == (2 if not given else 0)


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
