"""
Reports to OpenTelemetry: one span for the drain, which ends with its report, and metrics to watch it by.

Only ``opentelemetry-api`` is needed, and only this folder imports it. There are no semantic conventions for WebSockets
yet (https://github.com/open-telemetry/semantic-conventions/issues/2841), so the names of our own begin with ``drain.``.
docs/telemetry.md lists every name that is emitted here, and a test compares the two.
"""

from starlette_drain.telemetry.otel.observer import OpenTelemetryObserver

__all__ = ["OpenTelemetryObserver"]
