"""What a drain expects of those who make it one with the drains of other processes."""

from typing import Protocol

from starlette_drain.telemetry.base import Observer
from starlette_drain.triggers.base import Trigger

__all__ = ["Agreement", "TriggerAndObserver"]


class TriggerAndObserver(Trigger, Observer, Protocol):
    """Somebody who asks for drains and hears of them."""


class Agreement(TriggerAndObserver, Protocol):
    """What makes the drains of several processes one drain."""

    def look(self) -> None:
        """Hear now what the others say, before this process is asked for something itself. Never raises."""

    async def wait_others(self) -> bool:
        """Wait until the others have drained too; return False where this process serves again meanwhile."""
