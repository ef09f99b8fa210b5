# Does SIGTERM that a shell gets reach the server?
#
# A shell that waits for its child as process 1 ignores SIGTERM; under an init it ends and leaves the child running.
# Only `exec` replaces the shell by the server. Some shells do that by themselves for the last command of a script,
# others do not. So SIGTERM reaches the server only if the script has an `exec` in the command with the server, or in
# any command if it has no known server. The content of a script file is unknown.
"""Parses how a shell in a command line starts a server. Pure."""

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
    The script that a shell runs.

    Attributes:
        words: All words of the script and its arguments; empty if it is in a file.
        commands: The words of each command.
        file: The path of the script; empty if it is in the command line.
    """

    words: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    file: str = ""

    def execs(self, servers: Container[str]) -> bool:
        """Return whether the command with one of *servers*, or any if there is none, has an ``exec``."""
        starting = [each for each in self.commands if any(PurePosixPath(word).name in servers for word in each)]
        return any("exec" in each for each in starting or self.commands)


def script_of(words: Sequence[str]) -> Script:
    """Return the script of the shell that is the first of *words*."""
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
        # In a pipeline, in the background and in parentheses a shell forks, and exec replaces only the fork.
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
