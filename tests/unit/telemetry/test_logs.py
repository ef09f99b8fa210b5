"""The promise of telemetry/logs.py: the story of a drain in sentences, at the level each deserves."""

import logging
from dataclasses import dataclass, replace

import pytest
from telemetry_samples import CANCELLED, JOINED, PACED, PROGRESSED, SHORTENED, STARTED, finished, session, story

from starlette_drain._core import events
from starlette_drain._core.events import (
    Event,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SessionShed,
    TriggerActed,
    TriggerImpaired,
    TriggerPolled,
    TriggerRestored,
    TriggerStoodDown,
    WindowTooLong,
)
from starlette_drain._core.session import Outcome
from starlette_drain.telemetry.logs import LogObserver

CAUSES = "target-health says: the target is draining; sigterm says: the process received SIGTERM"
FIGURES = (
    f"Because {CAUSES}; noticed at most 5.0 s late. Of 1200 sessions at the start and 4 that came later, "
    "{shed} were asked to leave (2 by force), 24 left by themselves and {still_open} are still open; "
    "7 late arrivals were refused. Asked in the busiest second: 16; on average: 11 a second"
)

LINES = [
    (
        STARTED,
        "INFO",
        (
            "Drain d-1 begins, because target-health says: the target is draining. 1200 sessions are open and have "
            "280.0 s to leave: evenly, 4.29 sessions/s"
        ),
    ),
    (
        SHORTENED,
        "INFO",
        (
            "Drain d-1 must end sooner, because sigterm says: the process received SIGTERM. 300 sessions wait to be "
            "asked to leave and 20.0 s are left: evenly, 15 sessions/s"
        ),
    ),
    (
        JOINED,
        "INFO",
        (
            "Drain d-1 has one more cause, and keeps its deadline in 10.0 s: sigterm says: the process received "
            "SIGTERM. 300 sessions wait to be asked to leave: evenly, 30 sessions/s"
        ),
    ),
    (
        PACED,
        "INFO",
        "Drain d-1 changes its pace: paused, for 90 s at the most: no other target is healthy",
    ),
    (PROGRESSED, "INFO", "Drain d-1 is 25% done: 290 sessions were asked to leave, 900 wait to be asked"),
    (
        finished(),
        "INFO",
        (
            "Drain d-1 is over, 107.5 s after it began and 12.5 s before its deadline. "
            + FIGURES.format(shed=1180, still_open=0)
        ),
    ),
    (
        finished(slack=-1.5),
        "WARNING",
        (
            "Drain d-1 missed its deadline, 121.5 s after it began and 1.5 s after its deadline. "
            + FIGURES.format(shed=1180, still_open=0)
        ),
    ),
    (
        finished(still_open=3),
        "WARNING",
        (
            "Drain d-1 ended with sessions still open, 107.5 s after it began and 12.5 s before its deadline. "
            + FIGURES.format(shed=1177, still_open=3)
        ),
    ),
    (
        CANCELLED,
        "INFO",
        (
            "Drain d-1 was cancelled, 107.5 s after it began and 12.5 s before its deadline. "
            + FIGURES.format(shed=580, still_open=600)
        ),
    ),
    (
        WindowTooLong(0.0, window=400.0, fits=285.0, delay=300.0),
        "WARNING",
        (
            "The drain window of 400.0 s does not fit under the target group's deregistration delay of 300.0 s and is "
            "shortened to 285.0 s: the balancer would cut the rest. Remedy: raise deregistration_delay.timeout_seconds"
            ", or lower the window (DRAIN_WINDOW), or set none and let it follow the delay"
        ),
    ),
    (
        TriggerImpaired(0.0, "target-health", "no role was found", "give the task a task role."),
        "WARNING",
        "Trigger target-health cannot do its work for now: no role was found. Remedy: give the task a task role",
    ),
    (
        TriggerActed(0.0, "self-registration", "registered 10.0.0.5 (8000) with the group web"),
        "INFO",
        "Trigger self-registration has registered 10.0.0.5 (8000) with the group web",
    ),
    (TriggerRestored(0.0, "target-health", 10.0), "INFO", "Trigger target-health works again, after 10.0 s"),
    (
        TriggerStoodDown(0.0, "sigterm", "the server is not uvicorn."),
        "INFO",
        "Trigger sigterm has nothing to do in this process: the server is not uvicorn",
    ),
    (
        TriggerPolled(0.0, "target-health", "healthy", 0.0042),
        "DEBUG",
        "Trigger target-health got the answer healthy after 0.004 s",
    ),
    (SessionOpened(0.0, session()), "DEBUG", "A websocket session opened on '/ws'"),
    (SessionShed(0.0, session()), "DEBUG", "The websocket session on '/ws' is asked to leave"),
    (
        SessionClosed(1060.0, session(), Outcome.FORCED),
        "DEBUG",
        "The websocket session on '/ws' is over after 60.0 s: forced",
    ),
    (
        SessionRefused(0.0, "websocket", "/ws\nERROR all is lost"),
        "DEBUG",
        r"A websocket session on '/ws\nERROR all is lost' came too late and was refused",
    ),
]


@pytest.mark.parametrize(("event", "level", "sentence"), LINES, ids=lambda each: type(each).__name__)
def test_each_fact_is_one_line(caplog, event, level, sentence):
    """Each fact makes one sentence, at one level."""
    caplog.set_level(logging.DEBUG, "starlette_drain")
    LogObserver().notify(event)
    assert [("starlette_drain", level, sentence)] == [
        (record.name, record.levelname, record.getMessage()) for record in caplog.records
    ]


def test_every_fact_there_is_has_a_line():
    """A new fact needs a line, or the decision that it has none: this test is where to say so."""
    told = {type(event).__name__ for event, _, _ in LINES}
    assert told == {type(event).__name__ for event in story()} == set(events.__all__) - {"Event"}


def test_the_figures_are_fields_of_the_record(caplog):
    """Whoever collects logs as JSON gets numbers, not sentences."""
    caplog.set_level(logging.INFO, "starlette_drain")
    LogObserver().notify(finished())
    (record,) = caplog.records
    assert {name: value for name, value in vars(record).items() if name.startswith("drain_")} == {
        "drain_id": "d-1",
        "drain_outcome": "drained",
        "drain_trigger": "target-health",
        "drain_causes": CAUSES,
        "drain_window": 120.0,
        "drain_detection_lag": 5.0,
        "drain_duration": 107.5,
        "drain_sessions_at_start": 1200,
        "drain_arrived": 4,
        "drain_shed": 1180,
        "drain_left": 24,
        "drain_refused": 7,
        "drain_forced": 2,
        "drain_still_open": 0,
        "drain_peak_rate": 16.0,
        "drain_mean_rate": 10.98,
        "drain_slack": 12.5,
    }


def test_no_line_for_each_session_above_debug(caplog):
    """Thousands of sessions are silent at INFO."""
    caplog.set_level(logging.INFO, "starlette_drain")
    observer = LogObserver()
    for _ in range(1000):
        one = session()
        for event in (SessionOpened(1.0, one), SessionShed(2.0, one), SessionClosed(3.0, one, Outcome.SHED)):
            observer.notify(event)
        observer.notify(SessionRefused(3.0, "websocket", "/ws"))
    assert caplog.records == []


def test_a_drain_that_is_over_again_is_quiet_unless_something_is_wrong(caplog):
    """Late arrivals that are let in make a drain end many times; only the first good end is told at INFO."""
    caplog.set_level(logging.DEBUG, "starlette_drain")
    observer = LogObserver()
    for event in (finished(slack=-0.5), finished(), finished(still_open=1)):
        observer.notify(event)
    assert [record.levelname for record in caplog.records] == ["INFO", "DEBUG", "WARNING"]


def test_a_cause_that_comes_when_all_is_over_is_quiet(caplog):
    """After the line of the end, SIGTERM of an ordinary deployment is no news; with somebody left it is."""
    caplog.set_level(logging.INFO, "starlette_drain")
    observer = LogObserver()
    for event in (finished(), replace(SHORTENED, remaining=0), SHORTENED):
        observer.notify(event)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert "300 sessions wait" in caplog.records[1].getMessage()


def test_a_reason_of_several_lines_is_told_on_one(caplog):
    """Nobody forges a log line with the reason they give to POST /drain."""
    caplog.set_level(logging.INFO, "starlette_drain")
    LogObserver().notify(TriggerStoodDown(0.0, "sigterm", "first\nsecond."))
    assert caplog.records[0].getMessage().endswith("process: first second")


def test_another_logger_can_be_given(caplog):
    """The lines go where the application wants them."""
    caplog.set_level(logging.INFO, "mine")
    LogObserver(logging.getLogger("mine")).notify(STARTED)
    assert [record.name for record in caplog.records] == ["mine"]


@dataclass(frozen=True, slots=True)
class Unheard(Event):
    """A fact of a later version, or of somebody else's trigger."""


def test_an_unknown_fact_is_ignored(caplog):
    """New facts do not break old observers."""
    caplog.set_level(logging.DEBUG, "starlette_drain")
    observer = LogObserver()
    observer.notify(Unheard(0.0))
    observer.flush(1.0)
    assert caplog.records == []
