"""Combines AWS's raw JSON with the answer that the client parsed from it."""

from collections.abc import Mapping
from typing import Any

__all__ = ["AS_SENT", "complete", "records_of"]

AS_SENT = "AsSent"
"""The key of the raw JSON in an answer, if the client adds it."""


def records_of(answer: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the records in *answer* as parsed, for instance with times, plus the fields that the client drops."""
    parsed = answer.get(key) or []
    sent = (answer.get(AS_SENT) or {}).get(key) or []
    if len(sent) != len(parsed):
        return list(parsed)
    return [_merged(*pair) for pair in zip(sent, parsed, strict=True)]


def complete(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return *answer* with the fields that the client drops from its records."""
    shown = {key: each for key, each in answer.items() if key != AS_SENT}
    return shown | {key: records_of(answer, key) for key, each in shown.items() if isinstance(each, list)}


def _merged(sent: Any, parsed: Any) -> Any:
    if isinstance(sent, dict) and isinstance(parsed, dict):
        return {**sent, **{key: _merged(sent.get(key), each) for key, each in parsed.items()}}
    if isinstance(sent, list) and isinstance(parsed, list) and len(sent) == len(parsed):
        return [_merged(*pair) for pair in zip(sent, parsed, strict=True)]
    return parsed
