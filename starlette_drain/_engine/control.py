"""What triggers and manual commands may do to the drain of one event loop."""

from collections.abc import Callable, Iterable

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import Event
from starlette_drain._core.settings import Settings
from starlette_drain._core.turnover import Rotation
from starlette_drain._engine.engine import Engine
from starlette_drain._engine.lifetime import Lifetime
from starlette_drain.exceptions import IllegalTransition
from starlette_drain.triggers.base import Trigger

__all__ = ["LocalControl"]


class LocalControl:
    """
    The `Control` of a process that drains on its own.

    Args:
        lifetime: The lifetime on the current event loop.
        triggers: Returns all triggers, including those added later.
    """

    def __init__(self, lifetime: Lifetime, triggers: Callable[[], Iterable[Trigger]]) -> None:
        self.engine: Engine = lifetime.engine
        self._lifetime = lifetime
        self._triggers = triggers

    @property
    def settings(self) -> Settings:
        """The validated options of the drain."""
        return self.engine.settings

    @property
    def workers(self) -> int:
        """How many worker processes of this task drain as one; 1 without a supervisor."""
        return self.engine.workers

    def time(self) -> float:
        """Return the time of the event loop's monotonic clock, in seconds."""
        return self.engine.time()

    def claim(self, cause: DrainCause) -> None:
        """Make *cause* the claim of its trigger."""
        self.engine.claim(cause)

    def withdraw(self, trigger: str) -> bool:
        """Drop the claim of *trigger*; return whether that changed anything."""
        return self.engine.withdraw(trigger)

    def cancel(self) -> None:
        """
        Serve again, and mute the claims that stand.

        Raises:
            IllegalTransition: If there is no drain.
            TooLateToCancel: If the process has been told to stop.
        """
        self.engine.cancel()

    async def refresh(self) -> None:
        """Read what other workers have published, in bounded time; call it before a manual command."""

    async def publish(self) -> None:
        """Publish what was done here to the other workers, in bounded time; call it after a manual command."""

    def open_sessions(self) -> int:
        """Return the number of open sessions in the whole task, as last published by its workers."""
        return self.engine.open_sessions()

    def note_window(self, window: float) -> None:
        """Set the longest window, in seconds, that a drain can have here."""
        self.engine.note_window(window)

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """Set how many targets are draining and healthy, and whether this task is *counted* among the draining."""
        self.engine.note_fleet(draining, healthy, counted=counted)

    def rotate(self, rotation: Rotation) -> bool:
        """Begin *rotation*; return whether it began, which it does not during a drain."""
        try:
            self.engine.rotate(rotation)
        except IllegalTransition:
            return False
        return True

    def emit(self, event: Event) -> None:
        """Send *event* to the observers."""
        self.engine.emit(event)

    async def wait_drained(self) -> bool:
        """Wait until the drain is over; return False if it was cancelled or never began."""
        return await self.engine.wait_drained()

    async def wait_all_drained(self) -> bool:
        """Wait like `wait_drained`, for all workers of the task."""
        return await self.engine.wait_drained()

    async def flush(self) -> None:
        """Run the triggers' ``before_exit``, then flush the observers; in bounded time."""
        await self._lifetime.flush(self._triggers())
