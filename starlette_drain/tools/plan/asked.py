"""What the command was asked: the deployment, its time, and what watches it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import click

from starlette_drain.aws.api.budget import ECS_REFILL, fleet_interval
from starlette_drain.aws.options import AwsSettings
from starlette_drain.testing.fake_aws.strategy import STRATEGIES, Strategy
from starlette_drain.tools.plan.allowance import BAKE_TIME, DELAY, PAUSE, SIGTERM
from starlette_drain.tools.plan.deployment import START_UP, START_UPS, Deployment
from starlette_drain.tools.plan.sums import DEPLOYMENT_LAG, EVENT_LAG, Fleet

__all__ = ["Asked", "read"]

OPTIONS = ("sources", "pacing", "window", "margin", "start_delay", "poll_interval", "poll_share")
"""The options of the drain that the plan uses."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of the command."""

    fleet: Fleet
    strategy: Strategy
    delay: float
    settings: AwsSettings
    clients: str
    accepts: float | None
    wish: float | None
    seed: int

    @property
    def needs_events(self) -> bool:
        """Whether only events by Lambda tell a task before SIGTERM."""
        return not self.settings.sources and self.fleet.allowance is DELAY

    @property
    def seconds(self) -> float:
        """Seconds from the start of the first new task until the last old one has ended."""
        return self.fleet.worst.deployment.seconds + self.strategy.seconds + self.delay


def read(given: Mapping[str, Any]) -> Asked:
    """
    Return what was asked, from the options of the command.

    Raises:
        click.UsageError: If two of them exclude each other.
    """
    settings = AwsSettings(**{name: given[name] for name in OPTIONS if given[name] is not None})
    strategy = STRATEGIES[given["strategy"]].with_times(given["bake"], given["pause"], is_network=given["nlb"])
    if given["next_after"] is not None and strategy.is_shifting:
        msg = "--next-after goes with --strategy rolling only: no other deployment ends before its old tasks"
        raise click.UsageError(msg)
    deployment = Deployment(
        given["tasks"],
        given["min_percent"],
        given["max_percent"],
        strategy.is_shifting,
        given["start_up"] or START_UP,
        given["next_after"],
    )
    early = max(DEPLOYMENT_LAG, settings.poll_interval)
    seconds, allowance, noticed = given["delay"], DELAY, _lag_of_others(settings, deployment, given)
    if strategy.bake > 0 and "service-deployment" in settings.sources:
        seconds, allowance, noticed = strategy.bake, BAKE_TIME, early
    elif strategy.pause > 0:
        seconds, allowance, noticed = min(strategy.pause, PAUSE.longest), PAUSE, early
    elif settings.sources == ("service-deployment",):
        seconds, allowance, noticed = settings.sigterm_window, SIGTERM, 0.0
        settings = replace(settings, window=None, margin=0.0, start_delay=0.0)
    fleet = Fleet(
        deployment,
        given["sessions"],
        seconds,
        settings.margin,
        settings.poll_interval,
        settings.poll_share,
        window=settings.window,
        noticed=noticed,
        allowance=allowance,
        start_delay=settings.start_delay,
        stands_in=settings.has_stand_in,
        start_ups=() if given["start_up"] or strategy.is_shifting or not deployment.can_begin else START_UPS,
    )
    return Asked(
        fleet, strategy, given["delay"], settings, given["clients"], given["accepts"], given["wish"], given["seed"]
    )


def _lag_of_others(settings: AwsSettings, deployment: Deployment, given: Mapping[str, Any]) -> float | None:
    """Return the lag of sources other than target health; ``None`` if only that is watched."""
    if "task-state" not in settings.sources:
        return None if "target-health" in settings.sources else EVENT_LAG
    tasks = deployment.listed(given["delay"])
    return fleet_interval(settings.poll_interval, tasks, 1, settings.poll_share, refill=ECS_REFILL)
