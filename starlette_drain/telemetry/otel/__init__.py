"""
Reports to OpenTelemetry: a span for each drain, and metrics.

Only ``opentelemetry-api`` is needed, and only this package imports it. There are no semantic conventions for WebSockets
yet (https://github.com/open-telemetry/semantic-conventions/issues/2841), so our own names begin with ``drain.``.
docs/telemetry.md lists every name emitted here, and a test compares the two.
"""

from starlette_drain.telemetry.otel.observer import OpenTelemetryObserver

__all__ = ["OpenTelemetryObserver"]
