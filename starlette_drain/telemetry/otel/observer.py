"""The observer that keeps spans and metrics, and has them sent before the process ends."""

from collections.abc import Callable
from threading import Thread
from time import monotonic
from typing import Any

from opentelemetry import metrics, trace

from starlette_drain._core.events import Event, SessionClosed, SessionOpened, SessionShed
from starlette_drain.telemetry.base import OpenSessions
from starlette_drain.telemetry.otel.instruments import Instruments
from starlette_drain.telemetry.otel.spans import Spans

__all__ = ["OpenTelemetryObserver"]

PER_SESSION = (SessionOpened, SessionShed, SessionClosed)


class OpenTelemetryObserver:
    """
    Emits spans and metrics, with the providers given or the global ones.

    Args:
        tracer_provider: Where the tracer comes from; by default the global provider.
        meter_provider: Where the meter comes from; by default the global provider.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._spans = Spans(tracer_provider)
        self._instruments = Instruments(meter_provider)

    def look_at(self, open_sessions: OpenSessions) -> None:
        """Show how many sessions are open. Counted from events, those that opened before an SDK was set would lack."""
        self._instruments.shown.add(open_sessions)

    def interest(self, kind: type[Event]) -> Callable[[], bool]:
        """Return what says whether the metrics go anywhere, so that single sessions are worth an event."""
        return _never if kind is SessionOpened else self._instruments.are_real

    def notify(self, event: Event) -> None:
        """Put *event* into metrics, and into spans unless it is one of those that come for every session."""
        self._instruments.notify(event)
        if not isinstance(event, PER_SESSION):
            self._spans.notify(event)

    def flush(self, timeout: float) -> None:
        """
        Have both providers send what they hold, at once: a collector that is gone must not cost us the other.

        Raises:
            ExceptionGroup: With what went wrong, a `TimeoutError` among it where *timeout* seconds were not enough.
        """
        # The global providers are asked for now, because an application may have set them after it made us.
        providers = (
            self._tracer_provider or trace.get_tracer_provider(),
            self._meter_provider or metrics.get_meter_provider(),
        )
        flushes = [Flush(each, timeout) for each in providers if callable(getattr(each, "force_flush", None))]
        until = monotonic() + timeout
        for flush in flushes:
            flush.start()
        for flush in flushes:
            flush.join(max(0.0, until - monotonic()))
        if failures := [failure for flush in flushes if (failure := flush.failure())]:
            msg = "not all telemetry was sent"
            raise ExceptionGroup(msg, failures)


def _never() -> bool:
    return False


class Flush(Thread):
    """
    One provider's ``force_flush``, on a thread that does not keep the process alive.

    The time limit it is given is not enough: the SDK's own batch processor ignores it (1.45).
    """

    def __init__(self, provider: Any, timeout: float) -> None:
        super().__init__(name=f"flush-{type(provider).__name__}", daemon=True)
        self._provider = provider
        self._timeout = timeout
        self._outcome: Exception | bool = False

    def run(self) -> None:
        """Flush, and keep what came of it."""
        try:
            self._outcome = self._provider.force_flush(int(self._timeout * 1000)) is not False
        except Exception as error:  # noqa: BLE001 - it is raised to the caller of the flush
            self._outcome = error

    def failure(self) -> Exception | None:
        """Return what has gone wrong so far."""
        if isinstance(self._outcome, Exception):
            return self._outcome
        if self._outcome:
            return None
        return TimeoutError(f"{type(self._provider).__name__} did not send everything within {self._timeout:g} s")
