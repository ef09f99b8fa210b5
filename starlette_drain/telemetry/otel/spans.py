"""
The spans of a drain.

A span is exported when it ends, the SDK keeps at most 128 of its events, and a process that is killed loses it. So
there is one span that ends with the report, with a limited number of events, and a short one at the start that is
exported at once. Events have times of the event loop's clock, spans have wall-clock times. They are not converted: a
span begins and ends when its event arrives.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainProgressed,
    DrainReplanned,
    DrainStarted,
    Event,
    PaceChanged,
)
from starlette_drain._core.report import DrainReport
from starlette_drain.telemetry.otel.scope import NAME, SCHEMA_URL, VERSION

__all__ = ["MOST_OF_A_NAME", "Spans"]

MOST_OF_A_NAME = 16
"""The most events of one name on a span, and the most ``drain.update`` spans of one drain. Later ones are dropped."""

Attributes = Mapping[str, str | bool | int | float | Sequence[str]]


class Spans:
    """The spans of consecutive drains."""

    def __init__(self, provider: trace.TracerProvider | None) -> None:
        self._provider = provider
        self._span: Span | None = None
        self._context = Context()
        self._counts: Counter[str] = Counter()

    @cached_property
    def _tracer(self) -> trace.Tracer:
        # Not trace.get_tracer, which takes the same arguments in another order.
        provider = self._provider or trace.get_tracer_provider()
        return provider.get_tracer(NAME, VERSION, schema_url=SCHEMA_URL)

    def notify(self, event: Event) -> None:
        """Begin a span, add an event to it, or end it."""
        match event:
            case DrainStarted():
                self._start(event)
            case DrainProgressed():
                self._add_event("drain.progress", _progress(event))
            case DrainReplanned():
                self._add_event("drain.replan", _replan(event))
            case PaceChanged():
                self._add_event("drain.pace", {"drain.pacing": event.pacing})
            case DrainFinished(report=report):
                self._end(report, report.outcome)
            case DrainCancelled(report=report):
                self._end(report, "cancelled")

    def _start(self, event: DrainStarted) -> None:
        # A link, not a parent: the drain may have been started by a short request, and may take an hour.
        current = trace.get_current_span().get_span_context()
        identity: Attributes = {
            "drain.id": event.drain_id,
            "drain.trigger": event.cause.trigger,
            "drain.reason": event.cause.reason,
        }
        plan: Attributes = {
            "drain.window": event.deadline - event.at,
            "drain.detection_lag": event.cause.lag,
            "drain.pacing": event.pacing,
            "drain.sessions.initial": event.sessions,
        }
        self._counts.clear()
        self._span = self._tracer.start_span(
            "drain",
            context=Context(),
            kind=SpanKind.INTERNAL,
            links=[Link(current)] if current.is_valid else [],
            attributes=identity,
        )
        self._context = trace.set_span_in_context(self._span, Context())
        self._tracer.start_span("drain.start", context=self._context, attributes={**identity, **plan}).end()

    def _end(self, report: DrainReport, how: str) -> None:
        span, self._span = self._span, None
        if span is None:
            # A drain that was over is cancelled: its span has ended.
            if not self._count("drain.update"):
                return
            span = self._tracer.start_span("drain.update", context=self._context)
        span.set_attributes({**_figures(report), "drain.outcome": how})
        if how == "incomplete":
            span.set_status(StatusCode.ERROR, f"{report.still_open} sessions are still open")
        elif how == "late":
            span.set_status(StatusCode.ERROR, f"the last session left {-report.slack:.1f} s after the deadline")
        span.end()

    def _add_event(self, name: str, attributes: Attributes) -> None:
        if self._span and self._count(name):
            self._span.add_event(name, attributes)

    def _count(self, name: str) -> bool:
        """Count a span or event called *name*; return whether it may still be emitted."""
        self._counts[name] += 1
        return self._counts[name] <= MOST_OF_A_NAME


def _progress(event: DrainProgressed) -> Attributes:
    return {
        "drain.percent": event.percent,
        "drain.sessions.shed": event.shed,
        "drain.sessions.waiting": event.remaining,
    }


def _replan(event: DrainReplanned) -> Attributes:
    return {
        "drain.trigger": event.cause.trigger,
        "drain.reason": event.cause.reason,
        "drain.shortened": event.shortened,
        "drain.time_left": event.deadline - event.at,
        "drain.pacing": event.pacing,
        "drain.sessions.waiting": event.remaining,
    }


def _figures(report: DrainReport) -> Attributes:
    first = report.causes[0]
    return {
        "drain.id": report.drain_id,
        "drain.trigger": first.trigger,
        "drain.reason": first.reason,
        "drain.triggers": [cause.trigger for cause in report.causes],
        "drain.window": report.window,
        "drain.detection_lag": report.detection_lag,
        "drain.duration": report.duration,
        "drain.slack": report.slack,
        "drain.rate.peak": report.peak_rate,
        "drain.rate.mean": report.mean_rate,
        "drain.sessions.initial": report.sessions_at_start,
        "drain.sessions.arrived": report.arrived,
        "drain.sessions.shed": report.shed,
        "drain.sessions.left": report.left,
        "drain.sessions.refused": report.refused,
        "drain.sessions.forced": report.forced,
        "drain.sessions.remaining": report.still_open,
    }
