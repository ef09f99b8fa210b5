"""One run of a drain from its first cause to its report: its causes, its plan, its tally."""

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
"""The most causes that a drain records, so that a flapping trigger does not fill the memory."""

LAST_CLOSE = 1.0, 0.02
"""How long before the deadline the last session is asked: seconds, or a part of the time left if that is less."""


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
        eta: Seconds until the last of the current sessions is asked to leave.
        pacing: What the strategy does now, in words.
        shed: Sessions asked to leave by the drain.
        left: Sessions that have closed by themselves since it began.
        refused: Late arrivals refused.
        forced: Of those shed, the sessions whose application had to be cancelled.
        return_rate: The most clients asked to reconnect within one second, to any task.
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
    One run of a drain, from the claim that began it until it is over or was cancelled.

    A cause is recorded when it joins, and again whenever it brings the deadline forward.
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
        """Return whether this drain has asked *session* to leave, rather than its age or an earlier drain."""
        return session.shed_at is not None and session.shed_at >= self.tally.started_at

    @property
    def remaining(self) -> int:
        """The number of sessions that have not been asked to leave."""
        return self._registry.remaining

    def join(self, cause: DrainCause, *, shortened: bool) -> bool:
        """Record *cause* if its trigger is new or it has *shortened* the drain; return whether either is true."""
        is_new = shortened or cause.trigger not in {each.trigger for each in self.causes}
        if is_new and len(self.causes) < MOST_CAUSES:
            self.causes = (*self.causes, cause)
        return is_new

    def move(self, now: float, deadline: float) -> bool:
        """Move the deadline; return whether it has changed."""
        if deadline == self.deadline:
            return False
        self.deadline = deadline
        self.plan.move(now, _last_moment_to_ask(now, deadline))
        return True

    def reconnect_delay(self, now: float, behind: int = 0) -> float:
        """
        Return how many seconds the session just shed should wait before it reconnects, so that all return evenly.

        Its position among all sessions that have to leave determines its moment in the drain's window. At an even pace
        no session has to wait. The sessions of a batch, or of the burst before a short deadline, each get their own
        moment.

        Args:
            now: The time, in seconds.
            behind: Sessions due in the same pass that have not been counted as shed yet.
        """
        start, tally = self.tally.started_at, self.tally
        total = tally.shed + tally.left + behind + self._registry.remaining
        planned = start + (tally.shed + tally.left) / total * (self.deadline - start)
        return max(0.0, planned - now)

    def next_moment(self, now: float, tail: float, still_open: int) -> float | None:
        """
        Return when to check again; ``None`` if there is nothing left to wait for.

        After all have been asked, it waits *tail* seconds and one more for those *still_open*, and then gives up.
        """
        if self.plan.ask_at is not None:
            return self.plan.ask_at
        patience = self.tally.last_shed_at + tail + 1.0
        return None if still_open == 0 or now >= patience else patience

    def milestone(self) -> int | None:
        """Return the highest of 25, 50 and 75 % reached since the last call, or ``None``."""
        done = self.tally.percent(self._registry.remaining)
        reached = None
        while self._milestones and done >= self._milestones[0]:
            reached = self._milestones.pop(0)
        return reached

    def progress(self, now: float, causes: tuple[DrainCause, ...]) -> DrainProgress:
        """Return how far the drain is at *now*; *causes* are the claims that stand."""
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
        """Return the report as of *now*."""
        return self.tally.report(
            now, causes=self.causes, deadline=self.deadline, still_open=still_open, is_cancelled=is_cancelled
        )


def name_drain(cause: DrainCause, earlier: int, group: str | None = None) -> str:
    """
    Return the id of the drain that *cause* begins.

    It is derived from the claim, not random, because all workers of a task hold the same claim and must use the same
    id. A stop signal reaches each worker at a different time, so there the name of the group replaces the time.

    Args:
        cause: The claim.
        earlier: The number of drains that the same claim has begun before.
        group: Identifies the workers of the task.
    """
    moment = repr(float(cause.at)) if cause.revocable or group is None else group
    return blake2b(f"{cause.trigger!r} {moment} {earlier}".encode(), digest_size=6).hexdigest()


def _last_moment_to_ask(now: float, deadline: float) -> float:
    """Return when to ask the last session to leave, so that it is gone by the deadline."""
    seconds, part = LAST_CLOSE
    return deadline - min(seconds, part * (deadline - now))
