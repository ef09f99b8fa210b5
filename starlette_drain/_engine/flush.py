"""What happens before the exit: triggers act and observers flush, each within a time limit."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from starlette_drain.telemetry.base import Observers

__all__ = ["BEFORE_EXIT_TIMEOUT", "FLUSH_TIMEOUT", "before_exit", "flush"]

FLUSH_TIMEOUT = 5.0
"""Seconds that a flush may take."""

BEFORE_EXIT_TIMEOUT = 5.0
"""Seconds that the ``before_exit`` of all triggers together may take."""

TO_REPORT = 0.5
"""Seconds of `FLUSH_TIMEOUT` that are kept for the observers to log what they could not send."""

logger = logging.getLogger("starlette_drain")


async def before_exit(triggers: Iterable[object]) -> None:
    """Run ``before_exit`` of the triggers that have it, concurrently, for at most `BEFORE_EXIT_TIMEOUT` seconds."""
    acts = [asyncio.create_task(_act(each)) for each in triggers if hasattr(each, "before_exit")]
    if not acts:
        return
    ended, pending = await asyncio.wait(acts, timeout=BEFORE_EXIT_TIMEOUT)
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("before_exit of a trigger failed", exc_info=error)
    for task in pending:
        task.cancel()
    if pending:
        logger.warning("before_exit of the triggers took more than %g s and was cut short", BEFORE_EXIT_TIMEOUT)


async def _act(trigger: Any) -> None:
    await trigger.before_exit()


async def flush(observers: Observers) -> None:
    """Flush *observers* in a thread, for `FLUSH_TIMEOUT` seconds at most."""
    flushing = asyncio.get_running_loop().run_in_executor(_DaemonThreads(), observers.flush, FLUSH_TIMEOUT - TO_REPORT)
    ended, _ = await asyncio.wait((flushing,), timeout=FLUSH_TIMEOUT)
    if not ended:
        logger.warning("The observers did not flush within %g s; some telemetry may be lost", FLUSH_TIMEOUT)


class _DaemonThreads(Executor):
    """
    Runs each call at once, in its own daemon thread.

    The default executor may be full of the application's own calls, and Python waits for its threads at exit: an
    observer that hangs would delay SIGTERM, and then the end of the process.
    """

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outcome: Future[Any] = Future()

        def work() -> None:
            try:
                outcome.set_result(call(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - re-raised where the future is awaited
                outcome.set_exception(error)

        threading.Thread(target=work, name="starlette-drain-flush", daemon=True).start()
        return outcome
