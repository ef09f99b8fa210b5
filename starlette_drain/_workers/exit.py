"""Early exit: stops the process as soon as it is empty, instead of waiting for ECS."""

import os
import signal

from starlette_drain._core.events import TriggerImpaired
from starlette_drain._core.state import DrainState
from starlette_drain._engine.engine import Engine

__all__ = ["end", "is_done"]

REMEDY = "run the supervisor and its workers as one user, or set exit_when_drained=False and let ECS stop the task"


LONGEST_WORK = 60.0
"""Seconds after the drain for applications to finish their work, even if the deadline has passed."""


def is_done(engine: Engine) -> bool:
    """Return whether the process may end: it is empty, admits no new sessions, and was not told to stop yet."""
    if engine.state is not DrainState.DRAINED or engine.admits() or not engine.is_revocable:
        return False
    progress = engine.progress()
    if progress is not None and progress.time_left > 0.0:
        return not engine.answers and not engine.working
    return not engine.working or engine.drained_for() >= LONGEST_WORK


def end(engine: Engine, pid: int) -> None:
    """Send SIGTERM to the process *pid*; report it if that is not allowed."""
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        problem = f"all is drained, but process {pid} cannot be signalled: {error.strerror}"
        engine.emit(TriggerImpaired(engine.time(), "workers", problem, REMEDY))
