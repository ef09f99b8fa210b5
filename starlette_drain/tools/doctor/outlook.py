# How long does a task have, and how does it notice that it has to leave?
#
#   the service registers with no balancer   ECS sends SIGTERM at once: the SIGTERM window
#   blue/green with service-deployment       a deployment gives its bake time; any other stop, the delay
#   anything else                            the deregistration delay
#
# The fastest source decides. Target health and task state have separate budgets. Each task polls them more slowly the
# more tasks there are, and a deployment doubles the tasks; if tasks notice the bake time, only the desired count of
# tasks has to notice a deregistration. An event needs no polling.
"""The times that follow from a set-up. Pure."""

from starlette_drain.aws.api.budget import ECS_REFILL, Bucket, fleet_interval, stand_in_interval
from starlette_drain.aws.api.errors import TroubleKind
from starlette_drain.aws.session import MANY
from starlette_drain.aws.sources.target_health import GUESS, longest_wait
from starlette_drain.tools.doctor.record import SetUp
from starlette_drain.tools.doctor.server_command import ServerCommand
from starlette_drain.tools.plan.allowance import BAKE_TIME, LONGEST_STOP, Allowance
from starlette_drain.tools.plan.deployment import START_UP, START_UPS, Deployment
from starlette_drain.tools.plan.sums import DEPLOYMENT_LAG, EVENT_LAG, Fleet

__all__ = [
    "SERVER_END",
    "SHIFTING",
    "after_sheds",
    "bakes",
    "deploying",
    "first_interval",
    "graceful_timeout",
    "health_interval",
    "how",
    "leaving",
    "poll_lags",
    "polling_tasks",
    "replacing",
    "stands_in",
]

DEFAULT_DELAY = 300.0

AFTER_THE_LAST = 6.0
"""Seconds after the last close, at worst: 1 for the last sessions, 5 for telemetry."""

SERVER_END = 5.0
"""Seconds that the server then takes to end, unless its command line sets a timeout."""

SHIFTING = frozenset({"BLUE_GREEN", "LINEAR", "CANARY"})


def replacing(found: SetUp) -> Deployment:
    """Return how tasks are replaced; with one task if their number is unknown."""
    known = [each.targets for each in found.groups if each.targets]
    tasks = found.desired if found.desired is not None else max(known, default=1)
    # CodeDeploy stops the whole old task set after the shift of traffic; what another controller does is unknown.
    whole = found.controller != "ECS" or found.strategy in SHIFTING
    return Deployment(max(1, tasks), found.min_percent, found.max_percent, whole, found.start_up or START_UP)


def how(found: SetUp) -> str:
    """Return how tasks are replaced, in one word."""
    if found.controller != "ECS":
        return found.controller.lower()
    return found.strategy.lower() if found.strategy in SHIFTING else f"{found.min_percent}/{found.max_percent}"


def bakes(found: SetUp) -> bool:
    """Return whether old tasks drain during the bake time of a deployment."""
    return found.bake_time > 0 and "service-deployment" in found.options.sources


def polling_tasks(found: SetUp) -> int:
    """Return the most tasks that poll while a deregistration has to be noticed by polls."""
    plan = replacing(found)
    return plan.tasks if bakes(found) else plan.listed(_delay(found))


def poll_lags(found: SetUp) -> dict[str, float]:
    """Return the poll interval of a task in seconds, for each source that notices a deregistration."""
    options, tasks = found.options, polling_tasks(found)
    lags = {}
    if "target-health" in options.sources:
        lags["target-health"] = health_interval(found)
        if stands_in(found):
            by_ecs = stand_in_interval(_delay(found), tasks, options.poll_share)
            lags["target-health"] = min(lags["target-health"], by_ecs)
    if "task-state" in options.sources:
        # It learns the number of tasks when it looks for the delay.
        known = tasks if options.deregistration_delay is None else 0
        lags["task-state"] = fleet_interval(options.poll_interval, known, 1, options.poll_share, refill=ECS_REFILL)
    return lags


def health_interval(found: SetUp) -> float:
    """Return the seconds between two polls of target health by a task."""
    options, groups = found.options, max(1, len(found.groups))
    return fleet_interval(options.poll_interval, polling_tasks(found), groups, options.poll_share)


def first_interval(found: SetUp) -> float:
    """Return the seconds between the first polls of a new task that does not know the size of its cluster."""
    options, groups, tasks = found.options, max(1, len(found.groups)), replacing(found).tasks
    alone = fleet_interval(options.poll_interval, tasks, groups, options.poll_share)
    longest = longest_wait(_delay(found))
    bucket = Bucket()
    bucket.begin(max(min(longest, MANY * tasks) / alone, GUESS if stands_in(found) else 1.0))
    return bucket.stretched(alone, tasks * groups, longest)


def stands_in(found: SetUp) -> bool:
    """Return whether tasks also ask ECS between polls of target health; not if that was denied."""
    denied = (each.operation for each in found.troubles if each.kind is TroubleKind.DENIED)
    return found.options.has_stand_in and "DescribeTasks" not in denied


def _delay(found: SetUp) -> float:
    return DEFAULT_DELAY if found.delay is None else found.delay


def leaving(found: SetUp) -> Fleet:
    """Return the calculation for tasks that are deregistered."""
    options, lags = found.options, poll_lags(found)
    # For target health, `Fleet` computes the lag itself, since it depends on how many tasks drain at a time.
    is_by_polls = [*lags] == ["target-health"] and not bakes(found)
    return Fleet(
        replacing(found),
        found.sessions or 1000,
        _delay(found),
        options.margin,
        options.poll_interval,
        options.poll_share,
        max(1, len(found.groups)),
        options.window,
        None if is_by_polls else min(lags.values(), default=EVENT_LAG),
        start_delay=options.start_delay if "target-health" in options.sources else 0.0,
        stands_in=stands_in(found),
        start_ups=_start_ups(found),
    )


def _start_ups(found: SetUp) -> tuple[float, ...]:
    """Return the start-up times to consider, if they decide which old tasks drain together."""
    plan = replacing(found)
    return () if found.start_up or plan.whole_fleet or not plan.can_begin else START_UPS


def deploying(found: SetUp) -> Fleet:
    """Return the calculation for a deployment, with the given number of sessions or 1,000 per task."""
    options = found.options
    if found.is_tied is False:
        longest = max(0.0, LONGEST_STOP - after_sheds(found))
        allowance = Allowance("SIGTERM window", "DRAIN_SIGTERM_WINDOW", longest)
        return Fleet(
            replacing(found),
            found.sessions or 1000,
            options.sigterm_window,
            0.0,
            noticed=0.0,
            allowance=allowance,
            start_ups=_start_ups(found),
        )
    if bakes(found):
        return Fleet(
            replacing(found),
            found.sessions or 1000,
            found.bake_time,
            options.margin,
            window=options.window,
            noticed=max(DEPLOYMENT_LAG, options.poll_interval),
            allowance=BAKE_TIME,
        )
    return leaving(found)


def graceful_timeout(found: SetUp) -> float | None:
    """Return uvicorn's graceful timeout: as the process reports it, or from its command line."""
    if "timeout_graceful_shutdown" in (options := found.process.get("options") or {}):
        limit = options["timeout_graceful_shutdown"]
        return None if limit is None else float(limit)
    return ServerCommand(found.command or (), found.environ).graceful_timeout


def after_sheds(found: SetUp) -> float:
    """Return the seconds from the last shed after SIGTERM until the process ends, at worst."""
    limit = graceful_timeout(found)
    return found.options.tail + AFTER_THE_LAST + (SERVER_END if limit is None else limit)
