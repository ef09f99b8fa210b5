"""Checks of the target groups and of their routing."""

import re
from collections.abc import Iterator

from starlette_drain.aws.sources.rebalance import ALGORITHM, FITTING
from starlette_drain.tools.doctor.outlook import replacing
from starlette_drain.tools.doctor.record import Finding, Group, SetUp

__all__ = ["check_groups", "check_routing"]

ADMIN_PATH = "/drain"
"""The default path of the admin route."""

ASKS_ADMIN = re.compile(r"/drain(?![\w/-])")
"""The same in a command."""


def check_groups(found: SetUp) -> Iterator[Finding]:
    """Check that tasks are registered with target groups that a balancer uses and that can be watched."""
    if found.service_status == "ACTIVE" and not found.groups:
        yield _no_group(found)
    yield from _other_groups(found)
    # Only one group of a pair is in use between deployments.
    is_pair = replacing(found).whole_fleet and any(each.in_use for each in found.groups)
    for group in found.groups:
        if group.has_optimizer:
            text = f"{group.name}: the target optimizer's agent lets through one connection at a time by default"
            remedy = "set TARGET_CONTROL_MAX_CONCURRENCY to the sessions of a task"
            yield Finding("note", "target optimizer", text, remedy)
        if group.target_type in ("lambda", "alb"):
            remedy = "watch the target group that the tasks are in"
            yield Finding("unsafe", "target groups", f"{group.name}: targets of type {group.target_type}", remedy)
        elif group.in_use is False and not is_pair:
            yield Finding("unsafe", "target groups", f"{group.name}: no load balancer uses it", "add a listener rule")
        elif group.targets is not None:
            text = f"{group.name}: {group.targets} targets, {group.healthy} healthy"
            is_ill = not group.healthy and any(state == "unhealthy" for _, _, state in group.listed)
            remedy = "check that the health check reaches the application" if is_ill else ""
            yield Finding("note" if is_ill else "fine", "target groups", text, remedy)


def _no_group(found: SetUp) -> Finding:
    ways = f" (traffic reaches it through {' and '.join(found.other_ways)})" if found.other_ways else ""
    text = f"the service {found.service} registers with none{ways}"
    if found.options.self_registration:
        return Finding("unsafe", "target groups", text, "set DRAIN_TARGET_GROUP_ARN, so that the task can")
    if "target-health" in found.options.sources:
        return Finding("unsafe", "target groups", text, "without a load balancer set DRAIN_SOURCES=task-state")
    return Finding("fine", "target groups", f"{text}, and none is watched")


def _other_groups(found: SetUp) -> Iterator[Finding]:
    """Check that the configured target groups are those with which ECS registers the tasks."""
    given = found.options.target_group_arn
    if found.options.self_registration is True:
        if found.registered:
            text = "ECS registers the tasks, and DRAIN_SELF_REGISTRATION=1 does so too"
            yield Finding("note", "target groups", text, "set it to deregister, or leave it out")
        return
    if strange := [each for each in given if found.registered and each not in found.registered]:
        text = f"DRAIN_TARGET_GROUP_ARN names {strange[0]}, and ECS registers the tasks with {found.registered[0]}"
        yield Finding("unsafe", "target groups", text, "leave it out, so that the task finds its own")


def check_routing(found: SetUp) -> Iterator[Finding]:
    """Check that clients reconnect to other tasks, and that the health check does not use the admin route."""
    options = found.options
    moves = options.max_session_age is not None or options.rebalance or "service-deployment" in options.sources
    if ASKS_ADMIN.search(found.health_command) and "authorization" not in found.health_command.lower():
        text = f"the health check of {found.container} asks {ADMIN_PATH}, which answers no request without the token"
        yield Finding("unsafe", "health check", text, "let it ask for a route of the application")
    for group in found.groups:
        if group.health_path.partition("?")[0] == ADMIN_PATH:
            text = f"{group.name}: the health check asks {ADMIN_PATH}, which answers 401 without the token"
            yield Finding("unsafe", "health check", text, "let it ask for a route of the application")
        yield from _routing(group, found, moves=moves)


def _routing(group: Group, found: SetUp, *, moves: bool) -> Iterator[Finding]:
    said = group.attributes
    if moves and said.get("stickiness.enabled") == "true":
        text = f"{group.name}: stickiness sends clients back to the task that asked them to leave, until it drains"
        yield Finding("note", "routing", text, "switch it off, or do without rotation and service-deployment")
    if found.options.rebalance and said.get(ALGORITHM, FITTING) != FITTING:
        text = f"{group.name}: with {said[ALGORITHM]} clients come back to the tasks that they leave"
        yield Finding("unsafe", "routing", text, f"set {ALGORITHM} to {FITTING}, or leave DRAIN_REBALANCE out")
    if (slow := said.get("slow_start.duration_seconds", "0")) != "0":
        text = f"{group.name}: new tasks get few clients for {slow} s, so many come back to old tasks"
        yield Finding("note", "routing", text, "set slow_start.duration_seconds to 0")
    if said.get("load_balancing.cross_zone.enabled") == "false":
        text = f"{group.name}: clients come back to tasks of the same zone only"
        yield Finding("note", "routing", text, "switch cross-zone load balancing on, or run several tasks in each zone")
