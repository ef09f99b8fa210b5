"""The application of the README, of which one worker runs a newer version of the agreement between the workers."""

import os
from pathlib import Path

from one_line import app

from starlette_drain._workers import file_format

__all__ = ["app"]


def newer() -> None:
    """Write what the other workers do not know, in a version that they understand all the same."""
    dump = file_format.dump
    file_format.dump = lambda content: dump({**content, "mood": "good", "version": 2, "oldest": 1})
    file_format.VERSION = 2


try:
    Path(os.environ["TMPDIR"], "newer").mkdir()
except FileExistsError:
    pass
else:
    newer()
