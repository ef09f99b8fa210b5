"""The checks: pure functions of the set-up, which return findings with remedies."""

from collections.abc import Callable, Iterator

from starlette_drain.aws.api.errors import AwsCallFailed, Trouble, TroubleKind
from starlette_drain.aws.identity.identity import OwnTarget, canonical_id
from starlette_drain.tools.doctor.definition_checks import check_container, check_role
from starlette_drain.tools.doctor.group_checks import check_groups, check_routing
from starlette_drain.tools.doctor.needs import Use, finds_targets, untried, use_of
from starlette_drain.tools.doctor.outlook import first_interval
from starlette_drain.tools.doctor.record import Finding, Group, SetUp
from starlette_drain.tools.doctor.server_checks import check_process, check_server, check_stop_signal
from starlette_drain.tools.doctor.time_checks import (
    check_alarms,
    check_bake_time,
    check_delay,
    check_deployment,
    check_early_success,
    check_network_balancer,
    check_polling,
    check_spot,
    check_stop_timeout,
)
from starlette_drain.tools.doctor.watching import check_watching

__all__ = ["CHECKS", "examine"]


def examine(found: SetUp) -> list[Finding]:
    """Return the findings of all checks, in the order of the table."""
    return [finding for check in CHECKS for finding in check(found)]


def check_options(found: SetUp) -> Iterator[Finding]:
    """Check that the options are valid, and report their warnings."""
    if found.settings_error:
        yield Finding("unsafe", "options", found.settings_error, "fix it: the application does not start with it")
    for warning in found.warnings:
        yield Finding("note", "options", warning)


def check_identity(found: SetUp) -> Iterator[Finding]:
    """Check that a service or a target group is known, and that the service exists."""
    who, where = found.task_arn or found.service, found.cluster or "the default cluster"
    if found.service_status == "MISSING":
        text = f"ECS knows no service {found.service} in {where}"
        yield Finding("unsafe", "identity", text, "check the name, the cluster and the Region")
    elif found.service_status not in (None, "ACTIVE"):
        text = f"the service {found.service} in {where} is {found.service_status}: it has been deleted"
        yield Finding("unsafe", "identity", text, "name the service that replaced it")
    elif who and found.service_status is None and not found.own and (found.service or finds_targets(found.options)):
        yield Finding("note", "identity", f"cannot tell what {who} in {where} is: ECS has not answered")
    elif who:
        yield Finding("fine", "identity", f"{who} in {where}")
    elif not found.groups:
        yield Finding("unsafe", "identity", "no task, no service, no target group", "give --service or --target-group")
    if found.stuck is not None and not isinstance(found.stuck, AwsCallFailed):
        yield Finding("unsafe", "identity", found.stuck.problem, found.stuck.remedy)


def check_target(found: SetUp) -> Iterator[Finding]:
    """Check that the task's own target is listed in its group; otherwise no deregistration is noticed."""
    if "target-health" not in found.options.sources:
        return
    if not found.own:
        yield from _by_hand(found)
        return
    looked = [each for each in found.groups if each.targets is not None]
    seen, missing = [], []
    for own in found.own:
        group = next((each for each in looked if each.arn == own.target_group_arn), None)
        if group is None:
            continue
        states = [
            state
            for target, port, state in group.listed
            if canonical_id(target) in own.ids and (not own.ports or port in own.ports)
        ]
        if states:
            seen.append(f"{own} in {group.name}: {', '.join(sorted(set(states)))}")
        else:
            missing.append((own, group))
    if seen:  # a task is in one group of a pair
        yield Finding("fine", "target", "; ".join(seen))
        return
    for own, group in missing:
        yield _not_listed(own, group, found)


def _by_hand(found: SetUp) -> Iterator[Finding]:
    """Check the target options of the task definition without knowing a task."""
    options, listed = found.options, [each for group in found.groups for each in group.listed]
    if options.target_id and (found.desired or 0) > 1:
        text = f"DRAIN_TARGET_ID={options.target_id} is the same for all {found.desired} tasks"
        yield Finding("unsafe", "target", text, "leave it out: each task finds its own")
    elif options.target_port and listed and options.target_port not in {port for _, port, _ in listed}:
        ports = ", ".join(map(str, sorted({port for _, port, _ in listed})))
        text = f"no target has port {options.target_port}, so no deregistration would be noticed"
        yield Finding("unsafe", "target", text, f"set DRAIN_TARGET_PORT to {ports}, or leave it out")


def _not_listed(own: OwnTarget, group: Group, found: SetUp) -> Finding:
    text = f"{own} is not among the {len(group.listed)} targets of {group.name}"
    if found.options.self_registration is True:
        return Finding("fine", "target", f"{text}; the process registers itself")
    ports = sorted({port for target, port, _ in group.listed if canonical_id(target) in own.ids})
    ids = sorted({target for target, port, _ in group.listed if port in own.ports})
    remedy = "wait until ECS has registered the task, or check that this is its target group"
    if ports:
        listed = ", ".join(map(str, ports))
        remedy = f"the group has it with port {listed}: set DRAIN_TARGET_PORT to that, or leave it out"
    elif found.options.target_id and ids:
        remedy = f"leave DRAIN_TARGET_ID out; with that port the group has {', '.join(ids[:3])}"
    return Finding("unsafe", "target", f"{text}, so no deregistration would be noticed", remedy)


def check_reads(found: SetUp) -> Iterator[Finding]:
    """Check that each read that the package makes is allowed, or not needed."""
    for trouble in found.troubles:
        yield _refused(trouble, found)
    tried = frozenset((*found.reads, *(each.operation for each in found.troubles)))
    missing = [*untried(found.options, tried)]
    told = [f"allowed: {', '.join(found.reads)}"] if found.reads else []
    if told and not found.task_arn:
        told.append("cannot tell what the task's own role allows")
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
        remedy = "check the name, the cluster and the Region"
    elif trouble.operation == "DescribeClusters":
        remedy += f"; without it a new task polls every {first_interval(found):g} s at first, and services that start "
        remedy += "together throttle each other"
    elif trouble.operation == "DescribeTasks" and use is Use.SPARED:
        remedy += "; without it a large service notices later, and an early rollback only at SIGTERM"
    return Finding("unsafe" if use is Use.NEEDED else "note", "permissions", trouble.problem, remedy)


CHECKS: tuple[Callable[[SetUp], Iterator[Finding]], ...] = (
    check_identity,
    check_watching,
    check_target,
    check_role,
    check_reads,
    check_options,
    check_container,
    check_groups,
    check_routing,
    check_delay,
    check_network_balancer,
    check_bake_time,
    check_deployment,
    check_early_success,
    check_alarms,
    check_polling,
    check_stop_timeout,
    check_spot,
    check_stop_signal,
    check_process,
    check_server,
)
