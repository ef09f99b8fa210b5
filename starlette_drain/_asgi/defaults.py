"""The default triggers and observers. They are chosen only here."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from starlette_drain._asgi.announcement import Announcement
from starlette_drain._asgi.command_socket import CommandSocket
from starlette_drain._asgi.process import ProcessCheck
from starlette_drain._engine.drain import Drain
from starlette_drain._workers.group import WorkerGroup
from starlette_drain.aws.options import AwsSettings
from starlette_drain.telemetry.base import Observer
from starlette_drain.telemetry.console import Console
from starlette_drain.triggers.base import Trigger

if TYPE_CHECKING:
    from starlette_drain.telemetry.recorder import Recorder

__all__ = ["equip"]


Drain.settings_type = AwsSettings
"""All options, including those of AWS."""
Drain.console = Console
"""uvicorn sets up its handlers before it imports the application."""


def equip(drain: Drain) -> None:
    """Give *drain* the default triggers and observers where the user chose none."""
    settings = AwsSettings.of(drain.settings)
    recorder = _recorder(settings)
    if drain.host.equip(
        triggers=lambda: _triggers(settings, recorder), observers=lambda: _observers(settings, recorder)
    ):
        group = WorkerGroup()
        drain.host.coordinate(lambda life: group.join(life, lambda: drain.host.triggers), group.lead)
        drain.host.add(group)
        console: AbstractContextManager[object] = nullcontext()
        if settings.log:
            console = Console(lambda: _speaks(group), lambda: _origin(group))
        drain.host.add(Announcement(drain, group, console))
        drain.host.add(ProcessCheck(lambda: _speaks(group), holds_sigterm=settings.sigterm is True))
        drain.host.add(CommandSocket(drain))


def _speaks(group: WorkerGroup) -> bool:
    """Return whether this process writes the log lines of the task: only one of several workers does."""
    return group.member is None or group.member.speaks(Announcement.name)


def _origin(group: WorkerGroup) -> str:
    """Return the suffix that says in which of several workers a drain runs; empty for a single worker."""
    member = group.member
    return f"worker {member.pid}, one of {member.workers}" if member is not None and member.workers > 1 else ""


def _recorder(settings: AwsSettings) -> "Recorder | None":
    if not settings.record:
        return None
    from starlette_drain.telemetry.recorder import Recorder  # noqa: PLC0415 - off by default

    return Recorder(settings)


def _triggers(settings: AwsSettings, recorder: "Recorder | None") -> Iterable[Trigger]:
    # Triggers are imported only if they are wanted.
    from starlette_drain.triggers.sigterm import SigtermTrigger  # noqa: PLC0415

    yield SigtermTrigger()
    yield from _aws(settings, recorder)


def _aws(settings: AwsSettings, recorder: "Recorder | None") -> Iterable[Trigger]:
    is_wanted = settings.sources or settings.self_registration
    if not is_wanted:
        return
    from starlette_drain.aws.session import AWSSession  # noqa: PLC0415

    session = AWSSession(record=recorder)
    if "target-health" in settings.sources:
        from starlette_drain.aws.sources.target_health import TargetHealthTrigger  # noqa: PLC0415

        yield TargetHealthTrigger(session)
    if "task-state" in settings.sources:
        from starlette_drain.aws.sources.task_state import EcsTaskTrigger  # noqa: PLC0415

        yield EcsTaskTrigger(session)
    if "service-deployment" in settings.sources:
        from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger  # noqa: PLC0415

        yield ServiceDeploymentTrigger(session)
    if settings.self_registration:
        from starlette_drain.aws.actions.registration import SelfRegistration  # noqa: PLC0415

        yield SelfRegistration(session, registers=settings.self_registration is True)


def _observers(settings: AwsSettings, recorder: "Recorder | None") -> Iterable[Observer]:
    from starlette_drain.telemetry.logs import LogObserver  # noqa: PLC0415
    from starlette_drain.telemetry.otel import OpenTelemetryObserver  # noqa: PLC0415

    log, otel = LogObserver(observes_only=settings.mode == "observe"), OpenTelemetryObserver()
    return (log, otel, recorder) if recorder else (log, otel)
