# A full garbage collection visits every object, without a pause, on the thread of the event loop: a quarter of a second
# at 3,000 sessions, more than a second at 16,000. Python starts one when the number of objects has grown by a quarter,
# so it comes in the middle of the arrivals and is the longest stall there. The collector skips frozen objects.
"""Freezes the garbage collector's objects during a storm of arrivals."""

import gc
import math

__all__ = ["Freeze"]

FROZEN = 2000
"""Frozen objects above which the application has called ``gc.freeze``: Python 3.12 starts with a few hundred."""

LONGEST = 60.0
"""Seconds after which everything is unfrozen: a storm without an end must not keep garbage alive."""


class Freeze:
    """
    Freezes all objects of the process while a storm lasts.

    It does nothing if the application itself uses ``gc.freeze`` or has disabled the collector.
    """

    def __init__(self) -> None:
        self._until = -math.inf

    def begin(self, now: float) -> None:
        """Freeze all current objects, unless the application manages the collector itself."""
        if gc.isenabled() and gc.get_freeze_count() < FROZEN:
            gc.freeze()
            self._until = now + LONGEST

    def go_on(self, now: float) -> None:
        """Freeze the objects created since; after `LONGEST` seconds, unfreeze everything."""
        if now < self._until:
            gc.freeze()
        else:
            self.end()

    def end(self) -> None:
        """Unfreeze everything, if we have frozen it."""
        if self._until > -math.inf:
            self._until = -math.inf
            gc.unfreeze()
