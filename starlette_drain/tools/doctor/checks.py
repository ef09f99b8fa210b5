"""The checks: each a pure function of what was found, which names the remedy where something will go wrong."""

from collections.abc import Callable, Iterator

from starlette_drain.aws.api.errors import AwsCallFailed, Trouble, TroubleKind
from starlette_drain.tools.doctor.needs import Use, untried, use_of
from starlette_drain.tools.doctor.outlook import replacing
from starlette_drain.tools.doctor.record import Finding, SetUp
from starlette_drain.tools.doctor.server_checks import check_server
from starlette_drain.tools.doctor.time_checks import (
    check_bake_time,
    check_delay,
    check_deployment,
    check_network_balancer,
    check_polling,
    check_spot,
    check_stop_timeout,
)

__all__ = ["CHECKS", "examine"]


def examine(found: SetUp) -> list[Finding]:
    """Return all findings, in the order of the table."""
    return [finding for check in CHECKS for finding in check(found)]


def check_options(found: SetUp) -> Iterator[Finding]:
    """Options that cannot work keep the application from starting; others may not be what was meant."""
    if found.settings_error:
        yield Finding("unsafe", "options", found.settings_error, "the application will not start like this: mend it")
    for warning in found.warnings:
        yield Finding("note", "options", warning)


def check_identity(found: SetUp) -> Iterator[Finding]:
    """Without a service or a target group nothing shows that the task is to leave, and the service must be there."""
    who, where = found.task_arn or found.service, found.cluster or "the default cluster"
    if found.service_status == "MISSING":
        text = f"ECS knows no service {found.service} in {where}"
        yield Finding("unsafe", "identity", text, "see whether the name, the cluster and the Region are right")
    elif found.service_status not in (None, "ACTIVE"):
        text = f"the service {found.service} in {where} is {found.service_status}: it has been deleted"
        yield Finding("unsafe", "identity", text, "name the service that has taken its place")
    elif who:
        yield Finding("fine", "identity", f"{who} in {where}")
    elif not found.groups:
        yield Finding("unsafe", "identity", "no task, no service, no target group", "give --service or --target-group")
    if found.stuck is not None and not isinstance(found.stuck, AwsCallFailed):
        yield Finding("unsafe", "identity", found.stuck.problem, found.stuck.remedy)


def check_reads(found: SetUp) -> Iterator[Finding]:
    """Each read that the package makes must be allowed, or made needless by a setting."""
    for trouble in found.troubles:
        yield _refused(trouble, found)
    tried = frozenset((*found.reads, *(each.operation for each in found.troubles)))
    missing = [*untried(found.options, tried)]
    told = [f"allowed: {', '.join(found.reads)}"] if found.reads else []
    told += [f"not tried: {', '.join(missing)}"] if missing else []
    if told:
        yield Finding("fine", "permissions", "; ".join(told))


def _refused(trouble: Trouble, found: SetUp) -> Finding:
    use, remedy = use_of(trouble.operation, found.options), trouble.remedy
    if isinstance(found.stuck, AwsCallFailed) and found.stuck.trouble == trouble:
        use = Use.NEEDED
    if use is Use.NONE:
        remedy = "only this command needs it; allow it where you run it"
    elif trouble.kind is TroubleKind.NOT_FOUND and trouble.service == "ecs":
        remedy = "see whether the name, the cluster and the Region are right"
    return Finding("unsafe" if use is Use.NEEDED else "note", "permissions", trouble.problem, remedy)


def check_groups(found: SetUp) -> Iterator[Finding]:
    """A service must register its tasks with target groups that a balancer uses, of a kind that can be watched."""
    if found.service_status == "ACTIVE" and not found.groups:
        yield _no_group(found)
    # Of a pair only one is in use between deployments.
    is_pair = replacing(found).whole_fleet and any(each.in_use for each in found.groups)
    for group in found.groups:
        if group.target_type in ("lambda", "alb"):
            remedy = "watch the target group that the tasks are in"
            yield Finding("unsafe", "target groups", f"{group.name}: targets of type {group.target_type}", remedy)
        elif group.in_use is False and not is_pair:
            yield Finding("unsafe", "target groups", f"{group.name}: no load balancer uses it", "add a listener rule")
        elif group.targets is not None:
            text = f"{group.name}: {group.targets} targets, {group.healthy} healthy"
            yield Finding("fine", "target groups", text)


def _no_group(found: SetUp) -> Finding:
    text = f"the service {found.service} registers with none"
    if found.options.self_registration:
        return Finding("unsafe", "target groups", text, "set DRAIN_TARGET_GROUP_ARN, so that the task can")
    if "target-health" in found.options.sources:
        return Finding("unsafe", "target groups", text, "without a load balancer set DRAIN_SOURCES=task-state")
    return Finding("fine", "target groups", f"{text}, and none is watched")


CHECKS: tuple[Callable[[SetUp], Iterator[Finding]], ...] = (
    check_identity,
    check_reads,
    check_options,
    check_groups,
    check_delay,
    check_network_balancer,
    check_bake_time,
    check_deployment,
    check_polling,
    check_stop_timeout,
    check_spot,
    check_server,
)
