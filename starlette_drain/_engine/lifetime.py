# Everything that belongs to one event loop begins and ends here.
#
#   ATTACHED   Bound to the loop: sessions are tracked, but nothing is watched. The application is starting.
#   WATCHING   The triggers watch.
#   ENDING     The application is about to end: no drain can begin.
#   ENDED      It is over. Connections that still arrive on this loop find the drain as it ended.
#   DETACHED   It is over but may begin again: an application without lifespan support may still be served.
"""One lifetime of a drain: what begins and ends with the application."""

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
    """The state of a lifetime."""

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
        """The report at the last flush."""
        self._has_acted = False
        """Whether the triggers' ``before_exit`` has run."""

    @property
    def is_alive(self) -> bool:
        """Whether it has not begun to end."""
        return self.state in ALIVE

    def begin(self, control: Control) -> bool:
        """Let triggers watch from now on; return False if they may already, or if it is over."""
        if self.state is not LifetimeState.ATTACHED:
            return False
        self.state = LifetimeState.WATCHING
        self._tasks = TriggerTasks(control)
        return True

    def use(self, control: Control) -> None:
        """Give *control* to triggers that begin to watch later."""
        if self._tasks is not None:
            self._tasks.control = control

    def watch(self, triggers: Iterable[Trigger]) -> None:
        """Start the *triggers* that do not watch yet; none if ``mode`` is ``"off"``."""
        is_off = self.engine.settings.mode == "off"
        if self._tasks is not None and self.state is LifetimeState.WATCHING and not is_off:
            self._tasks.begin(triggers)

    def watches(self, trigger: Trigger) -> bool:
        """Return whether *trigger* watches already."""
        return self._tasks is not None and trigger in self._tasks

    def failure_of(self, trigger: Trigger) -> str | None:
        """Return why *trigger* does not watch now, if it has failed."""
        return self._tasks.failure_of(trigger) if self._tasks is not None else None

    async def flush(self, triggers: Iterable[Trigger]) -> None:
        """Run the ``before_exit`` of *triggers*, then flush the observers; in bounded time."""
        self._flushed = self.engine.report
        await self._before_exit(triggers)
        await flush(self.engine.observers)

    async def end(self, triggers: Iterable[Trigger], *, may_begin_again: bool = False) -> None:
        """Stop watching, finish a running drain as it stands, and resolve all waiters; in bounded time."""
        if self.state in OVER:
            return
        self.state = LifetimeState.ENDING
        self.engine.end()  # first, so that waiters do not depend on how long the triggers take
        try:
            # Without triggers nothing is awaited: a failing startup raises in the same step as without us.
            if self._tasks is not None:
                await self._before_exit(triggers)
                await self._tasks.end()
            if self.engine.report is not self._flushed:
                await self.flush(triggers)
        finally:
            self.state = LifetimeState.DETACHED if may_begin_again else LifetimeState.ENDED

    async def _before_exit(self, triggers: Iterable[Trigger]) -> None:
        """Run the ``before_exit`` of *triggers*, once in a lifetime."""
        if not self._has_acted:
            self._has_acted = True
            await before_exit(triggers)
