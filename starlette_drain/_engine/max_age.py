"""Sessions that have lived long enough: asked to leave although there is no drain, so that they move to new tasks."""

import asyncio
import math
from collections.abc import Mapping
from random import Random
from typing import Any

from starlette_drain._core.age_plan import AgePlan
from starlette_drain._core.events import DrainCancelled, Event, SessionClosed, SessionOpened, SessionShed
from starlette_drain._core.pacing import RateCapPacing
from starlette_drain._core.state import DrainState
from starlette_drain._engine.engine import Engine
from starlette_drain._engine.host import DrainHost
from starlette_drain._engine.timer import Timer
from starlette_drain.triggers.base import Control

__all__ = ["MaxAge"]

SLICE = 100
"""Sessions asked to leave in one pass of the event loop."""


class MaxAge:
    """
    Asks each session to leave at ``max_session_age`` or up to a fifth earlier, one by one.

    A balancer never moves a connection: after a scale-out the new tasks stay empty until the old sessions end. Ageing
    keeps to the limit of a pacing that has one, and pauses during a drain and a hold.

    Args:
        host: The host of the drain whose sessions age.
        age: Seconds.
    """

    name = "max-age"
    subscribes = (SessionOpened, SessionShed, SessionClosed, DrainCancelled)

    def __init__(self, host: DrainHost, age: float) -> None:
        self._host = host
        self._age = age
        self._timer = Timer(self._look)
        self._plan = self._make_plan()
        self._is_watched = False
        self._shed = 0

    async def watch(self, control: Control) -> None:  # noqa: ARG002
        """Let sessions age until cancelled."""
        self._is_watched = True
        self._set_timer()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._is_watched = False
            self._timer.stop()
            self._plan = self._make_plan()

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the age, how many have been asked to leave for it, and how many wait for their turn."""
        return {"max_session_age": self._age, "shed": self._shed, "waiting": self._plan.ripe}

    def notify(self, event: Event) -> None:
        """Let a session age when it opens; forget it when it goes; go on after a drain."""
        match event:
            case SessionOpened():
                self._plan.add(event.session)
                if not self._timer.is_set:
                    self._set_timer()
            case SessionShed() | SessionClosed():
                self._plan.discard(event.session)
            case _:  # a cancelled drain
                self._set_timer()

    def _make_plan(self) -> AgePlan:
        return AgePlan(self._age, self._limit, self._host.rng or Random())

    def _limit(self) -> float:
        """Return the sessions per second that the options allow, in this task."""
        pacing, fleet_rate = self._host.settings.pacing, self._host.settings.fleet_rate
        if isinstance(pacing, RateCapPacing):
            return pacing.limit
        return math.inf if fleet_rate is None else fleet_rate

    def _set_timer(self) -> None:
        engine, moment = self._serving(), self._plan.ask_at
        if engine is not None and moment is not None:
            self._timer.set(engine.loop, moment)

    def _look(self) -> None:
        if (engine := self._serving()) is None:
            return
        for session in self._plan.due(engine.time(), SLICE, share=engine.workers):
            self._shed += 1
            engine.close(session)
        self._set_timer()

    def _serving(self) -> Engine | None:
        """Return the engine while sessions age: the application runs, no drain does, and it does not only watch."""
        engine = self._host.engine
        if not self._is_watched or engine is None or engine.observes_only or engine.state is not DrainState.SERVING:
            return None
        return engine
