"""The OpenTelemetry observer: spans and metrics, flushed before the process ends."""

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
    Emits spans and metrics.

    Args:
        tracer_provider: The provider of the tracer; by default the global one.
        meter_provider: The provider of the meter; by default the global one.
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
        """Report the number of open sessions. A count from events would miss those opened before an SDK is set."""
        self._instruments.shown.add(open_sessions)

    def interest(self, kind: type[Event]) -> Callable[[], bool]:
        """Return a function that says whether events of single sessions are wanted: if the metrics go anywhere."""
        return _never if kind is SessionOpened else self._instruments.are_real

    def notify(self, event: Event) -> None:
        """Record *event* in the metrics, and in the spans unless it is emitted for every session."""
        self._instruments.notify(event)
        if not isinstance(event, PER_SESSION):
            self._spans.notify(event)

    def flush(self, timeout: float) -> None:
        """
        Flush both providers concurrently, so that an unreachable collector for one does not block the other.

        Raises:
            ExceptionGroup: Of the errors, among them a `TimeoutError` for each provider that took too long.
        """
        # The global providers are read now, because the application may have set them after creating this observer.
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

    The timeout passed to ``force_flush`` is not enough: the SDK's batch processor ignores it (1.45).
    """

    def __init__(self, provider: Any, timeout: float) -> None:
        super().__init__(name=f"flush-{type(provider).__name__}", daemon=True)
        self._provider = provider
        self._timeout = timeout
        self._outcome: Exception | bool = False

    def run(self) -> None:
        """Flush, and keep the outcome."""
        try:
            self._outcome = self._provider.force_flush(int(self._timeout * 1000)) is not False
        except Exception as error:  # noqa: BLE001 - `failure` returns it
            self._outcome = error

    def failure(self) -> Exception | None:
        """Return the error, a `TimeoutError` if the flush has not ended yet, or ``None`` if it succeeded."""
        if isinstance(self._outcome, Exception):
            return self._outcome
        if self._outcome:
            return None
        return TimeoutError(f"{type(self._provider).__name__} did not send everything within {self._timeout:g} s")
