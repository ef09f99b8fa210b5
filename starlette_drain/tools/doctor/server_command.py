"""Parses the command line of a server."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from starlette_drain._asgi.process import INITS, SERVERS, SHELLS, program_of
from starlette_drain.tools.doctor.shell import script_of

__all__ = ["ServerCommand"]

OFF = ("", "0", "false", "no", "off", "f", "n")
"""The values of a variable that switch a flag off."""


DEFAULT_PORT = 8000
"""The default port of each of the servers."""

ADDRESS = re.compile(r"(?:tcp://)?(\[[\w:.%]*\]|[\w.*-]*)(?::(\d+))?")
"""A host, a port or both, as gunicorn and hypercorn take them; no socket file, and no variable of a shell."""


class ServerCommand:
    """
    A server's command line.

    Attributes:
        words: The words without an init program; those of the script if a shell runs one.
        is_under_shell: Whether a shell remains as the parent of the server.
        script_file: The file that the shell runs, whose content is unknown; empty if there is none.
        starts_with: The program that is started; empty if a shell starts it.
        server: The name of the server; empty if it is not a known one.

    Args:
        words: As in ``/proc/1/cmdline`` or a task definition.
        environ: The environment, from which the server also reads options.
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
        # The command line takes precedence, so it comes first.
        self._options = [*self.words]
        if self.server == "gunicorn":
            self._options += _split(self._environ.get("GUNICORN_CMD_ARGS", ""))

    @property
    def graceful_timeout(self) -> float | None:
        """The ``--timeout-graceful-shutdown`` of uvicorn in seconds; ``None`` if it is not set."""
        return self.number("--timeout-graceful-shutdown") if self.server == "uvicorn" else None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The hosts and ports on which the server listens, with ``""`` for no host; empty if unknown."""
        if self.has("--uds", "--fd"):
            return []
        if self.server in ("gunicorn", "hypercorn"):  # without --bind, gunicorn.conf.py may have one
            found = [ADDRESS.fullmatch(each) for each in self._values("-b", "--bind")]
            return [(each[1], int(each[2] or DEFAULT_PORT)) for each in found if each] if all(found) else []
        host, port = ("--host", "--port") if self.server != "daphne" else ("-b", "-p")
        is_known = self.server == "uvicorn" or (self.server == "fastapi" and "PORT" not in self._environ)
        given = self.option(port, "--port") or (str(DEFAULT_PORT) if is_known else "")
        return [(self.option(host, "--bind") or "", int(given))] if given.isdecimal() else []

    @property
    def is_for_development(self) -> bool:
        """Whether it is ``fastapi dev`` with reloading."""
        return self.server == "fastapi" and "dev" in self.words and "--no-reload" not in self.words

    def option(self, *names: str) -> str | None:
        """Return the value of the first of *names* that is given, or ``None``."""
        return next(self._values(*names), None)

    def number(self, *names: str) -> float | None:
        """Return the value of an option as a number; ``None`` if it is not given, or not a number."""
        try:
            return float(self.option(*names) or "")
        except ValueError:
            return None

    def has(self, *names: str) -> bool:
        """Return whether one of *names* is given, and not 0 or off."""
        for name in names:
            if any(word.partition("=")[0] == name for word in self._options):
                return self.number(name) != 0
            if self._variable(name).lower() not in OFF:
                return True
        return False

    def _values(self, *names: str) -> Iterator[str]:
        """Yield each value that is given for one of *names*."""
        for number, word in enumerate(self._options):
            name, equals, value = word.partition("=")
            if name in names:
                yield value if equals else next(iter(self._options[number + 1 :]), "")
            elif len(word) > 2 and word[0] == "-" != word[1] and word[:2] in names:
                yield word[2:].removeprefix("=")
        yield from filter(None, map(self._variable, names))

    def __str__(self) -> str:
        return shlex.join(self.words)

    def _variable(self, name: str) -> str:
        """Return the value of an option in the environment, from which uvicorn's command also reads options."""
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
