"""Answers as AWS has sent them, beside what the client made of them."""

from collections.abc import Mapping
from typing import Any

__all__ = ["AS_SENT", "records_of"]

AS_SENT = "AsSent"
"""The key under which an answer has its own JSON, where the client adds it."""


def records_of(answer: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the records in *answer*, each with the fields that the client does not know; it parses times, for one."""
    parsed = answer.get(key) or []
    sent = (answer.get(AS_SENT) or {}).get(key) or []
    if len(sent) != len(parsed):
        return list(parsed)
    return [_merged(*pair) for pair in zip(sent, parsed, strict=True)]


def _merged(sent: Any, parsed: Any) -> Any:
    if isinstance(sent, dict) and isinstance(parsed, dict):
        return {**sent, **{key: _merged(sent.get(key), each) for key, each in parsed.items()}}
    if isinstance(sent, list) and isinstance(parsed, list) and len(sent) == len(parsed):
        return [_merged(*pair) for pair in zip(sent, parsed, strict=True)]
    return parsed
