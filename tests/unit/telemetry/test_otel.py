"""The promise of telemetry/otel: a drain leaves one bounded trace and metrics, whatever becomes of the process."""

import asyncio
import gc
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from opentelemetry import context, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from telemetry_samples import (
    CANCELLED,
    JOINED,
    PROGRESSED,
    ROTATION,
    SHORTENED,
    STARTED,
    STORM_BEGAN,
    STORM_ENDED,
    STORM_PROGRESSED,
    finished,
    session,
    story,
)

from starlette_drain import Drain
from starlette_drain._core.events import (
    Event,
    PaceChanged,
    RotationEnded,
    RotationStarted,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SessionShed,
    TriggerPolled,
    TriggerStoodDown,
    WatchReported,
    WorkersSeen,
)
from starlette_drain._core.session import Outcome
from starlette_drain.telemetry.base import Observers, OpenSessions
from starlette_drain.telemetry.logs import LogObserver
from starlette_drain.telemetry.otel import OpenTelemetryObserver
from starlette_drain.telemetry.otel import instruments as instruments_module
from starlette_drain.telemetry.otel.spans import MOST_OF_A_NAME

DOCS = Path(__file__).parents[3] / "docs" / "telemetry.md"
WEBSOCKET = {"network.protocol.name": "websocket"}
IDENTITY = {"drain.id": "d-1", "drain.trigger": "target-health", "drain.reason": "the target is draining."}
FIGURES = {
    **IDENTITY,
    "drain.triggers": ("target-health", "sigterm"),
    "drain.window": 120.0,
    "drain.detection_lag": 5.0,
    "drain.duration": 107.5,
    "drain.slack": 12.5,
    "drain.rate.peak": 16.0,
    "drain.rate.mean": 10.98,
    "drain.sessions.initial": 1200,
    "drain.sessions.arrived": 4,
    "drain.sessions.shed": 1180,
    "drain.sessions.left": 24,
    "drain.sessions.refused": 7,
    "drain.sessions.forced": 2,
    "drain.sessions.remaining": 0,
    "drain.outcome": "drained",
}


class Telemetry:
    """An observer with an SDK of its own, and what has been exported."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = self.observe()
        self.sessions = OpenSessions()
        self.observer.look_at(self.sessions)

    def observe(self) -> OpenTelemetryObserver:
        """Make one more observer with the same providers."""
        return OpenTelemetryObserver(tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    def emit(self, *events: Event) -> None:
        """Tell the observer."""
        for event in events:
            self.observer.notify(event)

    @property
    def spans(self) -> list[Any]:
        """All exported spans, in the order in which they ended."""
        return list(self.exporter.get_finished_spans())

    def metrics(self) -> dict[str, Any]:
        """Collect, and return the metrics by name."""
        data = self.reader.get_metrics_data()
        found = [
            each
            for one in (data.resource_metrics if data else ())
            for scope in one.scope_metrics
            for each in scope.metrics
        ]
        return {each.name: each for each in found}

    def values(self, name: str) -> list[tuple[Mapping[str, Any], Any]]:
        """Collect, and return the data points of one metric as attributes and value (a histogram: count and sum)."""
        points = self.metrics()[name].data.data_points
        return [
            (dict(each.attributes), each.value if hasattr(each, "value") else (each.count, each.sum)) for each in points
        ]


@pytest.fixture
def telemetry():
    """Keep the telemetry of one test away from the global providers."""
    return Telemetry()


# Spans


def test_a_drain_is_one_span_with_its_report_and_one_at_its_start(telemetry):
    """Exactly these spans, these attributes and these events."""
    telemetry.emit(STARTED, PROGRESSED, SHORTENED, finished())
    start, drain = telemetry.spans
    assert (start.name, drain.name) == ("drain.start", "drain")
    assert dict(start.attributes) == {
        **IDENTITY,
        "drain.window": 280.0,
        "drain.detection_lag": 5.0,
        "drain.pacing": "evenly, 4.29 sessions/s",
        "drain.sessions.initial": 1200,
    }
    assert dict(drain.attributes) == FIGURES
    assert [(each.name, dict(each.attributes)) for each in drain.events] == [
        (
            "drain.progress",
            {"drain.percent": 25, "drain.sessions.shed": 290, "drain.sessions.waiting": 900},
        ),
        (
            "drain.replan",
            {
                "drain.trigger": "sigterm",
                "drain.reason": "the process received SIGTERM",
                "drain.shortened": True,
                "drain.time_left": 20.0,
                "drain.pacing": "evenly, 15 sessions/s",
                "drain.sessions.waiting": 300,
            },
        ),
    ]
    assert drain.kind is SpanKind.INTERNAL
    assert drain.status.status_code is StatusCode.UNSET
    assert start.parent == drain.context
    assert drain.parent is None
    assert drain.links == ()


def test_the_drain_is_a_root_that_links_to_the_request_that_asked(telemetry):
    """A request of a moment does not become the parent of an hour, and is not the current span afterwards."""
    tracer = telemetry.tracer_provider.get_tracer("a web framework")
    with tracer.start_as_current_span("POST /drain") as request:
        telemetry.emit(STARTED)
        assert trace.get_current_span() is request
    telemetry.emit(finished())
    start, _, drain = telemetry.spans
    assert drain.parent is None
    assert drain.context.trace_id != request.get_span_context().trace_id
    assert [each.context for each in drain.links] == [request.get_span_context()]
    assert start.parent == drain.context
    assert start.links == ()


def test_a_killed_drain_has_left_its_start(telemetry):
    """What is known at the start is exported at the start."""
    telemetry.emit(STARTED)
    assert [each.name for each in telemetry.spans] == ["drain.start"]


@pytest.mark.parametrize(
    ("end", "outcome", "status", "description"),
    [
        (finished(), "drained", StatusCode.UNSET, None),
        (finished(slack=0.0), "drained", StatusCode.UNSET, None),
        (finished(slack=-0.5), "drained", StatusCode.UNSET, None),
        (finished(still_open=3), "incomplete", StatusCode.ERROR, "3 sessions are still open"),
        (finished(slack=-1.5), "late", StatusCode.ERROR, "the last session left 1.5 s after the deadline"),
        (finished(still_open=3, slack=-1.5), "incomplete", StatusCode.ERROR, "3 sessions are still open"),
        (CANCELLED, "cancelled", StatusCode.UNSET, None),
    ],
)
def test_the_outcome_and_the_status(telemetry, end, outcome, status, description):
    """
    A drain that left somebody behind or missed its deadline is an error; one that was cancelled is not.

    Nor is one whose last session took a moment to answer the goodbye it got at the deadline.
    """
    telemetry.emit(STARTED, end)
    drain = telemetry.spans[-1]
    assert drain.attributes["drain.outcome"] == outcome
    assert (drain.status.status_code, drain.status.description) == (status, description)


def test_each_drain_has_a_trace_of_its_own(telemetry):
    """A drain after one that was cancelled begins anew."""
    telemetry.emit(STARTED, CANCELLED, STARTED, PROGRESSED, finished())
    assert [each.name for each in telemetry.spans] == ["drain.start", "drain", "drain.start", "drain"]
    _, first, _, second = telemetry.spans
    assert first.context.trace_id != second.context.trace_id
    assert [len(first.events), len(second.events)] == [0, 1]


def test_news_after_the_end_is_an_update_in_the_same_trace(telemetry):
    """A late arrival that was let in, or a cancel, makes the report anew; the first span is gone by then."""
    telemetry.emit(STARTED, finished(), JOINED, finished(still_open=1), CANCELLED)
    _, drain, *updates = telemetry.spans
    assert [each.name for each in updates] == ["drain.update", "drain.update"]
    assert [each.attributes["drain.outcome"] for each in updates] == ["incomplete", "cancelled"]
    assert [each.parent for each in updates] == [drain.context, drain.context]
    assert drain.events == ()


def test_ten_thousand_facts_stay_within_bounds(telemetry):
    """No number of sessions, causes or late arrivals makes a trace grow past a few dozen events and spans."""
    one = session()
    telemetry.emit(SessionOpened(0.0, one), STARTED)
    for _ in range(10_000):
        telemetry.emit(SessionShed(1.0, one), JOINED, PROGRESSED)
    for _ in range(10_000):
        telemetry.emit(finished())
    names = [each.name for each in telemetry.spans]
    assert names == ["drain.start", "drain", *["drain.update"] * MOST_OF_A_NAME]
    drain = telemetry.spans[1]
    assert len(drain.events) == 2 * MOST_OF_A_NAME
    assert drain.dropped_events == 0
    assert telemetry.values("drain.sessions.shed") == [({"drain.trigger": "target-health"}, 10_000)]


def test_the_scope_says_who_we_are(telemetry):
    """Spans and metrics carry our name, version and schema, each in its own place."""
    telemetry.emit(STARTED, SessionOpened(0.0, session()))
    (scope,) = telemetry.reader.get_metrics_data().resource_metrics[0].scope_metrics
    for each in (telemetry.spans[0].instrumentation_scope, scope.scope):
        assert each.name == "starlette_drain"
        assert re.fullmatch(r"(\d+\.\d+\.\d+.*)?", each.version)
        assert each.schema_url == "https://opentelemetry.io/schemas/1.44.0"


# Metrics


def test_the_life_of_sessions_in_metrics(telemetry):
    """Opened, asked, closed and refused: each is counted under its kind and reason."""
    sessions = [session(opened_at=1000.0) for _ in range(4)]
    telemetry.sessions.by_kind = {"websocket": 1}
    telemetry.emit(STARTED, SessionShed(2000.0, sessions[0]), SessionShed(2000.0, sessions[1]))
    telemetry.emit(
        SessionClosed(2001.0, sessions[0], Outcome.SHED),
        SessionClosed(2005.0, sessions[1], Outcome.FORCED),
        SessionClosed(1010.0, sessions[2], Outcome.LEFT),
        SessionRefused(2000.0, "websocket", "/ws"),
    )
    reasons = ("app_shutdown", "timeout", "normal_closure")
    shed, forced, left = ({**WEBSOCKET, "drain.close.reason": each} for each in reasons)
    assert telemetry.values("drain.sessions.active") == [(WEBSOCKET, 1)]
    assert telemetry.values("drain.sessions.shed") == [({"drain.trigger": "target-health"}, 2)]
    assert telemetry.values("drain.sessions.closed") == [(shed, 1), (forced, 1), (left, 1)]
    assert telemetry.values("drain.sessions.refused") == [({**WEBSOCKET, "drain.refusal.reason": "drain"}, 1)]
    assert telemetry.values("drain.session.duration") == [(shed, (1, 1001.0)), (forced, (1, 1005.0)), (left, (1, 10.0))]


def test_a_session_that_leaves_without_a_drain_says_for_what(telemetry):
    """Its age or a rotation, neither before a drain nor after one that was cancelled the drain's trigger."""
    for before in ((), (STARTED, SessionShed(2001.0, session()), CANCELLED)):
        telemetry.emit(*before, SessionShed(2200.0, session(), "max-age"), SessionShed(2200.0, session(), "rotation"))
    assert sorted(telemetry.values("drain.sessions.shed"), key=str) == [
        ({"drain.trigger": "max-age"}, 2),
        ({"drain.trigger": "rotation"}, 2),
        ({"drain.trigger": "target-health"}, 1),
    ]


def test_an_end_for_which_the_convention_has_no_word_has_one_of_ours(telemetry):
    """A session that a rotation sent away did not see the application end."""
    one, other = session(), session()
    telemetry.emit(SessionShed(2000.0, one, "rotation"), SessionShed(2000.0, other, "rotation"))
    telemetry.emit(SessionClosed(2001.0, one, Outcome.SHED), SessionClosed(2001.0, other, Outcome.FORCED))
    telemetry.emit(SessionClosed(2002.0, one, Outcome.SHED))
    reasons = [each["drain.close.reason"] for each, _ in telemetry.values("drain.sessions.closed")]
    assert reasons == ["turnover", "timeout", "app_shutdown"]


def test_a_drain_can_be_compared_with_its_plan(telemetry, monkeypatch):
    """The time left, and how many would be left now; anew when the plan changes, and gone with the drain."""
    clock = [500.0]
    monkeypatch.setattr(instruments_module, "monotonic", lambda: clock[0])
    assert not {"drain.time_left", "drain.sessions.planned"} & set(telemetry.metrics())

    def shown():
        return telemetry.values("drain.time_left")[0][1], telemetry.values("drain.sessions.planned")[0][1]

    telemetry.emit(STARTED)
    assert shown() == (280.0, 1200.0)
    clock[0] += 70
    assert shown() == (210.0, 900.0)
    telemetry.sessions.by_kind = {"websocket": 300}
    telemetry.emit(SHORTENED)
    assert shown() == (20.0, 300.0)
    clock[0] += 21
    assert shown() == (-1.0, 0.0)
    telemetry.emit(CANCELLED)
    assert not {"drain.time_left", "drain.sessions.planned"} & set(telemetry.metrics())


def test_no_time_is_left_of_a_drain_that_is_over(telemetry):
    """It ends with the last session; after the deadline it is negative for those that are still open."""
    telemetry.sessions.by_kind = {"websocket": 3}
    telemetry.emit(STARTED, finished(still_open=3))
    assert "drain.time_left" in telemetry.metrics()
    telemetry.sessions.by_kind = {}
    assert "drain.time_left" not in telemetry.metrics()


def test_a_drain_that_closes_nothing_says_so(telemetry):
    """Alarms on the time left can pass over a drain that is only observed; one that closes decides for both."""
    telemetry.sessions.observes_only = True
    telemetry.emit(STARTED)
    assert [each for each, _ in telemetry.values("drain.time_left")] == [{"drain.mode": "observe"}]
    closing = OpenSessions()
    telemetry.observer.look_at(closing)
    assert [each for each, _ in telemetry.values("drain.time_left")] == [{"drain.mode": "drain"}]


def test_a_pace_that_waits_is_not_behind_its_plan(telemetry, monkeypatch):
    """No session is planned to leave before it goes on, and all that are left are planned from there."""
    clock = [500.0]
    monkeypatch.setattr(instruments_module, "monotonic", lambda: clock[0])
    telemetry.sessions.by_kind = {"websocket": 1200}
    telemetry.emit(replace(STARTED, waits=True))
    clock[0] += 80
    assert telemetry.values("drain.sessions.planned") == [({}, 1200.0)]
    telemetry.emit(PaceChanged(2080.0, "d-1", "evenly, 6 sessions/s"))
    clock[0] += 100
    assert telemetry.values("drain.sessions.planned") == [({}, 600.0)]
    telemetry.emit(CANCELLED, PaceChanged(2181.0, "d-1", "evenly, 6 sessions/s"))
    assert "drain.sessions.planned" not in telemetry.metrics()


def test_silent_workers_are_a_number_to_alarm_on(telemetry):
    """Of several workers, how many are heard of and how many are not; of one process nothing."""
    assert "drain.workers" not in telemetry.metrics()
    telemetry.emit(WorkersSeen(0.0, 3, (34,)))
    active, silent = ({"drain.worker.state": each} for each in ("active", "silent"))
    assert telemetry.values("drain.workers") == [(active, 2), (silent, 1)]
    telemetry.emit(WorkersSeen(0.0, 3, ()))
    assert telemetry.values("drain.workers") == [(active, 3), (silent, 0)]


def test_whether_a_rotation_runs(telemetry):
    """A gauge says so from its start to its end."""
    assert telemetry.values("drain.rotation") == [({}, 0)]
    telemetry.emit(RotationStarted(0.0, ROTATION, 2))
    assert telemetry.values("drain.rotation") == [({}, 1)]
    telemetry.emit(RotationEnded(9.0, "rotation", "complete", 9.0, 2, 0, 0))
    assert telemetry.values("drain.rotation") == [({}, 0)]


def test_polls_in_metrics(telemetry):
    """Every answer of a source is counted by trigger and outcome, with how long it took."""
    telemetry.emit(
        TriggerPolled(1.0, "target-health", "healthy", 0.25),
        TriggerPolled(2.0, "target-health", "healthy", 0.5),
        TriggerPolled(3.0, "target-health", "ThrottlingException", 2.0),
    )
    healthy, throttled = (
        {"drain.trigger": "target-health", "drain.poll.outcome": each} for each in ("healthy", "ThrottlingException")
    )
    assert telemetry.values("drain.trigger.polls") == [(healthy, 2), (throttled, 1)]
    assert telemetry.values("drain.trigger.poll.duration") == [(healthy, (2, 0.75)), (throttled, (1, 2.0))]


@pytest.mark.parametrize(
    ("events", "state", "remaining"),
    [
        ([], 0, 0),
        ([STARTED], 1, 1),
        ([STARTED, finished()], 2, 1),
        ([STARTED, CANCELLED], 0, 0),
    ],
)
def test_the_state_and_who_remains(telemetry, events, state, remaining):
    """The gauges follow the states of a drain, and who is open counts as remaining unless the process serves."""
    telemetry.sessions.by_kind = {"websocket": 1}
    telemetry.emit(*events)
    assert telemetry.values("drain.state") == [({}, state)]
    assert telemetry.values("drain.sessions.remaining") == [({}, remaining)]


def test_every_metric_has_its_kind_and_unit(telemetry):
    """Exactly these metrics, with UCUM units."""
    telemetry.sessions.by_kind = {"websocket": 1}
    telemetry.emit(*story()[:-1])
    assert {name: (type(each.data).__name__, each.unit) for name, each in telemetry.metrics().items()} == {
        "drain.state": ("Gauge", "{state}"),
        "drain.sessions.active": ("Sum", "{session}"),
        "drain.sessions.remaining": ("Gauge", "{session}"),
        "drain.sessions.planned": ("Gauge", "{session}"),
        "drain.time_left": ("Gauge", "s"),
        "drain.workers": ("Gauge", "{worker}"),
        "drain.sessions.shed": ("Sum", "{session}"),
        "drain.sessions.closed": ("Sum", "{session}"),
        "drain.sessions.refused": ("Sum", "{session}"),
        "drain.session.duration": ("Histogram", "s"),
        "drain.trigger.polls": ("Sum", "{poll}"),
        "drain.trigger.poll.duration": ("Histogram", "s"),
        "drain.rotation": ("Gauge", "{rotation}"),
        "drain.watch": ("Gauge", "{state}"),
        "drain.handshakes": ("Gauge", "{handshake}"),
    }


def test_the_watch_is_a_number_to_alarm_on(telemetry):
    """1 while a trigger sees its source, 0 before, -1 when it is blind, and nothing for one that is off here."""
    for state, shown in (("not yet", 0), ("watching", 1), ("blind", -1)):
        telemetry.emit(WatchReported(0.0, "target-health", state, "a in b"))
        assert telemetry.values("drain.watch") == [({"drain.trigger": "target-health"}, shown)]
    other = telemetry.observe()
    other.notify(WatchReported(0.0, "target-health", "watching", "a in b"))
    assert telemetry.values("drain.watch") == [({"drain.trigger": "target-health"}, -1)]
    other.notify(TriggerStoodDown(0.0, "target-health", "no group"))
    telemetry.emit(TriggerStoodDown(0.0, "target-health", "no group"))
    assert "drain.watch" not in telemetry.metrics()


def test_a_trigger_that_is_off_where_it_should_watch_is_blind(telemetry):
    """An ECS task of a service whose target is not found would not hear of its deregistration."""
    telemetry.emit(TriggerStoodDown(0.0, "target-health", "no group", is_alarm=True))
    assert telemetry.values("drain.watch") == [({"drain.trigger": "target-health"}, -1)]


def test_a_worker_that_no_longer_watches_has_no_watch(telemetry):
    """Otherwise a worker that has given the watch back would seem to watch without polling, for ever."""
    telemetry.emit(WatchReported(0.0, "target-health", "watching", "a in b"))
    telemetry.emit(WatchReported(0.0, "target-health", "elsewhere", ""))
    assert "drain.watch" not in telemetry.metrics()


def test_a_storm_is_seen_while_it_lasts(telemetry):
    """The limit, the handshakes in progress and those that wait; nothing where there never was a storm."""
    assert "drain.handshakes" not in telemetry.metrics()
    for event, figures in ((STORM_BEGAN, (16, 16, 0)), (STORM_PROGRESSED, (20, 20, 1500)), (STORM_ENDED, (40, 0, 0))):
        telemetry.emit(event)
        states = ({"drain.handshakes.state": each} for each in ("limit", "in_progress", "held"))
        assert telemetry.values("drain.handshakes") == list(zip(states, figures, strict=True))
    telemetry.emit(SessionRefused(2000.0, "websocket", "/ws", "storm"))
    assert telemetry.values("drain.sessions.refused") == [({**WEBSOCKET, "drain.refusal.reason": "storm"}, 1)]


def test_durations_have_buckets_from_seconds_to_days(telemetry):
    """The default buckets end at 10,000 s, which says nothing of connections that last a day."""
    telemetry.emit(*story())
    (point, *_) = telemetry.metrics()["drain.session.duration"].data.data_points
    assert point.explicit_bounds == instruments_module.SESSION_SECONDS
    assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (1, 7 * 24 * 3600)


def test_two_drains_of_one_process_are_both_seen(telemetry):
    """Two applications in one process share the instruments; neither hides the other."""
    other = telemetry.observe()
    sessions = OpenSessions()
    other.look_at(sessions)
    other.notify(STARTED)
    sessions.by_kind = telemetry.sessions.by_kind = {"websocket": 1}
    assert telemetry.values("drain.state") == [({}, 1)]
    assert telemetry.values("drain.sessions.remaining") == [({}, 1)]
    assert telemetry.values("drain.sessions.active") == [(WEBSOCKET, 2)]


def test_an_observer_of_two_drains_shows_the_sum():
    """Of those that are still there, each with the sessions of its present event loop."""
    telemetry = Telemetry()
    with asyncio.Runner() as runner:
        drains = [Drain(triggers=[], observers=[telemetry.observer]) for _ in range(2)]
        for drain in drains:
            runner.run(open_one(drain))
        assert telemetry.values("drain.sessions.active") == [(WEBSOCKET, 2)]
        runner.run(open_one(drains[0], stays=False))
        assert telemetry.values("drain.sessions.active") == [(WEBSOCKET, 2)]
    with asyncio.Runner() as runner:
        runner.run(open_one(drains[0]))
        assert telemetry.values("drain.sessions.active") == [(WEBSOCKET, 2)]
        del drain, drains
        gc.collect()
        assert telemetry.metrics().keys().isdisjoint({"drain.sessions.active"})


async def open_one(drain: Drain, *, stays: bool = True) -> None:
    """Open a session, and close it again unless it *stays*."""
    drain.host.attach()
    one = session()
    drain.host.engine.track(one)
    drain.host.engine.opened(one)
    if not stays:
        drain.host.engine.closed(one, forced=False)


def test_sessions_that_opened_before_an_sdk_was_set_are_shown(telemetry):
    """Their closes do not count for less than none."""
    observer = OpenTelemetryObserver()
    observers = Observers([observer])
    observers.open_sessions.by_kind = {"websocket": 2}
    assert not observers.wants(SessionOpened)
    observers.add(telemetry.observer)  # as its SDK comes
    assert telemetry.values("drain.sessions.active") == [(WEBSOCKET, 2)]
    observers.open_sessions.by_kind = {"websocket": 1}
    observers.notify(SessionClosed(1.0, session(), Outcome.LEFT))
    assert telemetry.values("drain.sessions.active") == [(WEBSOCKET, 1)]


def test_a_provider_keeps_no_observer(telemetry):
    """An observer that nobody holds any more is freed, though the SDK keeps its gauges' callbacks; the next is seen."""
    gone = ref(telemetry.observer)
    telemetry.emit(STARTED)
    telemetry.observer = None
    gc.collect()
    assert gone() is None
    assert "drain.state" not in telemetry.metrics()
    telemetry.observer = telemetry.observe()
    assert telemetry.values("drain.state") == [({}, 0)]


def test_a_session_costs_no_new_attributes(telemetry):
    """The dictionaries of attributes are made once for each kind and outcome, not for each session."""
    instruments = telemetry.observer._instruments
    seen = []
    instruments._closed = type("Counter", (), {"add": lambda _, __, attributes: seen.append(attributes)})()
    for _ in range(3):
        one = session()
        telemetry.emit(SessionClosed(1.0, one, Outcome.LEFT))
    assert seen[0] is seen[1] is seen[2]


# Flush


class Unhashable(MeterProvider):
    """Like Logfire's provider: a dataclass, equal to others, which cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other):
        return isinstance(other, Unhashable)


def test_a_provider_need_not_be_hashable():
    """Logfire's is not; two of them are told apart, and nothing is kept of one that has gone."""
    before = len(instruments_module._gauges)
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    providers = [Unhashable([reader], shutdown_on_exit=False) for reader in readers]
    observers = [OpenTelemetryObserver(meter_provider=provider) for provider in providers]
    for reader in readers:
        assert "drain.state" in reader.get_metrics_data().to_json()
    assert len(instruments_module._gauges) == before + 2
    for provider in providers:
        provider.shutdown()
    del observers, providers, provider, readers, reader
    gc.collect()
    assert len(instruments_module._gauges) == before


def test_meters_and_instruments_are_held():
    """Logfire holds them weakly, to make them anew when it is configured again."""
    held = []

    class Forgetful(MeterProvider):
        def get_meter(self, *args, **kwargs):
            meter = super().get_meter(*args, **kwargs)
            held.append(ref(meter))
            for kind in (
                "create_counter",
                "create_histogram",
                "create_observable_gauge",
                "create_observable_up_down_counter",
            ):
                setattr(meter, kind, self._remembering(getattr(meter, kind)))
            return meter

        @staticmethod
        def _remembering(create):
            def remembering(*args, **kwargs):
                instrument = Instrument(create(*args, **kwargs))
                held.append(ref(instrument))
                return instrument

            return remembering

    provider = Forgetful([InMemoryMetricReader()], shutdown_on_exit=False)
    observer = OpenTelemetryObserver(meter_provider=provider)
    gc.collect()
    assert len(held) == 16
    assert all(each() for each in held)
    del observer


class Instrument:
    """Stands for an instrument that the SDK holds, and is itself held by nobody but its user."""

    def __init__(self, instrument):
        self.instrument = instrument


def test_a_tracer_is_asked_for_when_a_drain_begins():
    """Until then nothing is to be traced, and whoever counts its tracers counts none of ours."""
    asked = []

    class Counting(TracerProvider):
        def get_tracer(self, *args, **kwargs):
            asked.append(args)
            return super().get_tracer(*args, **kwargs)

    observer = OpenTelemetryObserver(tracer_provider=Counting(shutdown_on_exit=False))
    assert asked == []
    observer.notify(STARTED)
    observer.notify(PROGRESSED)
    assert len(asked) == 1


class Provider:
    """A provider that can only be flushed."""

    def __init__(self, force_flush):
        self.force_flush = force_flush


def test_a_flush_asks_both_providers():
    """Each is given the time limit, in milliseconds."""
    asked = []
    observer = OpenTelemetryObserver()
    observer._tracer_provider = observer._meter_provider = Provider(asked.append)
    observer.flush(1.5)
    assert asked == [1500, 1500]


def test_a_flush_asks_both_at_the_same_time():
    """Spans that wait for a collector do not hold up metrics: here the one ends only when the other has come."""
    other = threading.Event()
    observer = OpenTelemetryObserver()
    observer._tracer_provider = Provider(lambda millis: other.wait(millis / 1000))
    observer._meter_provider = Provider(lambda _: other.set())
    observer.flush(30.0)


def test_a_flush_ends_in_time_though_a_provider_does_not():
    """The SDK's batch processor ignores its time limit; we do not wait for it, and say so."""
    never = threading.Event()
    observer = OpenTelemetryObserver()
    observer._tracer_provider = Provider(lambda _: never.wait())
    try:
        with pytest.raises(ExceptionGroup) as failure:
            observer.flush(0.0)
    finally:
        never.set()
    assert [str(each) for each in failure.value.exceptions] == ["Provider did not send everything within 0 s"]


def test_a_flush_swallows_nothing():
    """What a provider raises, and that it says no, comes out; `Observers` logs it."""

    def refuse(_):
        msg = "the collector is gone"
        raise ConnectionError(msg)

    observer = OpenTelemetryObserver()
    observer._tracer_provider, observer._meter_provider = Provider(refuse), Provider(lambda _: False)
    with pytest.raises(ExceptionGroup) as failure:
        observer.flush(30.0)
    assert [type(each) for each in failure.value.exceptions] == [ConnectionError, TimeoutError]


def test_a_flush_sends_what_a_batch_holds(telemetry):
    """With the real SDK both providers can be flushed, and nothing fails."""
    telemetry.emit(STARTED, finished())
    telemetry.observer.flush(30.0)


def test_without_an_sdk_nothing_happens():
    """An application that set no provider pays a little time and gets no error."""
    observer = OpenTelemetryObserver()
    for event in story():
        observer.notify(event)
    observer.flush(1.0)


def test_the_context_of_the_caller_is_left_alone(telemetry):
    """To tell a fact attaches nothing to the context in which the application runs."""
    before = context.get_current()
    telemetry.emit(*story())
    assert context.get_current() == before


def test_an_unknown_fact_is_ignored_by_telemetry(telemetry):
    """New facts do not break old observers."""
    telemetry.emit(Event(0.0))
    assert telemetry.spans == []


# The documentation


def test_the_documentation_names_everything_that_is_emitted(telemetry, caplog):
    """Every span, event, attribute, metric and log field is in docs/telemetry.md, and that names no others."""
    caplog.set_level("DEBUG", "starlette_drain")
    telemetry.sessions.by_kind = {"websocket": 1}
    log = LogObserver()
    for event in (*story(), STARTED, JOINED, finished(still_open=1)):
        telemetry.emit(event)
        log.notify(event)
    metrics = telemetry.metrics()
    emitted = set(metrics)
    for span in telemetry.spans:
        emitted |= {span.name, *span.attributes, *(each.name for each in span.events)}
        emitted |= {name for each in span.events for name in each.attributes}
    for metric in metrics.values():
        emitted |= {name for point in metric.data.data_points for name in point.attributes}
    emitted |= {name for record in caplog.records for name in vars(record) if name.startswith("drain_")}
    emitted |= names_in_prometheus()
    named = set(re.findall(r"`((?:drain[._]|network\.)[a-z_.]+|drain)`", DOCS.read_text(encoding="utf-8")))
    assert emitted - named == set()
    assert named - emitted == set()


def names_in_prometheus():
    """Return what OpenTelemetry's exporter makes of the names; a counter's, with the ending that its samples have."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(disable_target_info=True, registry=registry)])
    observer = OpenTelemetryObserver(meter_provider=provider)
    sessions = OpenSessions()
    sessions.by_kind = {"websocket": 1}
    observer.look_at(sessions)
    for event in story()[:-1]:
        observer.notify(event)
    names = {each.name + "_total" * (each.type == "counter") for each in registry.collect()}
    provider.shutdown()
    return names
