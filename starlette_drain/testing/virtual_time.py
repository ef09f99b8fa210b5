"""An asyncio event loop with a virtual clock: a drain of an hour takes no time."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["VirtualTimeLoop"]

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

WHILE_A_THREAD_WORKS = 0.05
"""Seconds of real time between two checks whether anything is ready."""


class JumpingSelector(selectors.BaseSelector):
    """
    A selector that moves the clock to the next timer instead of waiting for it.

    Args:
        now: The initial time, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._real = selectors.DefaultSelector()
        self.now = now
        self.threads = 0
        self.stands_still = True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, advance the clock by *timeout* at once."""
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if (self.threads and self.stands_still) or timeout is None:
            # Time stands still while a thread works; the thread wakes the loop through its self-pipe.
            return self._real.select(WHILE_A_THREAD_WORKS)
        self.now += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a file."""
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the watched files."""
        return self._real.get_map()

    def close(self) -> None:
        """Close the real selector."""
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose clock jumps to the next timer as soon as there is nothing left to do.

    ``with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner: runner.run(main())`` runs a day of ``asyncio.sleep``
    at once. The clock stands still while a function runs in the loop's threads (``asyncio.to_thread``). Code that waits
    for a socket, another process or another event loop needs a real clock: here its timeouts expire at once.

    Args:
        start: The initial time, in seconds. The default is far from zero and from the machine's clock, so that times
            of another clock stand out.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._jumping = JumpingSelector(start)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._jumping.now

    def let_time_pass(self) -> None:
        """Let time pass from now on, even while a thread is running."""
        self._jumping.stands_still = False

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> asyncio.Future[Result]:
        """Run *func* in a thread; time stands still until it returns."""
        self._jumping.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Wait for the threads in real time, without the time limit of Python 3.12, over which the clock would jump."""
        self._jumping.threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jumping.threads -= 1

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self._jumping.threads -= 1
