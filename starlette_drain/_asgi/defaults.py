"""What an installation gets that says nothing about triggers and observers: decided here and nowhere else."""

from collections.abc import Iterable

from starlette_drain._core.settings import Settings
from starlette_drain._engine.drain import Drain
from starlette_drain._engine.max_age import Ageing
from starlette_drain._workers.group import Workers
from starlette_drain._workers.leader import LeaderOnly
from starlette_drain.telemetry.base import Observer
from starlette_drain.triggers.base import Trigger

__all__ = ["equip"]


def equip(drain: Drain) -> None:
    """Give *drain* the usual triggers and observers where the user chose none."""
    if drain.equip(triggers=lambda: _triggers(drain.settings), observers=_observers):
        workers = Workers(drain)
        drain.coordinate(workers, lambda trigger: LeaderOnly(trigger, workers))
        if (age := drain.settings.max_session_age) is not None:
            drain.add(Ageing(drain, age))


def _triggers(settings: Settings) -> Iterable[Trigger]:
    # Each in its own file, and imported only where it is wanted.
    from starlette_drain.triggers.sigterm import SigtermTrigger  # noqa: PLC0415

    yield SigtermTrigger()
    if "target-health" in settings.sources:
        from starlette_drain.aws.sources.target_health import TargetHealthTrigger  # noqa: PLC0415

        yield TargetHealthTrigger()
    if "task-state" in settings.sources:
        from starlette_drain.aws.sources.task_state import EcsTaskTrigger  # noqa: PLC0415

        yield EcsTaskTrigger()
    if "service-deployment" in settings.sources:
        from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger  # noqa: PLC0415

        yield ServiceDeploymentTrigger()
    if settings.self_registration:
        from starlette_drain.aws.actions.registration import SelfRegistration  # noqa: PLC0415

        yield SelfRegistration(registers=settings.self_registration is True)
    if settings.protection_limit is not None:
        from starlette_drain.aws.actions.protection import TaskProtection  # noqa: PLC0415

        yield TaskProtection()


def _observers() -> Iterable[Observer]:
    from starlette_drain.telemetry.logs import LogObserver  # noqa: PLC0415
    from starlette_drain.telemetry.otel import OpenTelemetryObserver  # noqa: PLC0415

    return LogObserver(), OpenTelemetryObserver()
