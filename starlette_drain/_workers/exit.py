"""Early exit: to end what is empty, instead of waiting until ECS does."""

import os
import signal

from starlette_drain._core.events import TriggerImpaired
from starlette_drain._core.state import DrainState
from starlette_drain._engine.drain import Drain

__all__ = ["end", "is_done", "is_told_to_stop"]

REMEDY = "let the supervisor and its workers run as one user, or set exit_when_drained=False and leave the end to ECS"


def is_told_to_stop(drain: Drain) -> bool:
    """Tell whether this process ends in any case."""
    progress = drain.progress()
    return progress is not None and not all(cause.revocable for cause in progress.causes)


def is_done(drain: Drain) -> bool:
    """Tell whether there is no reason to live on: nobody is there, nobody may come, and nobody has said so yet."""
    progress = drain.progress()
    if progress is None or drain.state is not DrainState.DRAINED or drain.admits():
        return False
    return not is_told_to_stop(drain) and (len(drain.transfers) == 0 or progress.time_left == 0.0)


def end(drain: Drain, pid: int) -> None:
    """Send SIGTERM to the process *pid*; where that is not allowed, say so."""
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        problem = f"all is drained, and process {pid} cannot be told to end: {error.strerror}"
        drain.emit(TriggerImpaired(drain.time(), "workers", problem, REMEDY))
