"""What a Drain keeps from one event loop to the next: its options, triggers, observers and current lifetime."""

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
        settings: The validated options.
        triggers: What may start a drain; ``None`` leaves the choice to `equip`.
        observers: What receives the events; ``None`` leaves the choice to `equip`.
        rng: The source of randomness for the jitter; by default a new one on each event loop.

    Raises:
        SettingsError: If a trigger, an observer or *rng* has the wrong type.
    """

    _close_due: Callable[[Engine], object] = staticmethod(Engine.collect)
    """Closes the sessions that are due; without a middleware there are none."""

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
        Observers(each for each in self.triggers if isinstance(each, Observer))  # validates their subscriptions
        self._chooses_triggers = triggers is None
        self._chooses_observers = observers is None
        self._is_equipped = False
        self.rng = rng
        self.lifetime: Lifetime | None = None
        """The current lifetime, or the last one."""
        self._control: LocalControl | None = None
        """The control of that lifetime."""
        self._make_control: Callable[[Lifetime], LocalControl] = self._make_local_control
        self._early: asyncio.Future[bool] | None = None
        """The future of those that wait for a drain before a lifetime has begun."""

    # Set-up

    def equip(self, triggers: Callable[[], Iterable[Trigger]], observers: Callable[[], Iterable[Observer]]) -> bool:
        """Set the default triggers and observers where the user gave none; return False if that was done before."""
        if self._is_equipped:
            return False
        self._is_equipped = True
        if self._chooses_observers:
            for observer in observers():
                self._observers.add(observer)
        if self._chooses_triggers:
            self.triggers = tuple(triggers())
        for trigger in self.triggers:
            self._subscribe(trigger)
        self._watch_soon()
        return True

    def add(self, trigger: Trigger) -> None:
        """Add *trigger*, and subscribe it to events if it is an observer."""
        self.triggers = (*self.triggers, trigger)
        self._subscribe(trigger)
        self._watch_soon()

    def close_with(self, close_due: Callable[[Engine], object]) -> None:
        """Call *close_due* when sessions are due; it collects them from the engine."""
        self._close_due = close_due
        if self.engine is not None:
            self.engine.close_with(close_due)

    def coordinate(self, make_control: Callable[[Lifetime], LocalControl], elect: Callable[[Trigger], Trigger]) -> None:
        """
        Make the workers of a task drain as one.

        Args:
            make_control: Creates the control that publishes commands to the other workers.
            elect: Wraps a trigger with ``once_per_task``, so that only one of the workers watches.
        """
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
        """The engine of the current lifetime, or of the last one."""
        return self.lifetime.engine if self.lifetime is not None else None

    @property
    def is_running(self) -> bool:
        """Whether a lifetime is alive on the running event loop."""
        life = self.lifetime
        return life is not None and life.is_alive and life.loop is asyncio._get_running_loop()

    @property
    def has_ended(self) -> bool:
        """Whether its lifetime on the running event loop is ending or has ended."""
        life = self.lifetime
        return (
            life is not None
            and life.state in (LifetimeState.ENDING, LifetimeState.ENDED)
            and life.loop is asyncio._get_running_loop()
        )

    def engine_here(self) -> Engine | None:
        """Return the engine of the running event loop; ``None`` if there is none or it may begin again."""
        life = self.lifetime
        if life is None or life.loop is not asyncio._get_running_loop() or life.state is LifetimeState.DETACHED:
            return None
        return life.engine

    def attach(self) -> bool:
        """
        Bind to the running event loop, without watching yet; return whether a new lifetime began.

        Raises:
            DrainInUse: If it is bound to another event loop, or the running one is not asyncio's.
        """
        previous = self.lifetime
        return self._attach()[0] is not previous

    def _attach(self) -> tuple[Lifetime, LocalControl]:
        """Return the lifetime on the running event loop, a new one if none is alive, and its control."""
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
            engine = life.engine  # keeps the sessions that outlived the previous lifetime
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
        Watch the triggers from now on; return False if they are watched already.

        Raises:
            DrainInUse: If it is bound to another event loop, or the running one is not asyncio's.
        """
        life, control = self._attach()
        if not life.begin(control):
            return False
        life.watch(self.triggers)
        return True

    async def end(self, *, may_begin_again: bool = False) -> None:
        """Stop watching, in bounded time. A running drain is finished as it stands."""
        if self.lifetime is not None:
            await self.lifetime.end(self.triggers, may_begin_again=may_begin_again)

    # Commands and queries

    def control(self) -> LocalControl:
        """
        Return the control on the running event loop, and watch the triggers from now on.

        Raises:
            DrainInUse: If it is bound to another event loop, or the running one is not asyncio's.
            DrainEnded: If the application has ended or is about to.
        """
        if self.has_ended:
            msg = "the application has ended or is about to, so no drain can begin"
            raise DrainEnded(msg)
        self.begin()
        return self._attach()[1]

    def deadline_of(self, began: float, window: float | None) -> float:
        """Return the deadline of a drain that counts from *began*, with *window* or the default one."""
        engine = self.engine
        advised = engine.advised_window if engine is not None else None
        return began + (self.settings.usual_window(advised) if window is None else window)

    async def wait_drained(self) -> bool:
        """Wait until the running or the next drain is over; it may be called before a lifetime has begun."""
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
        """Return the status of each trigger, by name."""
        life = self.lifetime
        now = life.engine.time() if life is not None else asyncio.get_running_loop().time()
        return {
            each.name: status_of(each, now, life.failure_of(each) if life is not None else None)
            for each in self.triggers
        }

    # Internals

    def _make_local_control(self, lifetime: Lifetime) -> LocalControl:
        return LocalControl(lifetime, lambda: self.triggers)

    def _subscribe(self, trigger: Trigger) -> None:
        if isinstance(trigger, Observer):
            self._observers.add(trigger)

    def _watch_soon(self) -> None:
        """Watch triggers added after the beginning: Starlette creates its middleware when it is first used."""
        life = self.lifetime
        if life is not None and life.state is LifetimeState.WATCHING:
            life.loop.call_soon_threadsafe(lambda: life.watch(self.triggers))  # once, after all of them are added
