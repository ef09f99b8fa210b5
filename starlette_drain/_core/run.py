"""One drain from its first cause to its report: the causes that fuse, the plan they lead to, the tally."""

from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.pacing import Pacing
from starlette_drain._core.plan import Candidates, ShedPlan
from starlette_drain._core.report import DrainReport, Tally
from starlette_drain._core.session import Session

__all__ = ["DrainProgress", "DrainRun", "name_drain"]

MILESTONES = (25, 50, 75)

MOST_CAUSES = 100
"""Causes that a drain keeps: a trigger that flickers fills no memory."""

LAST_CLOSE = 1.0, 0.02
"""What the last close may take before the deadline: seconds, and part of the time left, whichever is less."""


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """
    A running drain at one moment.

    Attributes:
        drain_id: Identifies the drain in logs, spans and answers; the same in all workers that began it for one claim.
        causes: The standing claims, in order.
        window: Seconds from the start to the deadline.
        time_left: Seconds until the deadline; 0 when it has passed.
        rate: Sessions per second that the plan sheds now.
        eta: Seconds until the last of the present sessions is asked to leave.
        pacing: What the strategy does now, in words.
        shed: Asked to leave by the drain.
        left: Gone by themselves since it began.
        refused: Late arrivals refused.
        forced: Those of the shed whose application had to be cancelled.
        return_rate: The most clients asked to come back within one second, here or elsewhere.
    """

    drain_id: str
    causes: tuple[DrainCause, ...]
    window: float
    time_left: float
    rate: float
    eta: float
    pacing: str
    shed: int
    left: int
    refused: int
    forced: int
    return_rate: int = 0


class DrainRun:
    """
    One run of a drain: from the claim that began it until it is over or was cancelled.

    Its causes are recorded when they join, and whenever they bring the deadline forward.
    """

    def __init__(
        self,
        drain_id: str,
        cause: DrainCause,
        registry: Candidates,
        pacing: Pacing,
        rng: Random,
        *,
        now: float,
        deadline: float,
    ) -> None:
        self.causes: tuple[DrainCause, ...] = (cause,)
        self.deadline = deadline
        self.plan = ShedPlan(registry, pacing, rng, now=now, deadline=_last_moment_to_ask(now, deadline))
        self.tally = Tally(drain_id, now, registry.remaining)
        self._registry = registry
        self._milestones = list(MILESTONES)

    @property
    def drain_id(self) -> str:
        """The name of this drain."""
        return self.tally.drain_id

    def has_shed(self, session: Session) -> bool:
        """Return whether this drain has asked *session* to leave, and not its age or a drain before."""
        return session.shed_at is not None and session.shed_at >= self.tally.started_at

    @property
    def remaining(self) -> int:
        """How many have not been asked to leave."""
        return self._registry.remaining

    def join(self, cause: DrainCause, *, shortened: bool) -> bool:
        """Record a further cause: of another trigger, or one that has *shortened* the drain; return whether it was."""
        is_new = shortened or cause.trigger not in {each.trigger for each in self.causes}
        if is_new and len(self.causes) < MOST_CAUSES:
            self.causes = (*self.causes, cause)
        return is_new

    def move(self, now: float, deadline: float) -> bool:
        """Move the deadline; return whether it is another one now."""
        if deadline == self.deadline:
            return False
        self.deadline = deadline
        self.plan.move(now, _last_moment_to_ask(now, deadline))
        return True

    def reconnect_delay(self, now: float, behind: int = 0) -> float:
        """
        Return how many seconds the session just shed should stay away, so that all return evenly.

        Its place in the line of all who have to leave is its place in the drain's window. Shed at an even pace, none
        has to wait; of a batch, or of the burst that a short deadline makes, each has its own moment. *behind* it are
        those who are due in the same pass.
        """
        start, tally = self.tally.started_at, self.tally
        line = tally.shed + tally.left + behind + self._registry.remaining
        planned = start + (tally.shed + tally.left) / line * (self.deadline - start)
        return max(0.0, planned - now)

    def next_moment(self, now: float, tail: float, still_open: int) -> float | None:
        """
        Return when to look again; ``None`` when there is nothing left to wait for.

        When all were asked, those that have not gone *tail* seconds and a little after the last never will.
        """
        if self.plan.ask_at is not None:
            return self.plan.ask_at
        patience = self.tally.last_shed_at + tail + 1.0
        return None if still_open == 0 or now >= patience else patience

    def milestone(self) -> int | None:
        """Return the highest milestone, in percent, reached since the last call."""
        done = self.tally.percent(self._registry.remaining)
        reached = None
        while self._milestones and done >= self._milestones[0]:
            reached = self._milestones.pop(0)
        return reached

    def progress(self, now: float, causes: tuple[DrainCause, ...]) -> DrainProgress:
        """Return how far the drain is at *now*, and for which *causes*."""
        plan, tally = self.plan, self.tally
        return DrainProgress(
            drain_id=tally.drain_id,
            causes=causes,
            window=self.deadline - tally.started_at,
            time_left=max(0.0, self.deadline - now),
            rate=plan.rate(now),
            eta=plan.eta(now) - now,
            pacing=plan.describe(now),
            shed=tally.shed,
            left=tally.left,
            refused=tally.refused,
            forced=tally.forced,
            return_rate=tally.return_rate,
        )

    def report(self, now: float, still_open: int, *, is_cancelled: bool = False) -> DrainReport:
        """Make the report as things stand at *now*."""
        return self.tally.report(
            now, causes=self.causes, deadline=self.deadline, still_open=still_open, is_cancelled=is_cancelled
        )


def name_drain(cause: DrainCause, former: int, group: str | None = None) -> str:
    """
    Return the name of the drain that *cause* begins, after *former* drains that it has begun already.

    It is not drawn but follows from the claim, which is the same in all workers of a task; and from what names their
    *group* where the process was told to stop, which each worker is by itself, in a moment of its own.
    """
    moment = repr(float(cause.at)) if cause.revocable or group is None else group
    return blake2b(f"{cause.trigger!r} {moment} {former}".encode(), digest_size=6).hexdigest()


def _last_moment_to_ask(now: float, deadline: float) -> float:
    """Return by when to ask the last session to leave, so that it has gone at the deadline."""
    seconds, part = LAST_CLOSE
    return deadline - min(seconds, part * (deadline - now))
