"""Sessions that have lived long enough: asked to leave although there is no drain, so that they move to new tasks."""

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

from starlette_drain._core.facts import Fact, SessionClosed, SessionOpened, SessionShed
from starlette_drain._core.session import Session
from starlette_drain._core.state import DrainState
from starlette_drain.drain import Drain
from starlette_drain.triggers.base import Control

__all__ = ["Ageing"]

JITTER = 0.2
"""Part of the age by which a session may leave earlier: those that came together do not leave together."""


class Ageing:
    """
    Asks each session to leave at ``max_session_age`` or up to a fifth earlier, at random.

    A balancer never moves a WebSocket: after a scale-out the new tasks stay empty until the old sessions end. Ageing
    pauses during a drain and a hold; those whose time came meanwhile get a new moment, so that a cancelled drain is not
    followed by a burst.

    Args:
        drain: The drain whose sessions age.
        age: Seconds.
        rng: The source of luck.
    """

    name = "ageing"
    hears = (SessionOpened, SessionShed, SessionClosed)

    def __init__(self, drain: Drain, age: float, rng: Random) -> None:
        self._drain = drain
        self._age = age
        self._rng = rng
        self._timers: dict[Session, asyncio.TimerHandle] = {}
        self._shed = 0

    async def watch(self, control: Control) -> None:  # noqa: ARG002
        """Let sessions age until cancelled."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the age, and how many have been asked to leave for it."""
        return {"max_session_age": self._age, "shed": self._shed}

    def notify(self, fact: Fact) -> None:
        """Set a timer for a session that opens; take it back when it goes."""
        match fact:
            case SessionOpened():
                self._set_timer(fact.session, self._age * (1.0 - JITTER * self._rng.random()))
            case SessionShed() | SessionClosed():
                if timer := self._timers.pop(fact.session, None):
                    timer.cancel()

    def flush(self, timeout: float) -> None:
        """Hold nothing."""

    def _set_timer(self, session: Session, delay: float) -> None:
        self._timers[session] = asyncio.get_running_loop().call_later(delay, self._let_go, session)

    def _let_go(self, session: Session) -> None:
        if self._drain.state is DrainState.SERVING and not session.is_held:
            self._shed += 1
            self._drain.shed(session)
        else:
            self._set_timer(session, JITTER * self._age * self._rng.random())
