"""
Measures all clients, and writes what they do: the data that `plan` and the lab use, and the tables of the page.

``make zoo``. It takes two minutes: time jumps, except for Chromium's and for those that show that the clock is true.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.measure import MOST_LUCK, behaviour, in_real_time, measure, measure_chromium
from zoo.table import PAGE, page_with

DATA = Path(__file__).parents[3] / "starlette_drain" / "tools" / "plan" / "clients.json"

WITH_THE_WALL = "partysocket", "websockets"
"""Clients that are run in real time too, one of Node and one of Python."""

NEAR = 0.3


def written(measured: Mapping[str, Any]) -> str:
    """Return the data as JSON, a line for each thing that is known of a client."""
    clients = [
        ",\n".join(f"    {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in seen.items())
        for seen in measured.values()
    ]
    named = ",\n".join(f"  {json.dumps(name)}: {{\n{each}\n  }}" for name, each in zip(measured, clients, strict=True))
    return f"{{\n{named}\n}}\n"


async def main() -> None:
    """Measure, compare with the real time, and write."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium or not shutil.which("node"):
        sys.exit("Node.js or Chromium is missing: run tests/ecosystem/install.sh")
    runs = await measure()
    for name in WITH_THE_WALL:
        real = await in_real_time(name)
        jumped = next(each for each in runs[name] if each.luck == MOST_LUCK).waits["refused"]
        sys.stdout.write(f"{name}: {real} s by the wall, {jumped[: len(real)]} s by the clock that jumps\n")
        if not all(abs(one - other) < NEAR for one, other in zip(real, jumped, strict=False)):
            sys.exit("The clock that jumps is not true, or this machine is too busy.")
    runs |= await measure_chromium(chromium)
    measured = {name: behaviour(runs[name]) for name in sorted(runs)}
    DATA.write_text(written(measured))
    PAGE.write_text(page_with(PAGE.read_text(), measured))
    sys.stdout.write(f"{len(measured)} clients\n")


if __name__ == "__main__":
    asyncio.run(main())
