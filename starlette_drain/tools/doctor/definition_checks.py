"""Checks of the task definition: the container that serves, the role, and other containers."""

from collections.abc import Iterator

from starlette_drain.tools.doctor.record import Finding, SetUp

__all__ = ["check_container", "check_role"]


def check_container(found: SetUp) -> Iterator[Finding]:
    """Check that the container exists, that its options are known, and how it stops."""
    if found.missing_container:
        text = f"the task definition has no container {found.missing_container}"
        yield Finding("unsafe", "container", text, "check --container")
    if found.unseen:
        text = f"cannot tell what {', '.join(found.unseen)} says: it comes from a secret or a file"
        yield Finding("note", "options", text, "run the doctor inside the task")
    if found.restarts and found.options.exit_when_drained:
        text = "a restart policy starts the container again when DRAIN_EXIT_WHEN_DRAINED has ended it"
        yield Finding("note", "container", text, "leave one of the two out")
    if not found.is_essential and found.options.exit_when_drained:
        text = f"the task goes on when DRAIN_EXIT_WHEN_DRAINED has ended {found.container}, which is not essential"
        yield Finding("note", "container", text, "make the container essential, or leave the option out")
    if found.not_looked_at:
        names = ", ".join(found.not_looked_at)
        text = f"cannot tell how {names} stops, which is behind a target group too: only {found.container} was checked"
        yield Finding("note", "container", text, f"run the doctor again with --container {found.not_looked_at[0]}")
    for name in found.proxies:
        text = f"{name} passes requests on to {found.container}, and may close all connections at SIGTERM"
        remedy = f"let {found.container} depend on it (dependsOn), so that ECS stops it last"
        yield Finding("note", "container", text, remedy)
    if found.is_windows:
        text = "cannot tell how a task on Windows learns that it has to stop: the package is made for Linux"
        yield Finding("note", "container", text, "rely on target health: SIGTERM does not arrive there")


def check_role(found: SetUp) -> Iterator[Finding]:
    """Check that the task has a role; without one it cannot call AWS."""
    asks = found.options.sources or found.options.self_registration
    if found.has_role is not False or found.task_arn or not asks or found.options.mode == "off":
        return
    if found.is_fargate is False:
        text = "the task definition has no task role, so the calls use the role of the instance"
        yield Finding("note", "permissions", text, "set taskRoleArn to a role with the documented policy")
    else:
        text = "the task definition has no task role, so the task cannot call AWS and watches nothing"
        yield Finding("unsafe", "permissions", text, "set taskRoleArn to a role with the documented policy")
