"""Sessions without sockets, measured in a fresh interpreter each time: apps/in_process.py."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["measure"]

BENCH = Path(__file__).parents[1]
PATIENCE = 600.0


def measure(what: str, **options: Any) -> dict[str, Any]:
    """
    Measure one thing, a function of apps/in_process.py, in an interpreter of its own; return its figures.

    Raises:
        RuntimeError: If it failed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DRAIN_", "AWS_", "ECS_"))}
    path = os.pathsep.join(str(folder) for folder in (BENCH / "apps", BENCH, BENCH.parents[1]))
    done = subprocess.run(
        [sys.executable, "-m", "in_process", what, json.dumps(options)],
        env=inherited | {"PYTHONPATH": path},
        cwd=BENCH,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        msg = f"{what} {options} failed:\n{done.stderr[-4000:]}"
        raise RuntimeError(msg)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
