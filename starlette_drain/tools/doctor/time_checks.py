"""Checks of times: the delay, deployments, polls and SIGTERM."""

import math
from collections.abc import Iterator
from dataclasses import replace

from starlette_drain._core.pacing import burst_warning
from starlette_drain.aws.api.budget import ECS_REFILL, is_too_slow, share_used
from starlette_drain.tools.doctor.outlook import (
    SERVER_END,
    SHIFTING,
    after_sheds,
    bakes,
    deploying,
    graceful_timeout,
    health_interval,
    how,
    leaving,
    poll_lags,
    polling_tasks,
    stands_in,
)
from starlette_drain.tools.doctor.record import Finding, Level, SetUp
from starlette_drain.tools.plan.allowance import LONGEST_STOP
from starlette_drain.tools.plan.remedies import faster, slower
from starlette_drain.tools.plan.sums import Fleet

__all__ = [
    "check_alarms",
    "check_bake_time",
    "check_delay",
    "check_deployment",
    "check_early_success",
    "check_network_balancer",
    "check_polling",
    "check_spot",
    "check_stop_timeout",
]

NLB_DELAY = 120.0
"""The least delay that AWS advises: an NLB may send new connections for two minutes after a deregistration."""

NEARLY = 0.9
"""The fraction of a drain's time after which most sessions have left."""

LONG_DELAY = 300.0
"""The delay from which early success criteria are recommended, in seconds."""

MUCH = 0.5
"""The fraction of the account's call budget that one service should not exceed."""

EVEN = "set DRAIN_PACING to even"
"""What to set where a pacing sheds faster than the deadline needs."""

SPOT_NOTICE = 120.0
"""Seconds between the notice of a Spot interruption and the end."""


def check_delay(found: SetUp) -> Iterator[Finding]:
    """Check that the delay, the window and the margin leave time to spread, and that all groups have the same delay."""
    delay, options, fleet = found.delay, found.options, leaving(found)
    if delay is None:
        return
    if fleet.room <= 0 or delay < 2 * options.margin:
        remedy = f"set deregistration_delay.timeout_seconds to {math.ceil(2 * options.margin + fleet.lag)} or more"
        yield Finding("unsafe", "delay", f"{delay:g} s, which leaves {fleet.room:.0f} s to spread", remedy)
    else:
        text = f"{delay:g} s, noticed within {fleet.lag:.3g} s: {fleet.fits:.0f} s to spread"
        yield Finding("fine", "delay", text)
    yield from _delay_by_hand(found)
    if fleet.fits > 0 and (warning := burst_warning(options.pacing, fleet.fits)):
        yield Finding("unsafe", "pacing", f"of the {fleet.fits:.0f} s to spread: {warning}", "use DRAIN_PACING=even")
    delays = {each.name: each.delay for each in found.groups if each.delay is not None}
    if len(set(delays.values())) > 1:
        text = ", ".join(f"{name} {each:g} s" for name, each in delays.items())
        yield Finding("note", "delay", f"they differ: {text}", "the shortest applies; set them all to the same value")
    if options.window is not None and options.window > fleet.room:
        text = f"DRAIN_WINDOW={options.window:g} does not fit under the delay, of which {fleet.room:.0f} s may be used"
        yield Finding("unsafe", "window", text, "lower it, or leave it out and let it follow the delay")
    tail = options.tail
    if tail > options.margin:
        text = f"the last session may take {tail:g} s, and the margin is {options.margin:g} s"
        yield Finding("unsafe", "margin", text, f"set DRAIN_MARGIN to {math.ceil(tail)} or more")


def _delay_by_hand(found: SetUp) -> Iterator[Finding]:
    """Check that a configured delay is that of the groups."""
    given = found.options.deregistration_delay
    real = {each.name: each.delay for each in found.groups if each.delay is not None}
    for name, delay in real.items():
        if given is not None and given != delay:
            text = f"DRAIN_DEREGISTRATION_DELAY={given:g}, and {name} has {delay:g} s"
            level: Level = "unsafe" if given > delay else "note"
            yield Finding(level, "delay", text, "leave it out, so that it is read, or set the same value")


def check_network_balancer(found: SetUp) -> Iterator[Finding]:
    """Check the delay and late arrivals behind an NLB, which sends new connections for a while."""
    for group in found.groups:
        if not group.is_network:
            continue
        if group.delay is not None and group.delay < NLB_DELAY:
            remedy = f"set it to {NLB_DELAY:g} s or more, as AWS advises"
            yield Finding("unsafe", "NLB", f"{group.name}: a delay of {group.delay:g} s", remedy)
        if found.options.late_arrivals != "accept":
            text = f"{group.name}: new connections may arrive for two minutes after the deregistration, and are refused"
            yield Finding("note", "NLB", text, "set DRAIN_LATE_ARRIVALS=accept")
        if group.termination is not None:
            how = "cut when the delay ends" if group.termination else "not cut when the delay ends"
            yield Finding("fine", "connection termination", f"{group.name}: connections are {how}")


def check_bake_time(found: SetUp) -> Iterator[Finding]:
    """Check that deployments shift traffic and have a bake time if service-deployment is watched."""
    if found.service_status != "ACTIVE" or "service-deployment" not in found.options.sources:
        return
    if bakes(found):
        yield from _time_of_bake(found)
        if found.options.sources == ("service-deployment",):
            text = "it tells of deployments only: a scale-in or a replaced task is noticed at SIGTERM"
            yield Finding("note", "service deployment", text, "add target-health to DRAIN_SOURCES")
        return
    level: Level = "unsafe" if found.options.sources == ("service-deployment",) else "note"
    if found.controller == "ECS" and found.strategy in SHIFTING:
        text = "there is no bake time, so the old tasks are taken out as soon as the traffic has gone"
        yield Finding(level, "service deployment", text, "set bakeTimeInMinutes")
    else:
        text = f"deployments are {how(found)}, which this source does not follow"
        yield Finding(level, "service deployment", text, "leave it out of DRAIN_SOURCES, or shift traffic by ECS")


def _time_of_bake(found: SetUp) -> Iterator[Finding]:
    fleet, window = deploying(found), found.options.window
    if fleet.room <= 0:
        text = f"the bake time of {fleet.delay:g} s leaves no time to spread"
        yield Finding("unsafe", "bake time", text, "raise bakeTimeInMinutes")
    elif window is not None and window > fleet.room:
        text = f"DRAIN_WINDOW={window:g} does not fit into the bake time, of which {fleet.room:.0f} s may be used"
        yield Finding("unsafe", "window", text, "lower it, or leave it out")


def check_deployment(found: SetUp) -> Iterator[Finding]:
    """Check that a deployment can begin, and that its reconnects are not more than the service can take."""
    if found.desired is None:
        return
    if found.is_daemon:
        text = "cannot tell how many tasks of a daemon service drain together: there is one on each instance"
        yield Finding(
            "note", "deployment", text, "raise maximumPercent or minimumHealthyPercent to replace fewer at once"
        )
        return
    fleet = deploying(found)
    plan = fleet.deployment
    if not plan.can_begin:
        text = f"at {how(found)} none of {plan.tasks} tasks may be replaced: deployments cannot begin"
        yield Finding("unsafe", "deployment", text, ", or ".join(plan.beginnings()))
        return
    if not plan.always_serves:
        text = f"at {how(found)} no task serves until the new ones are healthy"
        yield Finding("unsafe", "deployment", text, ", or ".join(plan.beginnings()))
    shown = fleet.worst
    given = "" if found.sessions is not None else "each "
    who = "task drains" if shown.draining == 1 else "tasks drain"
    rate = f"{fleet.rate:,.0f} reconnects/s over the fleet" if math.isfinite(fleet.rate) else "all in one instant"
    text = (
        f"{fleet.allowance.name} {fleet.delay:g} s, {given}{fleet.sessions:,} sessions a task, "
        f"{shown.draining} {who} together at {how(found)}{_start_up(fleet)}: {rate}"
    )
    wish = found.wish or found.options.fleet_rate
    if found.sessions is None:
        yield Finding("fine", "deployment", f"{text}; give --sessions and --rate")
    elif wish is not None and fleet.rate > wish:
        remedies = [*slower(fleet, found.options.pacing, wish, even=EVEN), *_other_ways(found, wish)]
        yield Finding("unsafe", "deployment", text, f"for {wish:g}/s {', or '.join(remedies)}")
    elif wish is not None and (peak := faster(fleet, found.options.pacing, wish)) is not None:
        text = f"{text} at an even pace, and {peak:,.0f} closes/s with this pacing"
        yield Finding("unsafe", "deployment", text, f"for {wish:g}/s {EVEN}, or to fleet:{wish:g}")
    else:
        yield Finding("fine", "deployment", text)


def check_early_success(found: SetUp) -> Iterator[Finding]:
    """Check early success criteria: recommended for long delays, but then two deployments may drain at once."""
    if found.service_status != "ACTIVE" or found.controller != "ECS" or found.strategy in SHIFTING:
        return
    fleet = leaving(found)
    if found.early_success != "DEFERRED":
        if found.is_tied and found.delay is not None and found.delay > LONG_DELAY:
            text = f"a deployment is complete {found.delay:g} s after its last old task was taken out"
            remedy = (
                "set earlySuccessCriteria with sourceServiceRevisionCleanup DEFERRED, unless it is set: "
                "an older botocore does not show it"
            )
            yield Finding("note", "early success", text, remedy)
        return
    if not fleet.deployment.can_begin:
        return
    # The worst case is a next deployment after most sessions have moved, while the last old tasks still drain.
    again = fleet.followed(NEARLY).worst
    budget = found.options.fleet_rate
    wish = found.wish or budget
    if budget is not None and wish is not None and again.rate <= wish:
        return
    text = (
        f"the next deployment may begin while the old tasks drain: then {again.draining} tasks drain together, "
        f"{again.rate:,.0f} reconnects/s over the fleet"
    )
    is_too_much = found.sessions is not None and wish is not None and again.rate > wish
    remedy = "leave a deregistration delay between two deployments"
    if wish is not None and (delay := fleet.delay_for(wish, followed=NEARLY)) is not None:
        remedy += f", or set {fleet.allowance.setting_to(delay)}"
    yield Finding("unsafe" if is_too_much else "note", "early success", text, remedy)


def check_alarms(found: SetUp) -> Iterator[Finding]:
    """Check alarms: late arrivals that are refused with 503 may roll a deployment back."""
    if found.options.late_arrivals == "accept" or not (found.is_express or found.alarms):
        return
    what = "alarms may roll a deployment back"
    if found.is_express:
        what = "Express mode rolls back when more than 1 % of the requests fail"
    text = f"{what}, and connections that come to a draining task are refused with 503"
    yield Finding("note", "alarms", text, "set DRAIN_LATE_ARRIVALS=accept")


def _start_up(fleet: Fleet) -> str:
    """Return what the sum supposes of new tasks, where that matters: the sooner they serve, the more drain together."""
    plan = fleet.worst.deployment
    if plan.batches < 2:
        return ""
    return f", with new tasks healthy after {plan.start_up:g} s{', the worst that may be' if fleet.start_ups else ''}"


def _other_ways(found: SetUp, wish: float) -> Iterator[str]:
    """Yield what would give more time than the present allowance."""
    if found.is_tied is False:
        yield "drain the tasks by hand before ECS ends them"
    elif found.controller == "ECS" and found.strategy in SHIFTING and not bakes(found):
        sources = (*found.options.sources, "service-deployment")
        bake_time = found.bake_time or 60.0
        baking = deploying(replace(found, bake_time=bake_time, settings=replace(found.options, sources=sources)))
        pacing, also = found.options.pacing, ""
        if not found.bake_time or baking.rate > wish:
            also = f", and {slower(baking, pacing, wish, even=EVEN)[0]}"
        elif faster(baking, pacing, wish) is not None:
            also = f", and {EVEN}"
        yield f"add service-deployment to DRAIN_SOURCES{also}"


def check_polling(found: SetUp) -> Iterator[Finding]:
    """Check that the fastest source polls often enough for the delay."""
    lags, delay, tasks = poll_lags(found), found.delay, polling_tasks(found)
    if not lags or not found.groups:
        return
    source = min(lags, key=lags.__getitem__)
    lag, groups = lags[source], len(found.groups)
    when, used = "" if bakes(found) else " in a deployment", 0.0
    if source == "target-health":
        every = health_interval(found)
        used = share_used(every, tasks, groups)
        text = f"each asks every {every:.3g} s, {used:.0%} of the account's budget"
        if lag < every:
            text += f", and ECS every {lag:.3g} s" + ("" if found.task_arn else " if it may call ecs:DescribeTasks")
    else:
        text = f"each asks every {lag:.3g} s, {share_used(lag, tasks, 1, refill=ECS_REFILL):.0%} of ECS's budget"
    text = f"{tasks} tasks{when}: {text}"
    if delay is not None and lag > found.options.poll_interval and is_too_slow(lag, delay):
        remedy = "add events by Lambda, which need no polling, or raise the delay"
        if source == "target-health" and found.options.has_stand_in and not stands_in(found):
            remedy += "; allowing ecs:DescribeTasks helps too"
        yield Finding("unsafe", "poll budget", f"{text}; too late for a delay of {delay:g} s", remedy)
    elif used > MUCH:
        remedy = "lower DRAIN_POLL_SHARE: the console, Terraform and other services share the budget"
        yield Finding("note", "poll budget", text, remedy)
    else:
        yield Finding("fine", "poll budget", text)


def check_stop_timeout(found: SetUp) -> Iterator[Finding]:
    """Check that all steps after SIGTERM fit into the container's ``stopTimeout``."""
    options, limit = found.options, found.stop_timeout
    if limit is None or options.sigterm is False:
        return
    needed = options.sigterm_window + after_sheds(found)
    if needed <= limit:
        yield Finding("fine", "stopTimeout", f"{limit:g} s, of which SIGTERM takes {needed:g} s at worst")
        return
    text = f"{limit:g} s, and from SIGTERM to the end it may take {needed:g} s: SIGKILL comes first"
    if not found.has_stop_timeout and found.is_fargate is False:
        text += ", unless the agent's ECS_CONTAINER_STOP_TIMEOUT is longer"
    ways = []
    if needed <= LONGEST_STOP or found.is_fargate is False:
        most = "" if found.is_fargate is False else f" (Fargate allows {LONGEST_STOP:g})"
        ways.append(f"set stopTimeout to {math.ceil(needed)}{most}")
    ways += [f"set {name} to {value - needed + limit:g}" for name, value in _shorter(found) if value > needed - limit]
    if not ways:
        ways.append(f"lower {' and '.join(name for name, _ in _shorter(found))}")
    yield Finding("unsafe", "stopTimeout", text, ", or ".join(ways))


def _shorter(found: SetUp) -> Iterator[tuple[str, float]]:
    """Yield the settings that could be lower, with their part of the time after SIGTERM in seconds."""
    yield "DRAIN_SIGTERM_WINDOW", found.options.sigterm_window
    graceful = graceful_timeout(found)
    if graceful is not None and graceful > SERVER_END:
        yield "--timeout-graceful-shutdown", graceful


def check_spot(found: SetUp) -> Iterator[Finding]:
    """Check the delay on Fargate Spot, where an interruption leaves two minutes."""
    if found.is_spot and found.delay is not None and found.delay > SPOT_NOTICE:
        text = (
            f"an interruption gives {SPOT_NOTICE:g} s and sends SIGTERM at once; the delay of {found.delay:g} s is void"
        )
        yield Finding("note", "Fargate Spot", text, "run long sessions on FARGATE, or add events by Lambda")
