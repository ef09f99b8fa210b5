"""What the command line of a server tells about how it will stop."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from starlette_drain._asgi.process import INITS, SERVERS, SHELLS, program_of
from starlette_drain.tools.doctor.shell import script_of

__all__ = ["ServerCommand"]

OFF = ("", "0", "false", "no", "off", "f", "n")
"""What switches a flag off in a variable."""


class ServerCommand:
    """
    A command line, read for what matters to a drain.

    Attributes:
        words: From the program on that is told to stop; those in a shell's script, where that can be seen.
        is_under_shell: Whether a shell stands before the server, as far as can be seen.
        script_file: The file that such a shell runs, whose content cannot be seen; empty where there is none.
        starts_with: The program that is started; empty where a shell's script starts it.
        server: Name of the server; empty where it is none that is known.

    Args:
        words: As in ``/proc/1/cmdline`` or a task definition.
        environ: The variables that the server reads options from, too.
    """

    def __init__(self, words: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self.words = _without_init(list(words))
        self.is_under_shell = bool(self.words) and _name(self.words[0]) in SHELLS
        self.script_file = ""
        self.starts_with = program_of(self.words)
        if self.is_under_shell:
            script = script_of(self.words)
            self.script_file = script.file
            self.words = list(script.words) or self.words
            self.starts_with = ""
            self.is_under_shell = not script.execs(SERVERS)
        self.server = next((each for each in map(_name, self.words) if each in SERVERS), "")
        self._environ = environ or {}
        # What stands on the command line counts for more, and is looked at first.
        self._options = [*self.words]
        if self.server == "gunicorn":
            self._options += _split(self._environ.get("GUNICORN_CMD_ARGS", ""))

    @property
    def graceful_timeout(self) -> float | None:
        """Seconds that uvicorn waits for connections to close; ``None`` where it says nothing."""
        return self.number("--timeout-graceful-shutdown") if self.server == "uvicorn" else None

    @property
    def is_for_development(self) -> bool:
        """Whether it is ``fastapi dev``, which reloads unless it is told not to."""
        return self.server == "fastapi" and "dev" in self.words and "--no-reload" not in self.words

    def option(self, *names: str) -> str | None:
        """Return the value of the first of *names* that is given, or ``None``."""
        for number, word in enumerate(self._options):
            name, equals, value = word.partition("=")
            if name in names:
                return value if equals else next(iter(self._options[number + 1 :]), "")
            if len(word) > 2 and word[0] == "-" != word[1] and word[:2] in names:
                return word[2:].removeprefix("=")
        return next(filter(None, map(self._variable, names)), None)

    def number(self, *names: str) -> float | None:
        """Return the value of an option as a number; ``None`` where it is not given, or is none."""
        try:
            return float(self.option(*names) or "")
        except ValueError:
            return None

    def has(self, *names: str) -> bool:
        """Tell whether one of *names* is given, and not as 0 or off."""
        for name in names:
            if any(word.partition("=")[0] == name for word in self._options):
                return self.number(name) != 0
            if self._variable(name).lower() not in OFF:
                return True
        return False

    def __str__(self) -> str:
        return shlex.join(self.words)

    def _variable(self, name: str) -> str:
        """Return what stands for an option in the environment: uvicorn's command reads each from a variable."""
        if self.server != "uvicorn" or not name.startswith("--"):
            return ""
        return self._environ.get(f"UVICORN_{name[2:].replace('-', '_').upper()}", "")


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _name(word: str) -> str:
    return PurePosixPath(word).name


def _without_init(words: list[str]) -> list[str]:
    if not words or _name(words[0]) not in INITS:
        return words
    rest = words[1:]
    if "--" in rest:
        return rest[rest.index("--") + 1 :]
    return rest[next((number for number, word in enumerate(rest) if not word.startswith("-")), len(rest)) :]
