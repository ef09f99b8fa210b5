# The workers of one task may have different versions: a rolling restart replaces them one after the other. Each file
# has the version that wrote it, and the oldest version that can read it. Adding a field changes neither: readers ignore
# unknown fields, and use a default for fields that an older version does not write. A change of meaning raises the
# version, and raises `oldest` only if an older reader would do the wrong thing.
"""The format of all files of the workers: JSON objects with a version."""

import json
from typing import Any

__all__ = ["dump", "load"]

VERSION = 1
"""The version that this worker writes, and the newest that it can read."""

OLDEST = 1
"""The oldest version that can read what this one writes."""


def dump(content: dict[str, Any]) -> str:
    """Return the text of a file with *content*."""
    return json.dumps({"version": VERSION, "oldest": OLDEST, **content})


def load(text: str) -> dict[str, Any]:
    """
    Return the content of a file.

    Raises:
        ValueError: If *text* is not such a file, or only newer versions can read it.
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
