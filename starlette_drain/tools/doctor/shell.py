# Does a signal that a shell gets reach the server?
#
# As process 1 a shell that waits for its child ignores SIGTERM, and under an init it ends by it and leaves the child
# alone. Only `exec` puts the server in its place. Some shells do that unasked for the last command of a script, others
# do not. So a script counts as sound only when the server is seen behind an `exec`; where it names no server, whatever
# it starts. What a file holds is not seen.
"""How a shell in a command line starts what comes after it: pure."""

import re
import shlex
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["Script", "script_of"]

RUNS_TEXT = re.compile(r"-[a-zA-Z]*c[a-zA-Z]*")
"""``-c``, ``-lc``, ``-ec``: the next word is a script."""

TAKES_NAME = re.compile(r"[-+][a-zA-Z]*[oO]")
"""``-o``: the next word is the name of an option."""

ENDS_COMMAND = frozenset(";&|()")


@dataclass(frozen=True, slots=True)
class Script:
    """
    What a shell is told to run.

    Attributes:
        words: All words of the script, and the arguments after it; empty where it is in a file.
        commands: The script, command by command.
        file: The file that holds it; empty where it is in the command line.
    """

    words: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    file: str = ""

    def execs(self, servers: Container[str]) -> bool:
        """Tell whether the command with one of *servers*, or any where there is none, is seen behind an ``exec``."""
        starting = [each for each in self.commands if any(PurePosixPath(word).name in servers for word in each)]
        return any("exec" in each for each in starting or self.commands)


def script_of(words: Sequence[str]) -> Script:
    """Return what the shell that *words* begin with runs."""
    before = ""
    for number, word in enumerate(words[1:], 1):
        if RUNS_TEXT.fullmatch(word):
            rest = words[number + 1 :]
            return _read(rest[0], rest[1:]) if rest else Script()
        if word[0:1] not in ("-", "+") and not TAKES_NAME.fullmatch(before):
            return Script(file=word)
        before = word
    return Script()


def _read(text: str, arguments: Sequence[str]) -> Script:
    words = _split(text.replace("\\\n", " ").replace("\n", " ; "))
    return Script((*words, *arguments), tuple(_commands(words)))


def _commands(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    command, before = list[str](), ""
    for word in [*words, ";"]:
        if not (word and ENDS_COMMAND.issuperset(word)):
            command.append(word)
            continue
        # In a pipeline, in the background and in parentheses a shell runs a copy of itself, and exec replaces that.
        is_copy = before.endswith(("|", "|&", "(")) and before != "||"
        is_copy = is_copy or word in ("|", "|&", "&") or word.startswith(")")
        yield tuple(each for each in command if not (is_copy and each == "exec"))
        command, before = [], word


def _split(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:
        return text.split()
