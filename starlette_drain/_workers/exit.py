"""Early exit: to end the process as soon as it is empty, instead of waiting until ECS does."""

import os
import signal

from starlette_drain._core.events import TriggerImpaired
from starlette_drain._core.state import DrainState
from starlette_drain._engine.engine import Engine

__all__ = ["end", "is_done"]

REMEDY = "let the supervisor and its workers run as one user, or set exit_when_drained=False and leave the end to ECS"


LONGEST_WORK = 60.0
"""Seconds after the drain in which applications may end their work, though the deadline has passed."""


def is_done(engine: Engine) -> bool:
    """Return whether the process may end: it is empty, admits no new session, and was not told to stop yet."""
    if engine.state is not DrainState.DRAINED or engine.admits() or not engine.is_revocable:
        return False
    progress = engine.progress()
    if progress is not None and progress.time_left > 0.0:
        return not engine.answers and not engine.working
    return not engine.working or engine.drained_for() >= LONGEST_WORK


def end(engine: Engine, pid: int) -> None:
    """Send SIGTERM to the process *pid*; where that is not allowed, say so."""
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        problem = f"all is drained, but process {pid} cannot be signalled: {error.strerror}"
        engine.emit(TriggerImpaired(engine.time(), "workers", problem, REMEDY))
