"""What a Drain is made of, from one event loop to the next: its options, triggers, observers, and present lifetime."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from starlette_drain._core.session import HOOK_TIMEOUT
from starlette_drain._core.settings import Settings
from starlette_drain._engine.close_hooks import CloseHooks
from starlette_drain._engine.control import LocalControl
from starlette_drain._engine.engine import Engine
from starlette_drain._engine.lifetime import Lifetime, LifetimeState
from starlette_drain._engine.trigger_tasks import status_of
from starlette_drain.exceptions import DrainEnded, DrainInUse, SettingsError
from starlette_drain.telemetry.base import Observer, Observers
from starlette_drain.triggers.base import Trigger, check_triggers

__all__ = ["DrainHost"]


class DrainHost:
    """
    Binds a Drain to one event loop after another.

    Args:
        settings: The checked options.
        triggers: What may start a drain; ``None`` leaves that to `equip`.
        observers: What gets the events; ``None`` leaves that to `equip`.
        rng: The source of randomness for the jitter; by default one of its own for each process.

    Raises:
        SettingsError: If a trigger, an observer or *rng* is of the wrong kind.
    """

    _close_due: Callable[[Engine], object] = staticmethod(Engine.collect)
    """What closes the sessions that are due; without a middleware there are none."""

    def __init__(
        self,
        settings: Settings,
        triggers: Iterable[Trigger] | None,
        observers: Iterable[Observer] | None,
        rng: Random | None,
    ) -> None:
        if rng is not None and not isinstance(rng, Random):
            raise SettingsError("rng", rng, "give a random.Random, such as Random(7), or None")
        self.settings = settings
        self.close_hooks = CloseHooks(HOOK_TIMEOUT)
        self.triggers: tuple[Trigger, ...] = () if triggers is None else check_triggers(triggers)
        self._observers = Observers(() if observers is None else observers)
        Observers(each for each in self.triggers if isinstance(each, Observer))  # refuses what subscribes to nonsense
        self._chooses_triggers = triggers is None
        self._chooses_observers = observers is None
        self._is_equipped = False
        self.rng = rng
        self.lifetime: Lifetime | None = None
        """The present lifetime, or the last."""
        self._control: LocalControl | None = None
        """What gives commands in it."""
        self._make_control: Callable[[Lifetime], LocalControl] = self._make_local_control
        self._early: asyncio.Future[bool] | None = None
        """What waits for the first drain of a lifetime that has not begun."""

    # Fitting out

    def equip(self, triggers: Callable[[], Iterable[Trigger]], observers: Callable[[], Iterable[Observer]]) -> bool:
        """Fill in the triggers and observers where the user left them open; return whether that was news."""
        if self._is_equipped:
            return False
        self._is_equipped = True
        if self._chooses_observers:
            for observer in observers():
                self._observers.add(observer)
        if self._chooses_triggers:
            self.triggers = tuple(triggers())
        for trigger in self.triggers:
            self._let_listen(trigger)
        self._watch_soon()
        return True

    def add(self, trigger: Trigger) -> None:
        """Let *trigger* watch too, and listen if it is an observer."""
        self.triggers = (*self.triggers, trigger)
        self._let_listen(trigger)
        self._watch_soon()

    def close_with(self, close_due: Callable[[Engine], object]) -> None:
        """Have the sessions that are due closed by *close_due*, which collects them from the engine."""
        self._close_due = close_due
        if self.engine is not None:
            self.engine.close_with(close_due)

    def coordinate(self, make_control: Callable[[Lifetime], LocalControl], elect: Callable[[Trigger], Trigger]) -> None:
        """Let the workers of one task agree: by another control, and by *elect*, which lets one watch for all."""
        life = self.lifetime
        self.triggers = tuple(
            elect(each) if getattr(each, "once_per_task", False) and not (life and life.watches(each)) else each
            for each in self.triggers
        )
        self._make_control = make_control
        if life is not None and life.is_alive:
            self._control = make_control(life)
            life.use(self._control)

    # One lifetime after another

    @property
    def engine(self) -> Engine | None:
        """The engine of the present event loop, or of the last."""
        return self.lifetime.engine if self.lifetime is not None else None

    @property
    def is_running(self) -> bool:
        """Whether it belongs to the running event loop."""
        life = self.lifetime
        return life is not None and life.is_alive and life.loop is asyncio._get_running_loop()

    @property
    def has_ended(self) -> bool:
        """Whether it has belonged to the running event loop, and was ended there."""
        life = self.lifetime
        return (
            life is not None
            and life.state in (LifetimeState.ENDING, LifetimeState.ENDED)
            and life.loop is asyncio._get_running_loop()
        )

    def engine_here(self) -> Engine | None:
        """Return the engine of the running event loop, if it has one that is not to begin anew."""
        life = self.lifetime
        if life is None or life.loop is not asyncio._get_running_loop() or life.state is LifetimeState.DETACHED:
            return None
        return life.engine

    def attach(self) -> bool:
        """
        Belong to the running event loop, watching nothing yet; return whether that was news: a new lifetime.

        Raises:
            DrainInUse: If it already belongs to another event loop, or this one is not asyncio's.
        """
        former = self.lifetime
        return self._attach()[0] is not former

    def _attach(self) -> tuple[Lifetime, LocalControl]:
        """Return the lifetime on the running event loop, a new one where there is none that is alive."""
        loop = asyncio._get_running_loop()
        if loop is None:
            msg = "a Drain needs an asyncio event loop (trio's is not supported)"
            raise DrainInUse(msg)
        life = self.lifetime
        if self.lifetime is not None and self._control is not None and self.lifetime.is_alive:
            if self.lifetime.loop is loop:
                return self.lifetime, self._control
            if not self.lifetime.loop.is_closed():
                msg = "this Drain already runs on another event loop; make one Drain for each application and loop"
                raise DrainInUse(msg)
        outcome, self._early = self._early, None
        if outcome is not None and (outcome.done() or outcome.get_loop() is not loop):
            outcome = None
        if life is not None and life.loop is loop:
            engine = life.engine  # with the sessions that outlived its former lifetime
            engine.renew(outcome)
        else:
            rng = self.rng or Random()
            close_due = self._close_due
            engine = Engine(
                self.settings, self._observers, self.close_hooks, rng, loop, close_due=close_due, outcome=outcome
            )
        life = Lifetime(engine)
        control = self._make_control(life)
        self.lifetime, self._control = life, control
        return life, control

    def begin(self) -> bool:
        """
        Watch the triggers from now on; return whether that was news.

        Raises:
            DrainInUse: If it already belongs to another event loop.
        """
        life, control = self._attach()
        if not life.begin(control):
            return False
        life.watch(self.triggers)
        return True

    async def end(self, *, may_begin_again: bool = False) -> None:
        """Stop watching, in bounded time. A drain that runs ends as it stands."""
        if self.lifetime is not None:
            await self.lifetime.end(self.triggers, may_begin_again=may_begin_again)

    # For commands and queries

    def control(self) -> LocalControl:
        """
        Return what gives commands on the running event loop, watching from now on.

        Raises:
            DrainInUse: If it belongs to another event loop.
            DrainEnded: If the application has ended, or is about to.
        """
        if self.has_ended:
            msg = "the application has ended or is about to, so no drain can begin"
            raise DrainEnded(msg)
        self.begin()
        return self._attach()[1]

    def deadline_of(self, began: float, window: float | None) -> float:
        """Return the deadline of what began a while ago, with *window* or the usual one."""
        engine = self.engine
        advised = engine.advised_window if engine is not None else None
        return began + (self.settings.usual_window(advised) if window is None else window)

    async def wait_drained(self) -> bool:
        """Wait until the drain that runs, or the next one, is over, however early it is called."""
        life = self.lifetime
        loop = asyncio.get_running_loop()
        if life is not None and life.loop is loop and life.state is not LifetimeState.DETACHED:
            return await life.engine.wait_drained()
        if self._early is None or self._early.done() or self._early.get_loop() is not loop:
            self._early = loop.create_future()
        return await asyncio.shield(self._early)

    async def wait_all_drained(self) -> bool:
        """Wait like `wait_drained`, for all workers of the task."""
        return await (self.wait_drained() if self._control is None else self._control.wait_all_drained())

    def statuses(self) -> dict[str, Mapping[str, Any]]:
        """Return what each trigger says of itself."""
        life = self.lifetime
        now = life.engine.time() if life is not None else asyncio.get_running_loop().time()
        return {
            each.name: status_of(each, now, life.failure_of(each) if life is not None else None)
            for each in self.triggers
        }

    # The works

    def _make_local_control(self, lifetime: Lifetime) -> LocalControl:
        return LocalControl(lifetime, lambda: self.triggers)

    def _let_listen(self, trigger: Trigger) -> None:
        if isinstance(trigger, Observer):
            self._observers.add(trigger)

    def _watch_soon(self) -> None:
        """Let those watch that came after the beginning: Starlette makes its middleware when it is first used."""
        life = self.lifetime
        if life is not None and life.state is LifetimeState.WATCHING:
            life.loop.call_soon_threadsafe(lambda: life.watch(self.triggers))  # once all have come who come together
