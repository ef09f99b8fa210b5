"""The garbage collector during a drain: with ``freeze_gc`` it passes over whatever was there when the drain began."""

import gc
import threading
from typing import ClassVar

from starlette_drain._core.events import DrainCancelled, DrainFinished, DrainStarted, Event

__all__ = ["Freeze"]


class Freeze:
    """
    Freezes all objects when a drain begins, and thaws them when it is over, cancelled or stopped; an observer.

    A process has one collector, which several drains share: the first to begin freezes, the last to end thaws. Python
    cannot tell whose objects are frozen, so where the application has frozen some, or switched the collector off, all
    is left as it is. Neither the thresholds nor that switch are ever touched.
    """

    subscribes = (DrainStarted, DrainFinished, DrainCancelled)

    _lock = threading.Lock()
    _under_way: ClassVar[set["Freeze"]] = set()
    """Those of the whole process, as the collector is."""

    def notify(self, event: Event) -> None:
        """Follow the drain."""
        match event:
            case DrainStarted():
                self._begin()
            case DrainFinished() | DrainCancelled():
                self._end()

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    def _begin(self) -> None:
        with self._lock:
            if self._under_way or (gc.isenabled() and gc.get_freeze_count() == 0):
                gc.freeze()
                self._under_way.add(self)

    def _end(self) -> None:
        with self._lock:
            if self in self._under_way:
                self._under_way.remove(self)
                if not self._under_way:
                    gc.unfreeze()
