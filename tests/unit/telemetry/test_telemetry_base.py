"""The promise of telemetry/base.py: whoever listens cannot hurt a drain. And of the observer that remembers."""

import logging

import pytest
from telemetry_samples import PROGRESSED, STARTED, story

from starlette_drain import Drain, SettingsError, telemetry
from starlette_drain._core import events
from starlette_drain._core.events import DrainFinished, DrainProgressed, DrainStarted, SessionClosed, SessionOpened
from starlette_drain.telemetry.base import Observer, Observers
from starlette_drain.telemetry.logs import LogObserver
from starlette_drain.telemetry.otel import OpenTelemetryObserver
from starlette_drain.testing.recording import RecordingObserver


class Broken:
    """An observer that can do nothing."""

    def __init__(self):
        self.heard = 0

    def notify(self, _):
        """Fail."""
        self.heard += 1
        msg = "the disk is full"
        raise OSError(msg)

    def flush(self, _):
        """Fail."""
        msg = "the collector is gone"
        raise OSError(msg)


def test_everyone_hears_everything_in_order():
    """Each observer hears each fact, whether it was there at first or added later."""
    first, second = RecordingObserver(), RecordingObserver()
    observers = Observers([first])
    observers.add(second)
    for event in story():
        observers.notify(event)
    assert [type(each) for each in story()] == [type(each) for each in first.events]
    assert first.events == second.events


def test_an_observer_that_raises_is_logged_once_and_dropped(caplog):
    """The others, before and after it, hear of that fact and of all that follow; it hears no more."""
    before, broken, after = RecordingObserver(), Broken(), RecordingObserver()
    observers = Observers([before, broken, after])
    observers.notify(STARTED)
    observers.notify(PROGRESSED)
    assert before.events == [STARTED, PROGRESSED]
    assert after.events == [STARTED, PROGRESSED]
    assert broken.heard == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the disk is full" in caplog.text


class Choosy(RecordingObserver):
    """An observer that hears what it wants."""

    def __init__(self, subscribes):
        super().__init__()
        self.subscribes = subscribes


@pytest.mark.parametrize("subscribes", [(DrainStarted,), [DrainStarted], DrainStarted, (DrainStarted, DrainFinished)])
def test_an_observer_hears_what_it_names(subscribes):
    """A tuple, a list, or one fact class alone will do."""
    choosy = Choosy(subscribes)
    observers = Observers([choosy])
    observers.notify(PROGRESSED)
    observers.notify(STARTED)
    assert choosy.events == [STARTED]


@pytest.mark.parametrize("subscribes", [None, "DrainStarted", ("DrainStarted",), [object], 5])
def test_what_an_observer_cannot_hear_is_refused_at_once(subscribes):
    """Whoever would fail at the first fact of a drain is named before there is one."""
    with pytest.raises(SettingsError, match=r"Choosy\.subscribes=.* give a tuple of event classes"):
        Observers([Choosy(subscribes)])
    with pytest.raises(SettingsError, match="subscribes"):
        Observers().add(Choosy(subscribes))
    with pytest.raises(SettingsError, match="subscribes"):
        Drain(triggers=[], observers=[Choosy(subscribes)])


def test_a_flush_that_fails_is_logged_and_the_others_are_flushed(caplog):
    """Every observer is given the time limit, also when the one before it failed."""
    after = RecordingObserver()
    Observers([Broken(), after]).flush(2.5)
    assert after.flushes == [2.5]
    assert "the collector is gone" in caplog.text


class Minimal:
    """An observer that holds nothing back."""

    def __init__(self):
        self.events = []

    def notify(self, event):
        """Take note."""
        self.events.append(event)


def test_an_observer_needs_no_flush(caplog):
    """Only observers that define `flush` are flushed; for the others nothing is called and nothing is logged."""
    minimal, after = Minimal(), RecordingObserver()
    observers = Observers([minimal, after])
    observers.notify(STARTED)
    observers.flush(2.5)
    assert isinstance(minimal, Observer)
    assert minimal.events == [STARTED]
    assert after.flushes == [2.5]
    assert caplog.records == []


def test_what_we_ship_keeps_the_contract():
    """Our own observers are observers."""
    assert all(isinstance(each, Observer) for each in (LogObserver(), OpenTelemetryObserver(), RecordingObserver()))


def test_a_recording_can_be_asked_for_one_type_and_cleared():
    """`of` picks the facts of one type; `clear` forgets facts and flushes."""
    recording = RecordingObserver()
    for event in (STARTED, PROGRESSED, PROGRESSED):
        recording.notify(event)
    recording.flush(1.0)
    assert recording.of(DrainStarted) == [STARTED]
    assert recording.of(DrainProgressed) == [PROGRESSED, PROGRESSED]
    recording.clear()
    assert (recording.events, recording.flushes) == ([], [])


def test_every_fact_can_be_imported_where_observers_are_written():
    """`starlette_drain.telemetry` names every fact there is, and the contract."""
    assert sorted([*events.__all__, "Observer"]) == telemetry.__all__


# --- Whether an event is worth making ---


def test_an_event_is_worth_making_where_an_observer_is_interested():
    """All who subscribe are asked each time; one without an opinion of its own wants everything it subscribes to."""

    class Fickle(RecordingObserver):
        subscribes = (SessionOpened,)
        asked = 0
        wants_it = False

        def interest(self, kind):
            self.asked += 1
            assert kind is SessionOpened
            return lambda: self.wants_it

    fickle = Fickle()
    observers = Observers([fickle])
    assert not observers.wants(SessionOpened)
    assert not observers.wants(SessionClosed)
    fickle.wants_it = True
    assert observers.wants(SessionOpened)
    assert fickle.asked == 1
    fickle.wants_it = False
    observers.add(RecordingObserver())
    assert observers.wants(SessionOpened)
    assert observers.wants(SessionClosed)


def test_the_log_is_interested_in_single_sessions_at_debug_only(caplog):
    """A level that is set while the application runs counts from then on."""
    logger = logging.getLogger("starlette_drain.test_interest")
    observers = Observers([LogObserver(logger)])
    for level, wanted in ((logging.INFO, False), (logging.DEBUG, True), (logging.WARNING, False)):
        caplog.set_level(level, logger.name)
        assert observers.wants(SessionOpened) is wanted


def test_opentelemetry_is_interested_where_an_sdk_is_set():
    """The API's own instruments do nothing with an event, so none is made for them."""
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415

    for observer, wanted in (
        (OpenTelemetryObserver(), False),
        (OpenTelemetryObserver(meter_provider=MeterProvider()), True),
    ):
        assert Observers([observer]).wants(SessionClosed) is wanted
        assert not Observers([observer]).wants(SessionOpened)


def test_an_interest_that_fails_is_logged_once_and_means_yes(caplog):
    """No session fails because an observer cannot say what it wants."""

    class Undecided(RecordingObserver):
        def interest(self, _kind):
            def fail():
                msg = "it depends"
                raise ValueError(msg)

            return fail

    observers = Observers([Undecided()])
    assert [observers.wants(SessionOpened) for _ in range(3)] == [True, True, True]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
