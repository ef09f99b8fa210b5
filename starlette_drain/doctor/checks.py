"""The checks: each a pure function of what was found, which names the remedy where something will go wrong."""

import math
from collections.abc import Callable, Iterator
from typing import Literal

from starlette_drain.aws.errors import TroubleKind
from starlette_drain.aws.polling import is_too_slow, share_used
from starlette_drain.doctor.record import Finding, SetUp
from starlette_drain.doctor.server_checks import check_server

__all__ = ["CHECKS", "examine"]

NLB_DELAY = 120.0
"""Seconds, at least, that AWS advises: an NLB may send new connections for about two minutes after a deregistration."""

SPOT_NOTICE = 120.0
"""Seconds between the notice of a Spot interruption and the end."""


def examine(found: SetUp) -> list[Finding]:
    """Return all findings, in the order of the table."""
    return [finding for check in CHECKS for finding in check(found)]


def check_options(found: SetUp) -> Iterator[Finding]:
    """Options that cannot work keep the application from starting."""
    if found.settings_error:
        yield Finding("unsafe", "options", found.settings_error, "the application will not start like this: mend it")


def check_identity(found: SetUp) -> Iterator[Finding]:
    """Without a service or a target group nobody tells the task to leave."""
    who = found.task_arn or found.service
    if who:
        yield Finding("fine", "identity", f"{who} in {found.cluster or 'the default cluster'}")
    elif not found.groups:
        yield Finding("unsafe", "identity", "no task, no service, no target group", "give --service or --target-group")


def check_reads(found: SetUp) -> Iterator[Finding]:
    """Each read that the package makes must be allowed, or made needless by a setting."""
    for trouble in found.troubles:
        kind = TroubleKind.DENIED
        optional = trouble.operation in ("DescribeTaskDefinition", "DescribeTargetGroups")
        level: Literal["note", "unsafe"] = "note" if trouble.kind is kind and optional else "unsafe"
        remedy = trouble.remedy
        if trouble.operation == "DescribeTaskDefinition":
            remedy = "only this command needs it; allow it where you run it"
        yield Finding(level, "permissions", trouble.problem, remedy)
    if found.reads:
        yield Finding("fine", "permissions", f"allowed: {', '.join(found.reads)}")


def check_groups(found: SetUp) -> Iterator[Finding]:
    """A service must register its tasks with target groups that a balancer uses, of a kind that can be watched."""
    if found.service and not found.groups and not found.troubles:
        remedy = "without a load balancer set DRAIN_SOURCES=task-state"
        yield Finding("unsafe", "target groups", f"the service {found.service} registers with none", remedy)
    for group in found.groups:
        if group.target_type in ("lambda", "alb"):
            remedy = "watch the target group that the tasks are in"
            yield Finding("unsafe", "target groups", f"{group.name}: targets of type {group.target_type}", remedy)
        elif group.in_use is False:
            yield Finding("unsafe", "target groups", f"{group.name}: no load balancer uses it", "add a listener rule")
        elif group.targets is not None:
            text = f"{group.name}: {group.targets} targets, {group.healthy} healthy"
            yield Finding("fine", "target groups", text)


def check_delay(found: SetUp) -> Iterator[Finding]:
    """The delay must leave time to spread, and more than one group should agree on it."""
    delay, options, fleet = found.delay, found.options, found.fleet
    if delay is None:
        return
    if fleet.fits <= 0 or delay < 2 * options.margin:
        remedy = f"set deregistration_delay.timeout_seconds to {math.ceil(2 * options.margin + fleet.lag)} or more"
        yield Finding("unsafe", "delay", f"{delay:g} s, which leaves {fleet.fits:.0f} s to spread", remedy)
    else:
        text = f"{delay:g} s, noticed within {fleet.lag:.3g} s: {fleet.fits:.0f} s to spread"
        yield Finding("fine", "delay", text)
    delays = {each.name: each.delay for each in found.groups if each.delay is not None}
    if len(set(delays.values())) > 1:
        text = ", ".join(f"{name} {each:g} s" for name, each in delays.items())
        yield Finding("note", "delay", f"they differ: {text}", "the shortest rules; give all the same")
    fits = fleet.delay - fleet.lag - min(options.margin, fleet.delay / 2)
    if options.window is not None and options.window > fits:
        text = f"DRAIN_WINDOW={options.window:g} does not fit under the delay, of which {fits:.0f} s may be used"
        yield Finding("unsafe", "window", text, "lower it, or leave it out and let it follow the delay")
    tail = options.tail
    if tail > options.margin:
        text = f"the last goodbye may take {tail:g} s, and the margin is {options.margin:g} s"
        yield Finding("unsafe", "margin", text, f"set DRAIN_MARGIN to {math.ceil(tail)} or more")


def check_network_balancer(found: SetUp) -> Iterator[Finding]:
    """An NLB goes on sending for a while, and does not cut by itself."""
    for group in found.groups:
        if not group.is_network:
            continue
        if group.delay is not None and group.delay < NLB_DELAY:
            remedy = f"set it to {NLB_DELAY:g} s or more, as AWS advises"
            yield Finding("unsafe", "NLB", f"{group.name}: a delay of {group.delay:g} s", remedy)
        if found.options.late_arrivals == "refuse":
            text = f"{group.name}: new connections may come for two minutes after the deregistration, and are refused"
            yield Finding("note", "NLB", text, "set DRAIN_LATE_ARRIVALS=accept")
        if group.termination is not None:
            how = "cut when the delay ends" if group.termination else "not cut when the delay ends"
            yield Finding("fine", "connection termination", f"{group.name}: connections are {how}")


def check_deployment(found: SetUp) -> Iterator[Finding]:
    """A deployment must be able to begin, and all that drain at once must not be more than the service can take."""
    if found.desired is None:
        return
    plan, fleet = found.deployment, found.fleet
    how = found.strategy.lower() if plan.whole_fleet else f"{plan.min_percent}/{plan.max_percent}"
    if not plan.at_once:
        text = f"at {how} none of {plan.tasks} tasks may be replaced: deployments cannot begin"
        yield Finding("unsafe", "deployment", text, f"set maximumPercent to {fleet.at(1).deployment.max_percent}")
        return
    who = "task drains" if plan.at_once == 1 else "tasks drain"
    text = f"delay {fleet.delay:g} s, {fleet.sessions:,} sessions a task, {plan.at_once} {who} at once at {how}"
    rate = f"{fleet.rate:,.0f} reconnects/s over the fleet" if math.isfinite(fleet.rate) else "all in one instant"
    wish = found.wish or found.options.fleet_rate
    if wish is not None and found.sessions is not None and fleet.rate > wish:
        yield Finding("unsafe", "deployment", f"{text}: {rate}", f"for {wish:g}/s {', or '.join(fleet.remedies(wish))}")
        return
    if found.sessions is None:
        text, rate = text.replace("1,000 sessions", "each 1,000 sessions"), f"{rate}; give --sessions and --rate"
    yield Finding("fine", "deployment", f"{text}: {rate}")


def check_polling(found: SetUp) -> Iterator[Finding]:
    """The fleet's polls must be frequent enough for the delay."""
    fleet, delay = found.fleet, found.delay
    targets, groups = fleet.deployment.targets, fleet.groups
    used = share_used(fleet.lag, targets, groups)
    text = f"{targets} targets in a deployment: each asks every {fleet.lag:.3g} s, {used:.0%} of the account's budget"
    if "target-health" not in found.options.sources or not found.groups:
        return
    if delay is not None and fleet.lag > found.options.poll_interval and is_too_slow(fleet.lag, delay):
        remedy = "add events by Lambda, which need no polling, or raise the delay"
        yield Finding("unsafe", "poll budget", f"{text}; too late for a delay of {delay:g} s", remedy)
    else:
        yield Finding("fine", "poll budget", text)


def check_stop_timeout(found: SetUp) -> Iterator[Finding]:
    """After SIGTERM the sheds and the last goodbye must fit under the container's stopTimeout."""
    options = found.options
    if found.stop_timeout is None or options.sigterm is False:
        return
    needed = found.stopping
    text = f"{found.stop_timeout:g} s"
    if needed > found.stop_timeout:
        text += f", and from SIGTERM to the end it may take {needed:g} s: SIGKILL comes first"
        remedy = f"set stopTimeout to {math.ceil(needed)} (Fargate allows 120)"
        room = options.sigterm_window - needed + found.stop_timeout
        if room > 0:
            remedy += f", or DRAIN_SIGTERM_WINDOW to {room:g}"
        yield Finding("unsafe", "stopTimeout", text, remedy)
    else:
        yield Finding("fine", "stopTimeout", f"{text}, of which SIGTERM takes {needed:g} s at worst")


def check_spot(found: SetUp) -> Iterator[Finding]:
    """A Spot interruption leaves two minutes whatever the delay is."""
    if found.is_spot and found.delay is not None and found.delay > SPOT_NOTICE:
        text = (
            f"an interruption gives {SPOT_NOTICE:g} s and sends SIGTERM at once; the delay of {found.delay:g} s is void"
        )
        yield Finding("note", "Fargate Spot", text, "run long sessions on FARGATE, or add events by Lambda")


CHECKS: tuple[Callable[[SetUp], Iterator[Finding]], ...] = (
    check_identity,
    check_reads,
    check_options,
    check_groups,
    check_delay,
    check_network_balancer,
    check_deployment,
    check_polling,
    check_stop_timeout,
    check_spot,
    check_server,
)
