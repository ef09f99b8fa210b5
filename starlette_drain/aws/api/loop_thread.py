"""An event loop in a separate thread, for what would block the loop that serves."""

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["LoopThread"]

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines on another event loop. Its thread exists while any task is inside the ``async with`` block."""

    def __init__(self) -> None:
        self._inside = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._inside += 1
        if self._loop is None:
            self._loop, self._end = asyncio.new_event_loop(), asyncio.Event()
            # A daemon: the import of a library cannot be interrupted, and must not delay the exit.
            thread = threading.Thread(target=_live, args=(self._loop, self._end), name="starlette_drain", daemon=True)
            thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inside -= 1
        if self._loop and not self._inside:
            self._loop.call_soon_threadsafe(self._end.set)
            self._loop = None

    async def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run *coroutine* on that loop, in a copy of the caller's context; a cancellation is passed on."""
        assert self._loop, "not entered"  # noqa: S101
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))


def _live(loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_until(end))


async def _until(end: asyncio.Event) -> None:
    await end.wait()
