# What belongs to one event loop begins and ends here.
#
#   ATTACHED   It belongs to the loop; sessions are tracked, nothing is watched yet: the application is starting.
#   WATCHING   The triggers watch.
#   ENDING     The application is about to end: nothing begins any more.
#   ENDED      It is over. What still comes on this loop meets the drain as it ended.
#   DETACHED   It is over, and may begin anew: an application that knows no lifespan may be served all the same.
"""One life of a drain: what begins with the application and ends with it."""

from collections.abc import Iterable
from enum import Enum
from threading import get_ident

from starlette_drain._core.report import DrainReport
from starlette_drain._engine.engine import Engine
from starlette_drain._engine.flush import before_exit, flush
from starlette_drain._engine.trigger_tasks import TriggerTasks
from starlette_drain.triggers.base import Control, Trigger

__all__ = ["Lifetime", "LifetimeState"]


class LifetimeState(Enum):
    """Where a lifetime stands."""

    ATTACHED = "attached"
    WATCHING = "watching"
    ENDING = "ending"
    ENDED = "ended"
    DETACHED = "detached"


ALIVE = frozenset({LifetimeState.ATTACHED, LifetimeState.WATCHING})
OVER = frozenset({LifetimeState.ENDING, LifetimeState.ENDED, LifetimeState.DETACHED})


class Lifetime:
    """
    Everything that belongs to one event loop.

    Args:
        engine: The engine of that loop.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.loop = engine.loop
        self.thread = get_ident()
        self.state = LifetimeState.ATTACHED
        self._tasks: TriggerTasks | None = None
        self._flushed: DrainReport | None = None
        """The report that the observers have sent, or had their time to."""
        self._has_acted = False
        """Whether the triggers have done what must happen before the exit, or had their time to."""

    @property
    def is_alive(self) -> bool:
        """Whether it has not begun to end."""
        return self.state in ALIVE

    def begin(self, control: Control) -> bool:
        """Let triggers watch from now on; return whether that was news."""
        if self.state is not LifetimeState.ATTACHED:
            return False
        self.state = LifetimeState.WATCHING
        self._tasks = TriggerTasks(control)
        return True

    def use(self, control: Control) -> None:
        """Give *control* to the triggers that do not watch yet."""
        if self._tasks is not None:
            self._tasks.control = control

    def watch(self, triggers: Iterable[Trigger]) -> None:
        """Let those of *triggers* watch that do not yet; none where the drain is switched off."""
        is_off = self.engine.settings.mode == "off"
        if self._tasks is not None and self.state is LifetimeState.WATCHING and not is_off:
            self._tasks.begin(triggers)

    def watches(self, trigger: Trigger) -> bool:
        """Return whether *trigger* watches already."""
        return self._tasks is not None and trigger in self._tasks

    def failure_of(self, trigger: Trigger) -> str | None:
        """Return why *trigger* does not watch just now, if it has failed."""
        return self._tasks.failure_of(trigger) if self._tasks is not None else None

    async def flush(self, triggers: Iterable[Trigger]) -> None:
        """Let *triggers* do what must happen before the exit, then observers send what they hold; in bounded time."""
        self._flushed = self.engine.report
        await self._before_exit(triggers)
        await flush(self.engine.observers)

    async def end(self, triggers: Iterable[Trigger], *, may_begin_again: bool = False) -> None:
        """Stop watching, end a drain that runs as it stands, and resolve all that wait; in bounded time."""
        if self.state in OVER:
            return
        self.state = LifetimeState.ENDING
        self.engine.end()  # first, so that waiters are resolved although a trigger takes its time
        try:
            # An application whose startup fails raises in the same step as it would without us.
            if self._tasks is not None:
                await self._before_exit(triggers)
                await self._tasks.end()
            if self.engine.report is not self._flushed:
                await self.flush(triggers)
        finally:
            self.state = LifetimeState.DETACHED if may_begin_again else LifetimeState.ENDED

    async def _before_exit(self, triggers: Iterable[Trigger]) -> None:
        """Let *triggers* do what must happen before the exit, once."""
        if not self._has_acted:
            self._has_acted = True
            await before_exit(triggers)
