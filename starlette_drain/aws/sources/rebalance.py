# After a scale-out the old tasks keep their sessions, because a balancer never moves one, and new tasks stay empty for
# days.
#
# Every answer about the target group says how many targets are healthy (H) and how many drain. When H has grown from H0
# to H1 and stays there, each task that has seen it grow rotates the share 1 - H0/H1 of its sessions, at its part of the
# fleet's rate: H0 tasks do the same. These must not be taken for a scale-out:
#
#   - A target that flaps, or a task that crashes and is replaced. H falls and returns to its old value, so the largest
#     settled H counts, and a smaller one only after LOWER_AFTER.
#   - A deployment. Its new tasks come before the old ones go. So ECS is asked, and nothing is done while the service
#     has more than one deployment or an unfinished one. After targets have drained, H is learned again.
#   - A new task. It learns H first.
#
# Clients that leave reconnect to wherever the balancer sends them. Only with least outstanding requests are that the
# new tasks, which have the fewest; with round robin, 8 of 12 tasks would get back two thirds of what they gave.
"""Moves sessions to new tasks after a scale-out."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from starlette_drain._core.turnover import REBALANCE, Rotation
from starlette_drain.aws.api import elbv2
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.session import OpenSession
from starlette_drain.aws.sources.group import TargetGroup
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.triggers.base import Control

__all__ = ["ALGORITHM", "FITTING", "Growth", "Rebalance", "ScaleOut"]

SETTLED = 3
"""How many answers in a row must have the same number of healthy targets."""

LOWER_AFTER = 600.0
"""Seconds after which a smaller number of healthy targets becomes the usual one, if none was seen to drain."""

ASK_AGAIN = 60.0
"""Seconds between two checks whether a deployment is in progress."""

TIMEOUT = 5.0
"""Seconds that such a check may take."""

HEADROOM = 0.9
"""The part of the fleet's budget that is used: tasks and clients are not synchronized, and there is no hurry."""

ALGORITHM = "load_balancing.algorithm.type"
FITTING = "least_outstanding_requests"
"""The only algorithm that sends clients to the targets with the fewest sessions."""


class Growth(NamedTuple):
    """A scale-out: the number of healthy targets *before* and *now*, and when it was first *seen*."""

    before: int
    now: int
    seen: float


class ScaleOut:
    """Detects a scale-out in the answers about the targets. Pure."""

    def __init__(self) -> None:
        self._usual: int | None = None
        """The largest number of healthy targets that has settled."""
        self._last: int | None = None
        self._times = 0
        self._since = 0.0
        """When the last number was first seen."""
        self._grown_at: float | None = None

    def take(self, healthy: int, draining: int, now: float) -> Growth | None:
        """Take an answer into account; return the settled scale-out, if any, at every answer until `settle`."""
        if draining:
            self._usual = self._last = None
            return None
        if healthy != self._last:
            self._last, self._times, self._since = healthy, 0, now
        self._times += 1
        has_settled = self._times >= SETTLED
        if self._usual is None or healthy <= self._usual:
            self._grown_at = None
            if has_settled and (self._usual is None or now - self._since >= LOWER_AFTER):
                self._usual = healthy
            return None
        self._grown_at = now if self._grown_at is None else self._grown_at
        return Growth(self._usual, healthy, self._grown_at) if has_settled else None

    def settle(self) -> None:
        """Make the current number the usual one."""
        self._usual, self._grown_at = self._last, None


class Rebalance:
    """
    Rotates this task's share of its sessions after a scale-out.

    Args:
        control: The control of the drain.
        impairment: Reports why it does nothing.
        is_on_ecs: Whether this is an ECS task.
    """

    def __init__(self, control: Control, impairment: Impairment, *, is_on_ecs: bool) -> None:
        self._control = control
        self._impairment = impairment
        self._is_on_ecs = is_on_ecs
        self._scale_out = ScaleOut()
        self._has_asked = False
        self._ask_at = 0.0

    async def look(self, groups: Iterable[TargetGroup], aws: OpenSession) -> None:
        """Take the last answers about *groups*, in which this task serves, into account; rotate if needed."""
        now, groups = self._control.time(), list(groups)
        growth = self._scale_out.take(
            max(each.reading.healthy for each in groups), max(each.reading.draining for each in groups), now
        )
        if now < self._ask_at or (self._has_asked and growth is None):
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                fits = self._is_on_ecs and await self._fits(groups, aws)
                is_deploying = growth is not None and fits and await _is_deploying(aws)
        except (Incomplete, TimeoutError) as error:
            problem = getattr(error, "problem", f"AWS did not answer within {TIMEOUT:g} s")
            self._impairment.on_error("rebalance", f"rebalance: {problem}", "it will be retried", passing=True)
            self._ask_at = now + ASK_AGAIN
            return
        self._has_asked = True
        self._tell(fits=fits)
        if is_deploying:
            self._ask_at = now + ASK_AGAIN
        elif growth is not None:
            self._scale_out.settle()
            if fits:
                self._rotate(growth)

    def _rotate(self, growth: Growth) -> None:
        control, fleet_rate = self._control, self._control.settings.fleet_rate
        if fleet_rate is None or not growth.before:  # the first healthy targets are not a scale-out
            return
        share, part = 1.0 - growth.before / growth.now, HEADROOM * fleet_rate / growth.before
        window = max(1.0, share * control.open_sessions() / part)
        reason = f"a scale-out from {growth.before} to {growth.now} healthy targets"
        control.rotate(Rotation(growth.seen, control.time() - growth.seen + window, share, REBALANCE, reason))

    async def _fits(self, groups: Iterable[TargetGroup], aws: OpenSession) -> bool:
        arns = [each.target.target_group_arn for each in groups]
        found = [await elbv2.describe_attributes(aws.calls, arn) for arn in arns]
        return all(each.get(ALGORITHM) == FITTING for each in found)

    def _tell(self, *, fits: bool) -> None:
        if fits:
            self._impairment.worked("rebalance")
        elif self._is_on_ecs:
            problem = (
                "rebalance does nothing here: the balancer does not send new sessions to the targets that have the "
                f"fewest, because {ALGORITHM} of the target group is not {FITTING}"
            )
            self._impairment.on_error("rebalance", problem, f"set {ALGORITHM} to {FITTING}, or rebalance to False")
        else:
            problem = "rebalance does nothing here: off ECS a deployment looks like a scale-out"
            self._impairment.on_error("rebalance", problem, "set rebalance to False, and rotate by hand")


async def _is_deploying(aws: OpenSession) -> bool:
    """Return whether ECS shows a deployment of this task's service now."""
    records, name = await aws.records(), await aws.service.get()
    if name is None:
        return False
    record = await records.service(name, refresh=True)
    deployments = record.get("deployments") or ()
    return (
        len(deployments) > 1
        or len(record.get("taskSets") or ()) > 1
        or any(each.get("rolloutState") == "IN_PROGRESS" for each in deployments)
    )
