"""The ``starlette-drain`` command."""

import sys
from collections.abc import Sequence

__all__ = ["main"]

NEEDED = frozenset({"click", "rich"})
"""The libraries that only the command needs."""

USAGE = 2
"""The exit code for wrong usage, and for a command that cannot run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        from starlette_drain.tools.commands import run  # noqa: PLC0415 - an extra, which may not be installed
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in NEEDED:
            raise
        sys.stderr.write(
            "starlette-drain needs click and rich: pip install 'click>=8.4' 'rich>=13' (the extra [cli])\n"
        )
        return USAGE
    return run(arguments)
