"""An asyncio event loop whose clock jumps: nothing below tests/e2e really sleeps."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any


class JumpingSelector(selectors.BaseSelector):
    """Instead of waiting until the next timer is due, move the clock to it."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 1000.0
        self.threads = 0
        self.stands_still = True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; where nothing is, let *timeout* pass at once."""
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if (self.threads and self.stands_still) or timeout is None:
            # Time stands still while a thread works (a warm-up, a flush); it wakes the loop through its self-pipe.
            return self._real.select(0.05)
        self.now += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a file."""
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return what is watched."""
        return self._real.get_map()

    def close(self) -> None:
        """Close the real selector."""
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose ``time()`` moves only when there is nothing left to do. Starts at 1000 s to catch mixed clocks."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run *func* in a thread, for as long as which time stands still."""
        self._jumping.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Wait for the threads in real time: from 3.12 on there is a time limit, which the clock would jump over."""
        self._jumping.threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jumping.threads -= 1

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self._jumping.threads -= 1

    def let_time_pass(self) -> None:
        """Let time pass although a thread works: it hangs."""
        self._jumping.stands_still = False

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._jumping.now
