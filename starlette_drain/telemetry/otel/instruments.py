"""The metrics of a process: its sessions, its drains and its triggers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from time import monotonic
from weakref import ReferenceType, WeakSet, finalize, ref

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation

from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainReplanned,
    DrainStarted,
    Event,
    PaceChanged,
    RotationEnded,
    RotationStarted,
    SessionClosed,
    SessionRefused,
    SessionShed,
    StormBegan,
    StormEnded,
    StormProgressed,
    TriggerPolled,
    TriggerStoodDown,
    WatchReported,
    WorkersSeen,
)
from starlette_drain._core.session import Outcome, Session
from starlette_drain.telemetry.base import OpenSessions
from starlette_drain.telemetry.otel.scope import NAME, SCHEMA_URL, VERSION

__all__ = ["Instruments"]

SESSION_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
"""Histogram buckets of session durations: from a connection that fails at once to a device connected for a week."""

POLL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
"""Histogram buckets of poll durations: from an answer on an open connection to beyond a read timeout."""

SERVING, DRAINING, DRAINED = 0, 1, 2

BLIND = -1

CLOSE_REASONS = {
    Outcome.LEFT: "normal_closure",
    Outcome.SHED: "app_shutdown",
    Outcome.FORCED: "timeout",
}
"""The values of ``drain.close.reason``, from the stable convention ``signalr.connection.status``."""

TURNOVER = "turnover"
"""A further value, for sessions asked to leave without a drain, which the convention does not cover."""

WATCH = {"watching": 1, "not yet": 0, "blind": BLIND}
"""The values of ``drain.watch``: alert if it stays below 1 for minutes."""


@dataclass(frozen=True, slots=True)
class Course:
    """
    The even course of a drain, to compare the real one with.

    Attributes:
        sessions: The number of sessions at its beginning.
        begins: When it begins, in seconds of `time.monotonic`: exporter threads cannot use the event loop's clock.
        ends: The deadline, on the same clock.
        waits: Whether no session is to leave for now.
    """

    sessions: int
    begins: float
    ends: float
    waits: bool

    def time_left(self) -> float:
        """Return the seconds until the deadline, negative after it."""
        return self.ends - monotonic()

    def planned(self) -> float:
        """Return how many sessions would be left now in an even drain."""
        part = self.time_left() / max(self.ends - self.begins, 0.001)
        return self.sessions * (1.0 if self.waits else max(0.0, min(1.0, part)))


class Instruments:
    """The instruments of one drain. The attributes of each kind of session are created once."""

    def __init__(self, provider: MeterProvider | None) -> None:
        provider = provider or metrics.get_meter_provider()
        # Referenced because Logfire, when reconfigured, drops meters and instruments without references.
        self._meter = meter = provider.get_meter(NAME, VERSION, schema_url=SCHEMA_URL)
        self.state = SERVING
        self.shown: WeakSet[OpenSessions] = WeakSet()
        """The open sessions of the drains that share this observer."""
        self.rotates = False
        self.watch: dict[str, int] = {}
        """The watch state of each trigger; replaced as a whole, because the exporter's thread reads it."""
        self.handshakes: tuple[int, int, int] | None = None
        """The limit on handshakes, those in progress and those held; ``None`` before the first storm."""
        self.course: Course | None = None
        """The even course of the drain that runs or is over."""
        self.workers: tuple[int, int] | None = None
        """The numbers of active and of silent workers; ``None`` for a single worker."""
        self._kinds: dict[str, dict[str, str]] = {}
        self._ends: dict[tuple[str, str], dict[str, str]] = {}
        self._asking: dict[str, str] = {}
        self._turned_over: set[Session] = set()
        """The sessions asked to leave without a drain; a slot in every session would cost memory."""
        self._shed = meter.create_counter("drain.sessions.shed", "{session}", "Sessions asked to leave.")
        self._closed = meter.create_counter("drain.sessions.closed", "{session}", "Sessions that are over.")
        self._refused = meter.create_counter("drain.sessions.refused", "{session}", "Arrivals refused.")
        self._duration = _histogram(meter, "drain.session.duration", "How long sessions were open.", SESSION_SECONDS)
        self._polls = meter.create_counter("drain.trigger.polls", "{poll}", "Polls of triggers to their sources.")
        self._poll_duration = _histogram(
            meter, "drain.trigger.poll.duration", "How long the sources took to answer.", POLL_SECONDS
        )
        _gauges_of(provider).show(self, meter)

    def are_real(self) -> bool:
        """Return whether an SDK is set, so that the instruments are more than the API's proxies."""
        return getattr(self._shed, "_real_instrument", self) is not None

    def notify(self, event: Event) -> None:
        """Record *event*. Events of every session are matched first, and allocate little."""
        match event:
            case SessionClosed():
                self._close(event)
            case SessionShed():
                if event.trigger is not None:
                    self._turned_over.add(event.session)
                self._shed.add(1, self._asking if event.trigger is None else {"drain.trigger": event.trigger})
            case SessionRefused():
                self._refused.add(1, {**self._of_kind(event.kind), "drain.refusal.reason": event.because})
            case TriggerPolled():
                asked = {"drain.trigger": event.trigger, "drain.poll.outcome": event.outcome}
                self._polls.add(1, asked)
                self._poll_duration.record(event.seconds, asked)
            case WatchReported() | TriggerStoodDown():
                self._watch(event)
            case RotationStarted() | RotationEnded():
                self.rotates = isinstance(event, RotationStarted)
            case WorkersSeen():
                self.workers = event.workers - len(event.silent), len(event.silent)
            case StormBegan() | StormProgressed() | StormEnded():
                self._follow_storm(event)
            case _:
                self._follow_drain(event)

    def _follow_drain(self, event: Event) -> None:
        match event:
            case DrainStarted():
                self.state = DRAINING
                self._asking = {"drain.trigger": event.cause.trigger}
                self._plan(event.sessions, event.deadline - event.at, waits=event.waits)
            case DrainReplanned():
                self._plan(self.open().total(), event.deadline - event.at, waits=event.waits)
            case PaceChanged() if self.course is not None:
                self._plan(self.open().total(), self.course.time_left(), waits=event.waits)
            case DrainFinished():
                self.state = DRAINED
            case DrainCancelled():
                self.state = SERVING
                self._asking = {}
                self.course = None

    def _follow_storm(self, event: StormBegan | StormProgressed | StormEnded) -> None:
        match event:
            case StormBegan():
                self.handshakes = event.limit, event.in_progress, 0
            case StormProgressed():
                self.handshakes = event.limit, event.in_progress, event.held
            case StormEnded():
                self.handshakes = event.limit, 0, 0

    def _plan(self, sessions: int, time_left: float, *, waits: bool) -> None:
        now = monotonic()
        self.course = Course(sessions, now, now + time_left, waits)

    def _watch(self, event: WatchReported | TriggerStoodDown) -> None:
        watch = {name: each for name, each in self.watch.items() if name != event.trigger}
        if isinstance(event, WatchReported):
            if event.state in WATCH:  # otherwise another worker watches
                watch[event.trigger] = WATCH[event.state]
        elif event.is_alarm:
            watch[event.trigger] = BLIND  # it is off but should watch
        self.watch = watch

    def open(self) -> Counter[str]:
        """Return the number of open sessions, by kind."""
        counts: Counter[str] = Counter()
        for each in list(self.shown):
            counts.update(dict(each.by_kind))  # a copy: this is the exporter's thread
        return counts

    def mode(self) -> str:
        """Return the drain's mode; one that closes something counts for all that share an observer."""
        shown = list(self.shown)
        return "observe" if shown and all(each.observes_only for each in shown) else "drain"

    def _close(self, event: SessionClosed) -> None:
        session = event.session
        reason = CLOSE_REASONS[event.outcome]
        if session in self._turned_over:
            self._turned_over.discard(session)
            reason = TURNOVER if event.outcome is Outcome.SHED else reason
        how = self._ends.get((session.kind, reason))
        if how is None:
            how = self._ends[session.kind, reason] = {**self._of_kind(session.kind), "drain.close.reason": reason}
        self._closed.add(1, how)
        self._duration.record(event.at - session.opened_at, how)

    def _of_kind(self, kind: str) -> dict[str, str]:
        attributes = self._kinds.get(kind)
        if attributes is None:
            attributes = self._kinds[kind] = {"network.protocol.name": kind}
        return attributes


class _Gauges:
    """
    The observable instruments of all drains that share a meter provider.

    The SDK calls the callbacks of only the first gauge of a name, and keeps them for ever. So there is one set of
    gauges. It refers to the drains weakly, and reports all that still exist.
    """

    def __init__(self) -> None:
        self._shown: tuple[ReferenceType[Instruments], ...] = ()
        self._kept: tuple[object, ...] = ()

    def show(self, one: Instruments, meter: Meter) -> None:
        if not self._shown:
            self._kept = (
                meter,
                meter.create_observable_gauge(
                    "drain.state", [self._state], "{state}", "0 while serving, 1 while draining, 2 when drained."
                ),
                meter.create_observable_up_down_counter(
                    "drain.sessions.active", [self._active], "{session}", "Sessions that are open."
                ),
                meter.create_observable_gauge(
                    "drain.sessions.remaining",
                    [self._remaining],
                    "{session}",
                    "Sessions that are still open in a drain.",
                ),
                meter.create_observable_gauge(
                    "drain.sessions.planned",
                    [self._planned],
                    "{session}",
                    "Sessions that would still be open in an even drain.",
                ),
                meter.create_observable_gauge(
                    "drain.time_left",
                    [self._time_left],
                    "s",
                    "Time until the deadline of the drain, until all sessions have left; negative after the deadline.",
                ),
                meter.create_observable_gauge(
                    "drain.handshakes",
                    [self._handshakes],
                    "{handshake}",
                    "From the first storm on: the limit on handshakes in progress, their number, and how many wait.",
                ),
                meter.create_observable_gauge(
                    "drain.rotation", [self._rotation], "{rotation}", "1 while a rotation runs, otherwise 0."
                ),
                meter.create_observable_gauge(
                    "drain.watch",
                    [self._watch],
                    "{state}",
                    "1 while a trigger sees its source, 0 before that, -1 after two intervals without an answer.",
                ),
                meter.create_observable_gauge(
                    "drain.workers", [self._workers], "{worker}", "Workers of the task that are active or silent."
                ),
            )
        # Replaced as a whole, because the callbacks run on the exporter's thread.
        self._shown = (*(each for each in self._shown if each()), ref(one))

    def _alive(self) -> list[Instruments]:
        return [one for each in self._shown if (one := each())]

    def _state(self, _: CallbackOptions) -> Iterator[Observation]:
        if states := {one.state for one in self._alive()}:
            # A process with two drains is drained when both are, and draining as soon as one is.
            yield Observation(states.pop() if len(states) == 1 else DRAINING)

    def _rotation(self, _: CallbackOptions) -> Iterator[Observation]:
        if alive := self._alive():
            yield Observation(int(any(one.rotates for one in alive)))

    def _watch(self, _: CallbackOptions) -> Iterator[Observation]:
        seen: dict[str, int] = {}
        for one in self._alive():
            for name, each in one.watch.items():
                seen[name] = min(each, seen.get(name, each))
        for name, each in seen.items():
            yield Observation(each, {"drain.trigger": name})

    def _active(self, _: CallbackOptions) -> Iterator[Observation]:
        counts: Counter[str] = Counter()
        for one in self._alive():
            counts.update(one.open())
        for kind, count in counts.items():
            yield Observation(count, {"network.protocol.name": kind})

    def _handshakes(self, _: CallbackOptions) -> Iterator[Observation]:
        seen = [one.handshakes for one in self._alive() if one.handshakes is not None]
        for state, counts in zip(("limit", "in_progress", "held"), zip(*seen, strict=True), strict=False):
            yield Observation(sum(counts), {"drain.handshakes.state": state})

    def _remaining(self, _: CallbackOptions) -> Iterator[Observation]:
        if alive := self._alive():
            yield Observation(sum(one.open().total() for one in alive if one.state != SERVING))

    def _planned(self, _: CallbackOptions) -> Iterator[Observation]:
        if courses := [course for one in self._alive() if (course := one.course) is not None]:
            yield Observation(sum(each.planned() for each in courses))

    def _time_left(self, _: CallbackOptions) -> Iterator[Observation]:
        # With the mode, so that alarms can pass over what closes nothing.
        left: dict[str, float] = {}
        for one in self._alive():
            if (course := one.course) is not None and (one.state != DRAINED or one.open().total()):
                mode = one.mode()
                left[mode] = min(course.time_left(), left.get(mode, inf))
        for mode, seconds in left.items():
            yield Observation(seconds, {"drain.mode": mode})

    def _workers(self, _: CallbackOptions) -> Iterator[Observation]:
        if seen := [workers for one in self._alive() if (workers := one.workers) is not None]:
            active, silent = max(seen, key=lambda each: each[1])
            yield Observation(active, {"drain.worker.state": "active"})
            yield Observation(silent, {"drain.worker.state": "silent"})


_gauges: dict[int, _Gauges] = {}


def _gauges_of(provider: MeterProvider) -> _Gauges:
    # By identity: Logfire's provider is an unhashable dataclass, and two of them may be equal.
    key = id(provider)
    if key not in _gauges:
        _gauges[key] = _Gauges()
        finalize(provider, _gauges.pop, key, None).atexit = False
    return _gauges[key]


def _histogram(meter: Meter, name: str, description: str, bounds: tuple[float, ...]) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=bounds)
