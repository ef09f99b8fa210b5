# The workers of one task may be of two versions: a rolling restart replaces them in turn. Each file names the version
# that wrote it, and the oldest version whose readers understand it. A field that is added raises neither: readers
# ignore what they do not know, and take a default for what an older version does not write. A change of meaning raises
# the version, and `oldest` only where an older reader would do the wrong thing.
"""What all files of the workers have in common: JSON objects with a version."""

import json
from typing import Any

__all__ = ["dump", "load"]

VERSION = 1
"""The version that this worker writes, and the newest that it knows."""

OLDEST = 1
"""The oldest version whose readers understand what this one writes."""


def dump(content: dict[str, Any]) -> str:
    """Return *content* as the text of a file."""
    return json.dumps({"version": VERSION, "oldest": OLDEST, **content})


def load(text: str) -> dict[str, Any]:
    """
    Return the content of a file.

    Raises:
        ValueError: If *text* is no such content, or only newer versions understand it.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        msg = "it is nested too deep"
        raise ValueError(msg) from None
    if not isinstance(content, dict) or "version" not in content:
        msg = f"it is not a file of the workers: {text!r:.80}"
        raise ValueError(msg)
    oldest = content.get("oldest", content["version"])
    if not isinstance(oldest, int) or oldest > VERSION:
        msg = f"it has version {content['version']!r:.20}, and this worker reads {VERSION}"
        raise ValueError(msg)
    return content
