"""What the command line of a server tells about how it will stop."""

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = ["ServerCommand"]

SHELLS = {"sh", "bash", "dash", "ash", "zsh"}
SERVERS = {"uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "fastapi"}


class ServerCommand:
    """
    A command line, read for what matters to a drain.

    Args:
        words: As in ``/proc/1/cmdline`` or a task definition.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.is_under_shell = False
        first = PurePosixPath(self.words[0]).name if self.words else ""
        if first in SHELLS and "-c" in self.words[1:-1]:
            script = self.words[self.words.index("-c") + 1]
            inner = _split(script)
            self.is_under_shell = "exec" not in inner  # some shells replace themselves unasked, others do not
            self.words = inner
        names = [PurePosixPath(each).name for each in self.words]
        self.server = next((each for each in names if each in SERVERS), "")

    def option(self, *names: str) -> str | None:
        """Return the value of the first of *names* that is given, or ``None``."""
        for number, word in enumerate(self.words):
            name, equals, value = word.partition("=")
            if name in names:
                return value if equals else next(iter(self.words[number + 1 :]), "")
        return None

    def has(self, *names: str) -> bool:
        """Tell whether one of *names* is given."""
        return any(word.partition("=")[0] in names for word in self.words)

    def __str__(self) -> str:
        return shlex.join(self.words)


def _split(script: str) -> list[str]:
    try:
        return shlex.split(script)
    except ValueError:
        return script.split()
