"""Having observers send what they hold, within a time that is kept."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from starlette_drain.telemetry.base import Observers

__all__ = ["BEFORE_EXIT_TIMEOUT", "FLUSH_TIMEOUT", "before_exit", "flush"]

FLUSH_TIMEOUT = 5.0
"""Seconds that a flush may take, whatever the observers do."""

BEFORE_EXIT_TIMEOUT = 5.0
"""Seconds that everything may take that must happen before the exit."""

TO_SPEAK = 0.5
"""Seconds of these that the observers do not get: in them they say what they could not send."""

logger = logging.getLogger("starlette_drain")


async def before_exit(triggers: Iterable[object]) -> None:
    """Let those of *triggers* that have a ``before_exit`` do what must happen before the exit, all at once."""
    acts = [asyncio.create_task(_act(each)) for each in triggers if hasattr(each, "before_exit")]
    if not acts:
        return
    ended, pending = await asyncio.wait(acts, timeout=BEFORE_EXIT_TIMEOUT)
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("before_exit of a trigger failed", exc_info=error)
    for task in pending:
        task.cancel()
        logger.warning("before_exit of the triggers took more than %g s and was cut short", BEFORE_EXIT_TIMEOUT)


async def _act(trigger: Any) -> None:
    await trigger.before_exit()


async def flush(observers: Observers) -> None:
    """Let *observers* send what they hold, in a thread, for `FLUSH_TIMEOUT` seconds at most."""
    flushing = asyncio.get_running_loop().run_in_executor(_Aside(), observers.flush, FLUSH_TIMEOUT - TO_SPEAK)
    ended, _ = await asyncio.wait((flushing,), timeout=FLUSH_TIMEOUT)
    if not ended:
        logger.warning("The observers did not flush within %g s; some telemetry may be lost", FLUSH_TIMEOUT)


class _Aside(Executor):
    """
    Runs each call at once, in a daemon thread of its own.

    The default executor runs it when the application's own calls there have ended, and waits for it at the exit: an
    observer that hangs would hold up SIGTERM, and then the end of the process.
    """

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outcome: Future[Any] = Future()

        def work() -> None:
            try:
                outcome.set_result(call(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is raised to the caller that waits
                outcome.set_exception(error)

        threading.Thread(target=work, name="starlette-drain-flush", daemon=True).start()
        return outcome
