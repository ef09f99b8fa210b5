"""How an application declares its responses: which are sessions, which are answers, and how a session ends."""

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
    What a response is declared to be.

    Attributes:
        kind: ``"session"`` if its client reconnects, so that it may be asked to leave; ``"answer"`` if it must finish.
        end: How a session ends: ``"clean"`` (with a complete body) or ``"cut"`` (the client sees an error).
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
    """Parse a declaration such as ``session``, ``session:cut`` or ``session; end=cut``; ``None`` if it is not one."""
    kind, _, end = text.lower().replace(" ", "").replace(";end=", ":").partition(":")
    return DECLARATIONS.get(f"{kind}:{end}" if end not in ("", "clean") else kind)


class Streams:
    """
    The declarations of an application by path: the first pattern that matches wins.

    Args:
        patterns: The option ``streams``: path patterns and their declarations. ``*`` matches any text, also slashes.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._rules = [
            (re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL), DECLARATIONS[word])
            for pattern, word in patterns.items()
        ]

    def find(self, path: str) -> Declaration | None:
        """Return the declaration for *path*, or ``None``."""
        return next((declared for pattern, declared in self._rules if pattern.fullmatch(path)), None)


def parse_streams(text: str) -> Any:
    """Parse *text* to a mapping; return *text* unchanged, for validation to reject, if it is not one."""
    entries = [entry.rpartition("=") for entry in text.split(",") if entry.strip()]
    if not all(separator for _, separator, _ in entries):
        return text
    return {pattern.strip(): word.strip() for pattern, _, word in entries}


def are_streams(value: Any) -> bool:
    """Return whether *value* is a valid ``streams`` option: ``None``, or patterns mapped to declarations."""
    return value is None or (
        isinstance(value, Mapping)
        and all(isinstance(pattern, str) and pattern.startswith(("/", "*")) for pattern in value)
        and all(isinstance(word, str) and word in DECLARATIONS for word in value.values())
    )
