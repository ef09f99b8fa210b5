"""The sessions of one engine that leave while it serves: by age, or in a rotation by hand or after a scale-out."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from random import Random
from typing import Any

from starlette_drain._core import events
from starlette_drain._core.session import Session, SessionRegistry
from starlette_drain._core.settings import Settings
from starlette_drain._core.turnover import REBALANCE, Rotation, RotationProgress, TurnoverPlan
from starlette_drain._engine.event_queue import EventQueue
from starlette_drain.exceptions import IllegalTransition

__all__ = ["Turnover"]


class Turnover:
    """
    Runs the rotations and ages of one engine. The engine decides whether a rotation may run now.

    Args:
        settings: The validated options.
        registry: The sessions.
        queue: Takes the events; the engine delivers them.
        rng: The source of randomness.
    """

    def __init__(self, settings: Settings, registry: SessionRegistry, queue: EventQueue, rng: Random) -> None:
        self._plan = TurnoverPlan(None if settings.mode == "observe" else settings.max_session_age, rng)
        self._registry = registry
        self._queue = queue
        self._rng = rng
        self.order: Mapping[str, Any] | None = None
        """The last rotation that was ordered, in JSON values; ``None`` if it was cancelled."""
        self.elsewhere = 0
        """The number of sessions that a rotation has still to ask to leave in the other workers."""

    @property
    def ages(self) -> bool:
        """Whether sessions have a maximum age."""
        return self._plan.age is not None

    @property
    def ask_at(self) -> float | None:
        """When to collect next; ``None`` if there is nothing to wait for."""
        return self._plan.ask_at

    def progress(self, now: float, *, is_paused: bool) -> RotationProgress | None:
        """Return the progress of the running rotation, or ``None`` if there is none."""
        tally = self._plan.tally
        return None if tally is None else tally.progress(now, is_paused=is_paused)

    def age(self, session: Session, now: float) -> None:
        """Begin to count the age of *session*."""
        self._plan.add(session, now)

    def discard(self, session: Session, now: float) -> None:
        """Forget a session that has gone or that a drain asks to leave."""
        if self._plan.numbers:
            self._plan.discard(session)
            self._check(now)

    def rotate(self, rotation: Rotation, now: float) -> None:
        """
        Begin *rotation*. If both are rebalances, the sessions left over from a running one are added to it.

        Raises:
            IllegalTransition: If a manual rotation runs.
        """
        tally = self._plan.tally
        if (tally or self.elsewhere) and not (tally and tally.rotation.trigger == REBALANCE):
            msg = "a rotation is already running; cancel it first, or let it end"
            raise IllegalTransition(msg)
        self.order = asdict(rotation)
        self._begin(rotation, now)

    def follow(self, order: Mapping[str, Any] | None, now: float) -> None:
        """Follow a rotation *order* that was given to another worker; ``None`` stops the rotation."""
        self.order = order
        if order is None:
            self._end("cancelled", now)
            return
        rotation = Rotation.load(order)
        if now < rotation.at + rotation.window:
            self._begin(rotation, now)

    def stop(self, now: float) -> None:
        """
        End the rotation. Sessions that it has not asked to leave stay.

        Raises:
            IllegalTransition: If no rotation runs, here or in another worker.
        """
        if not (self._plan.tally or self.elsewhere):
            msg = "no rotation is running; there is nothing to cancel"
            raise IllegalTransition(msg)
        self.follow(None, now)

    def interrupt(self, now: float) -> None:
        """End a running rotation: the application is about to end."""
        self._end("interrupted", now)

    def collect(self, now: float, most: int, limit: float) -> list[tuple[Session, str]]:
        """Return the sessions to ask to leave now, each with its trigger: at most *most*, and *limit* per second."""
        due = self._plan.due(now, most, limit)
        for session, _ in due:
            self._registry.take(session)
        self._check(now)
        return due

    def _begin(self, rotation: Rotation, now: float) -> None:
        sessions, previous = self._registry.open_before(rotation.at), self._plan.tally
        left_over = previous.waiting if previous and previous.rotation.trigger == rotation.trigger == REBALANCE else {}
        others = [each for each in sessions if each not in left_over] if left_over else sessions
        self._rng.shuffle(others)
        chosen = others[: int(rotation.share * len(others) + self._rng.random())]
        if left_over:  # lengthen the window, to keep the pace that was asked for
            longer = (len(chosen) + len(left_over)) / max(1, len(chosen))
            rotation = replace(rotation, window=rotation.window * longer)
            chosen += left_over
            self._rng.shuffle(chosen)
        self._end("replaced", now)
        self._plan.rotate(rotation, chosen, now)
        self._queue.put(events.RotationStarted(now, rotation, len(chosen)))
        self._check(now)

    def _check(self, now: float) -> None:
        """Emit the progress of the rotation, and end it when all sessions have been asked or have gone."""
        if (tally := self._plan.tally) is None:
            return
        if percent := tally.milestone():
            figures = tally.asked, tally.left, len(tally.waiting)
            self._queue.put(events.RotationProgressed(now, tally.rotation.trigger, percent, *figures))
        if not tally.waiting:
            self._end("complete", now)

    def _end(self, outcome: str, now: float) -> None:
        if tally := self._plan.tally:
            figures = now - tally.began, tally.asked, tally.left, len(tally.waiting)
            self._queue.put(events.RotationEnded(now, tally.rotation.trigger, outcome, *figures))
            self._plan.stop_rotating(now)
