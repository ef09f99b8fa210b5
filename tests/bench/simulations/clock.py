"""The clock of the simulations, which begins at 0 and jumps."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette_drain.testing import VirtualTimeLoop

__all__ = ["in_virtual_time"]

Result = TypeVar("Result")


def in_virtual_time(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run *coroutine*, which must do nothing but compute and wait for timers, in no time."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start=0.0)) as runner:
        return runner.run(coroutine)
