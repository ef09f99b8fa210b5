"""One drain from its first cause to its report: the causes that fuse, the plan they lead to, the tally."""

from dataclasses import dataclass
from random import Random

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.pacing import Pacing
from starlette_drain._core.plan import ShedPlan
from starlette_drain._core.report import DrainReport, Tally
from starlette_drain._core.session import Session, SessionRegistry

__all__ = ["DrainProgress", "Episode"]

MILESTONES = (25, 50, 75)

GOODBYE = 1.0, 0.02
"""What the last goodbye may take before the deadline: seconds, and part of the time left, whichever is less."""


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """
    A running drain at one moment.

    Attributes:
        drain_id: Names the drain in logs, spans and answers.
        causes: Every trigger that asked, in order.
        window: Seconds from the start to the deadline.
        time_left: Seconds until the deadline; 0 when it has passed.
        rate: Sessions per second that the plan sheds now.
        eta: Seconds until the last of the present sessions will have been asked to leave.
        pacing: What the strategy does now, in words.
        shed: Asked to leave by the drain.
        left: Gone by themselves since it began.
        refused: Late arrivals turned away.
        forced: Of the shed: those whose application had to be cancelled.
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


class Episode:
    """
    One drain.

    Causes fuse: the earliest deadline wins, a later cause can only shorten it, and each trigger is recorded when it
    first speaks and whenever it brings the deadline forward, so that a trigger that repeats itself fills no memory.
    """

    def __init__(
        self, cause: DrainCause, registry: SessionRegistry, pacing: Pacing, rng: Random, *, now: float, deadline: float
    ) -> None:
        self.causes: tuple[DrainCause, ...] = (cause,)
        self.deadline = deadline
        self.plan = ShedPlan(registry, pacing, rng, now=now, deadline=_last_moment_to_ask(now, deadline))
        self.tally = Tally(f"{rng.getrandbits(48):012x}", now, registry.remaining)
        self._registry = registry
        self._milestones = list(MILESTONES)

    @property
    def drain_id(self) -> str:
        """The name of this drain."""
        return self.tally.drain_id

    @property
    def is_revocable(self) -> bool:
        """Whether no cause has told the process to stop."""
        return all(cause.revocable for cause in self.causes)

    def is_revocable_by(self, trigger: str) -> bool:
        """Tell whether *trigger* alone has asked for this drain, and may take it back."""
        return self.is_revocable and all(cause.trigger == trigger for cause in self.causes)

    def has_shed(self, session: Session) -> bool:
        """Tell whether this drain has asked *session* to leave, and not its age or a drain before."""
        return session.shed_at is not None and session.shed_at >= self.tally.started_at

    def join(self, cause: DrainCause, *, now: float, deadline: float) -> bool:
        """Let a further cause join; return whether it brought the deadline forward."""
        shortened = deadline < self.deadline
        if shortened:
            self.deadline = deadline
            self.plan.shorten(now, _last_moment_to_ask(now, deadline))
        if shortened or cause.trigger not in {each.trigger for each in self.causes}:
            self.causes = (*self.causes, cause)
        return shortened

    def reconnect_delay(self, now: float, window: float | None, behind: int = 0) -> float:
        """
        Return how many seconds the session just shed should stay away, so that all return evenly.

        Its place in the line of all who have to leave is its place in *window* (the drain's own by default), counted
        from the start. Shed at an even pace over the same window, nobody has to wait; of a batch, or of the burst that
        a short deadline makes, each has its own moment. *behind* it are those who are due in the same pass.
        """
        start, tally = self.tally.started_at, self.tally
        line = tally.shed + tally.left + behind + self._registry.remaining
        planned = start + (tally.shed + tally.left) / line * (window or self.deadline - start)
        return max(0.0, planned - now)

    def next_moment(self, now: float, tail: float) -> float | None:
        """
        Return when to look again; ``None`` when there is nothing left to wait for.

        When everyone was asked, those who have not gone *tail* seconds and a little after the last never will.
        """
        if self.plan.ask_at is not None:
            return self.plan.ask_at
        patience = self.tally.last_shed_at + tail + 1.0
        return None if len(self._registry) == 0 or now >= patience else patience

    def milestone(self) -> int | None:
        """Return the highest milestone, in percent, reached since the last call."""
        done = self.tally.percent(self._registry.remaining)
        reached = None
        while self._milestones and done >= self._milestones[0]:
            reached = self._milestones.pop(0)
        return reached

    def progress(self, now: float) -> DrainProgress:
        """Return how far the drain is at *now*."""
        plan, tally = self.plan, self.tally
        return DrainProgress(
            drain_id=tally.drain_id,
            causes=self.causes,
            window=self.deadline - tally.started_at,
            time_left=max(0.0, self.deadline - now),
            rate=plan.rate(now),
            eta=plan.eta(now) - now,
            pacing=plan.describe(now),
            shed=tally.shed,
            left=tally.left,
            refused=tally.refused,
            forced=tally.forced,
        )

    def report(self, now: float) -> DrainReport:
        """Make the report as things stand at *now*."""
        return self.tally.report(now, causes=self.causes, deadline=self.deadline, still_open=len(self._registry))


def _last_moment_to_ask(now: float, deadline: float) -> float:
    """Return by when to ask the last session to leave, so that it has gone at the deadline."""
    seconds, part = GOODBYE
    return deadline - min(seconds, part * (deadline - now))
