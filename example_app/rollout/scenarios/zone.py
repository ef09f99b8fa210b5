"""An Availability Zone fails: a third of the tasks is killed at once."""

from example_app.rollout.scenarios.base import Strike
from example_app.rollout.scenarios.crash import struck

__all__ = ["ZONES"]

STRIKE = Strike(tasks=lambda tasks: max(1, tasks // 3))

ZONES = (
    struck("zone", "A third of the tasks is killed: their clients come to the others at once", STRIKE),
    struck("zone-admission", "The same with admission=“auto”: handshakes in progress are limited", STRIKE),
)
"""Without and with a limit on the handshakes in progress."""
