"""What an installation gets that says nothing about triggers and observers: decided here and nowhere else."""

from collections.abc import Iterable
from random import Random

from starlette_drain.ageing import Ageing
from starlette_drain.drain import Drain
from starlette_drain.election import Elected
from starlette_drain.telemetry.base import Observer
from starlette_drain.triggers.base import Trigger
from starlette_drain.workers import Workers

__all__ = ["equip"]


def equip(drain: Drain) -> None:
    """Give *drain* the usual triggers and observers where the user chose none."""
    if drain.equip(triggers=_triggers, observers=_observers):
        workers = Workers(drain)
        drain.coordinate(workers, lambda trigger: Elected(trigger, workers))
        if (age := drain.settings.max_session_age) is not None:
            drain.add(Ageing(drain, age, Random()))


def _triggers() -> Iterable[Trigger]:
    from starlette_drain.aws.health import TargetHealthTrigger  # noqa: PLC0415
    from starlette_drain.triggers.sigterm import SigtermTrigger  # noqa: PLC0415

    return SigtermTrigger(), TargetHealthTrigger()


def _observers() -> Iterable[Observer]:
    from starlette_drain.telemetry.logs import LogObserver  # noqa: PLC0415
    from starlette_drain.telemetry.otel import OpenTelemetryObserver  # noqa: PLC0415

    return LogObserver(), OpenTelemetryObserver()
