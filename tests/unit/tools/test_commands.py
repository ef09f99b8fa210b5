"""The command itself: help, version, errors, and what it says where its libraries are not installed."""

import builtins
import sys

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
        (["doctor", "--sessions", "-5"], "'--sessions': '-5' cannot be: give a whole number, at least 1"),
        (["doctor", "--rate", "nan"], "'--rate': 'nan' cannot be"),
        (["doctor", "--wait", "inf"], "'--wait': 'inf' cannot be"),
        (["doctor", "--target-group", "garbage"], "'--target-group': 'garbage' is not the ARN of a target group"),
        (["doctor", "--command", "sh -c 'uvicorn"], "is no command line"),
    ],
)
def test_a_wrong_usage(given, words, capsys):
    """It is answered with what to give instead, and exit code 2."""
    assert main(given) == 2
    assert words in capsys.readouterr().err


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
    assert capsys.readouterr().err == 'starlette-drain needs click and rich: pip install "starlette-drain[cli]"\n'
