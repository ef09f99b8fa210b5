"""The thread in which a worker uses files, so that a slow disk or network share does not block the event loop."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any

__all__ = ["FileThread"]


class FileThread(Executor):
    """
    Runs calls one after the other, in a daemon thread that is started by the first of them.

    At exit Python waits for the executors of the standard library, and a file system that hangs would block the exit.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._has_started = False

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run *call* after those submitted before it."""
        outcome: Future[Any] = Future()
        if not self._has_started:
            threading.Thread(target=self._run, name="starlette-drain-workers", daemon=True).start()
            self._has_started = True
        self._calls.put((outcome, lambda: call(*args, **kwargs)))
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """End the thread after the calls that were submitted; another call starts a new one."""
        if self._has_started:
            self._has_started = False
            self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            outcome, call = item
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(call())
                except BaseException as error:  # noqa: BLE001 - re-raised where the future is awaited
                    outcome.set_exception(error)
