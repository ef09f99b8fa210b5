"""Applications called by hand in this process, bare and watched, on the clock that counts our own CPU time only."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import uvloop

from harness.figures import interleave
from starlette_drain import Drain, DrainMiddleware

__all__ = ["LOOPS", "CpuClock", "measure_by_hand"]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class CpuClock:
    """Measures the CPU time of a ``with`` block: *nanoseconds* of this thread."""

    nanoseconds = 0

    def __enter__(self) -> Self:
        self._before = time.thread_time_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.nanoseconds = time.thread_time_ns() - self._before


def measure_by_hand(
    app: Any, measure: Callable[[Any], Awaitable[float]], *, rounds: int, loop: str = "asyncio"
) -> dict[str, list[float]]:
    """Await *measure* with the bare application, with it once more, and with it watched, by turns."""
    # With the usual observers, since every session is told to them; but without those who ask AWS.
    watched = DrainMiddleware(app, drain=Drain(triggers=()))
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner, no_garbage_collection():
        variants = {
            name: lambda each=each: runner.run(measure(each))
            for name, each in (("bare", app), ("same", app), ("ours", watched))
        }
        values = interleave(variants, rounds)
        assert len(watched.drain.host.engine.answers) == watched.drain.statistics().open == 0
        runner.run(watched.drain.host.end())
    return values


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect before the block, and never inside it: a collection would fall on one of two variants."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
