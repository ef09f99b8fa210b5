# A full garbage collection looks at every object, in one go, on the thread of the event loop: a quarter of a second at
# 3,000 sessions, more than one at 16,000. Python starts one when its objects have grown by a quarter, so it comes in
# the middle of the arrivals, and it is the longest stall there. What has been frozen is passed over.
"""Keeps full garbage collections out of a storm of arrivals."""

import gc
import math

__all__ = ["Freeze"]

FROZEN = 2000
"""Objects frozen from which on it was the application: Python 3.12 begins with some hundreds of its own."""

LONGEST = 60.0
"""Seconds after which collections see everything again: a limit that is always full must not keep what is garbage."""


class Freeze:
    """What the process has is frozen while a storm lasts. Where the application froze something itself, nothing is."""

    def __init__(self) -> None:
        self._until = -math.inf

    def begin(self, now: float) -> None:
        """Freeze what there is, if it is for us to do."""
        if gc.isenabled() and gc.get_freeze_count() < FROZEN:
            gc.freeze()
            self._until = now + LONGEST

    def go_on(self, now: float) -> None:
        """Freeze what has come since; after a long time, thaw it."""
        if now < self._until:
            gc.freeze()
        else:
            self.end()

    def end(self) -> None:
        """Thaw what we have frozen."""
        if self._until > -math.inf:
            self._until = -math.inf
            gc.unfreeze()
