"""What an application declares of its responses: which are sessions, which are answers, and how a session ends."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["STREAMS_REMEDY", "Declaration", "Streams", "are_streams", "declaration_of", "parse_streams"]

STREAMS_REMEDY = (
    "map path patterns that begin with '/' or '*' to 'session', 'session:cut' or 'answer', such as "
    "{'/watch/*': 'session'}; as text '/watch/*=session, /jobs/*=answer'"
)


@dataclass(frozen=True, slots=True)
class Declaration:
    """
    What a response is.

    Attributes:
        kind: ``"session"`` if its client comes back, so that it may be asked to leave; ``"answer"`` if it is to finish.
        end: How a session ends: ``"clean"``, with a complete body, or ``"cut"``, with an error at its client.
    """

    kind: Literal["session", "answer"]
    end: Literal["clean", "cut"] = "clean"


DECLARATIONS = {
    "session": Declaration("session"),
    "session:clean": Declaration("session"),
    "session:cut": Declaration("session", "cut"),
    "answer": Declaration("answer"),
}


def declaration_of(text: str) -> Declaration | None:
    """Return what *text* declares, such as ``session``, ``session:cut`` or ``session; end=cut``."""
    kind, _, end = text.lower().replace(" ", "").replace(";end=", ":").partition(":")
    return DECLARATIONS.get(f"{kind}:{end}" if end not in ("", "clean") else kind)


class Streams:
    """
    The declarations of an application by path: the first pattern that matches counts.

    Args:
        patterns: What the option ``streams`` says. A ``*`` stands for any characters, slashes too.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._rules = [
            (re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL), DECLARATIONS[word])
            for pattern, word in patterns.items()
        ]

    def find(self, path: str) -> Declaration | None:
        """Return what is declared of *path*."""
        return next((declared for pattern, declared in self._rules if pattern.fullmatch(path)), None)


def parse_streams(text: str) -> Any:
    """Return the mapping that *text* means, or *text* itself where it means none."""
    entries = [entry.rpartition("=") for entry in text.split(",") if entry.strip()]
    if not all(separator for _, separator, _ in entries):
        return text
    return {pattern.strip(): word.strip() for pattern, _, word in entries}


def are_streams(value: Any) -> bool:
    """Tell whether *value* maps patterns to declarations."""
    return value is None or (
        isinstance(value, Mapping)
        and all(isinstance(pattern, str) and pattern.startswith(("/", "*")) for pattern in value)
        and all(isinstance(word, str) and word in DECLARATIONS for word in value.values())
    )
