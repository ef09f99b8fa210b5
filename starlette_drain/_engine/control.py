"""What triggers, and commands by hand, may do to the drain of one event loop."""

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
    The `Control` of a process that drains by itself.

    Args:
        lifetime: The lifetime on the present event loop.
        triggers: Returns all triggers, those that have come late too.
    """

    def __init__(self, lifetime: Lifetime, triggers: Callable[[], Iterable[Trigger]]) -> None:
        self.engine: Engine = lifetime.engine
        self._lifetime = lifetime
        self._triggers = triggers

    @property
    def settings(self) -> Settings:
        """The checked options of the drain."""
        return self.engine.settings

    @property
    def workers(self) -> int:
        """How many worker processes of this task drain as one; 1 without a supervisor."""
        return self.engine.workers

    def time(self) -> float:
        """Return the event loop's monotonic clock, in seconds."""
        return self.engine.time()

    def claim(self, cause: DrainCause) -> None:
        """Hold a claim."""
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
        """Read first what other workers have published, in bounded time; call it before a command by hand."""

    async def publish(self) -> None:
        """Publish what was done here to the other workers, in bounded time; call it after a command by hand."""

    def open_sessions(self) -> int:
        """Return how many sessions are open in the whole task, as far as its workers have published."""
        return self.engine.open_sessions()

    def note_window(self, window: float) -> None:
        """Take note how many seconds a drain may take here."""
        self.engine.note_window(window)

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """Take note how many targets drain and are healthy, and whether this task's is *counted* among the former."""
        self.engine.note_fleet(draining, healthy, counted=counted)

    def rotate(self, rotation: Rotation) -> bool:
        """Ask the open sessions to leave once; return whether that began. It does not during a drain."""
        try:
            self.engine.rotate(rotation)
        except IllegalTransition:
            return False
        return True

    def emit(self, event: Event) -> None:
        """Send *event* to the observers."""
        self.engine.emit(event)

    async def wait_drained(self) -> bool:
        """Wait until the drain is over; return False if it was cancelled, or never came."""
        return await self.engine.wait_drained()

    async def wait_all_drained(self) -> bool:
        """Wait like `wait_drained`, for all workers of the task."""
        return await self.engine.wait_drained()

    async def flush(self) -> None:
        """Do what must happen before the exit, and let the observers send what they hold; in bounded time."""
        await self._lifetime.flush(self._triggers())
