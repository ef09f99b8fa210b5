"""The promise of telemetry/logs.py: the story of a drain in sentences, at the level each deserves."""

import logging
from dataclasses import dataclass, replace

import pytest
from telemetry_samples import (
    CANCELLED,
    CANCELLED_LATER,
    JOINED,
    OFF,
    PACED,
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

from starlette_drain._core import events
from starlette_drain._core.events import (
    Event,
    RotationEnded,
    RotationProgressed,
    RotationStarted,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SessionShed,
    SignalReceived,
    TriggerActed,
    TriggerImpaired,
    TriggerPolled,
    TriggerRestored,
    TriggerStoodDown,
    WatchChanged,
    WatchReported,
    WindowTooLong,
    WorkersSeen,
)
from starlette_drain._core.session import Outcome
from starlette_drain.telemetry.logs import LogObserver

CAUSES = "target-health (the target is draining), sigterm (the process received SIGTERM)"
FIGURES = (
    f"Caused by {CAUSES}; detected at most 5.0 s late. Sessions: 1200 at the start, 4 arrived later, "
    "{shed} asked to leave (2 by force), 24 left on their own, {still_open} still open, "
    "7 late arrivals refused. Rate: 16/s at the peak, 11/s on average"
)

LINES = [
    (
        STARTED,
        "INFO",
        (
            "Drain d-1 starts, caused by target-health (the target is draining). Open sessions: 1200, to leave within "
            "280.0 s (evenly, 4.29 sessions/s)"
        ),
    ),
    (
        SHORTENED,
        "INFO",
        (
            "Drain d-1 gets an earlier deadline, caused by sigterm (the process received SIGTERM). Still to be asked "
            "to leave: 300, within 20.0 s (evenly, 15 sessions/s)"
        ),
    ),
    (
        JOINED,
        "INFO",
        (
            "Drain d-1 has another cause and keeps its deadline in 10.0 s: sigterm (the process received SIGTERM). "
            "Still to be asked to leave: 300 (evenly, 30 sessions/s)"
        ),
    ),
    (
        PACED,
        "INFO",
        "Drain d-1 changes its pace: paused, for at most 90 s: no other target is healthy",
    ),
    (PROGRESSED, "INFO", "Drain d-1 is 25% done. Asked to leave: 290, still to be asked: 900"),
    (
        finished(),
        "INFO",
        (
            "Drain d-1 is complete, 107.5 s after it started and 12.5 s before its deadline. "
            + FIGURES.format(shed=1180, still_open=0)
        ),
    ),
    (
        finished(slack=-1.5),
        "WARNING",
        (
            "Drain d-1 ended late, 121.5 s after it started and 1.5 s after its deadline. "
            + FIGURES.format(shed=1180, still_open=0)
        ),
    ),
    (
        finished(still_open=3),
        "WARNING",
        (
            "Drain d-1 ended with sessions still open, 107.5 s after it started and 12.5 s before its deadline. "
            + FIGURES.format(shed=1177, still_open=3)
        ),
    ),
    (
        CANCELLED,
        "INFO",
        (
            "Drain d-1 was cancelled, 107.5 s after it started and 12.5 s before its deadline. "
            + FIGURES.format(shed=580, still_open=600)
        ),
    ),
    (CANCELLED_LATER, "INFO", "Drain d-1, which had ended, was cancelled: the process serves again"),
    (
        WindowTooLong(0.0, window=400.0, fits=285.0, delay=300.0),
        "WARNING",
        (
            "The drain window of 400.0 s does not fit into the target group's deregistration delay of 300.0 s and is "
            "shortened to 285.0 s: the balancer would cut the sessions left after that. Remedy: raise "
            "deregistration_delay.timeout_seconds, lower the window (DRAIN_WINDOW), or set no window and let it follow "
            "the delay"
        ),
    ),
    (
        TriggerImpaired(0.0, "target-health", "no role was found", "give the task a task role."),
        "WARNING",
        "Trigger target-health does not work for now: no role was found. Remedy: give the task a task role",
    ),
    (
        TriggerActed(0.0, "self-registration", "registered 10.0.0.5 (8000) with the group web"),
        "INFO",
        "Trigger self-registration has registered 10.0.0.5 (8000) with the group web",
    ),
    (
        WorkersSeen(0.0, 2, (34,)),
        "WARNING",
        (
            "Worker 34 has not responded for 5 s or more: its event loop is blocked, or it was stopped. "
            "Remedy: py-spy dump --pid 34 shows where; if it stays blocked, kill -KILL 34 cuts its sessions now, and "
            "the other workers go on"
        ),
    ),
    (SignalReceived(0.0, "SIGTERM"), "DEBUG", "The process was told to stop by SIGTERM"),
    (TriggerRestored(0.0, "target-health", 10.0), "INFO", "Trigger target-health works again after 10.0 s"),
    (
        TriggerStoodDown(0.0, "sigterm", "the server is not uvicorn."),
        "DEBUG",
        "Trigger sigterm is off in this process: the server is not uvicorn",
    ),
    (WatchReported(0.0, "target-health", "watching", "a in b"), "DEBUG", "Trigger target-health watches a in b"),
    (
        WatchReported(0.0, "target-health", "not yet", "a in b", "it is not registered"),
        "DEBUG",
        "Trigger target-health does not yet see a in b: it is not registered",
    ),
    (
        WatchReported(0.0, "target-health", "blind", "a in b", "AWS throttles x."),
        "DEBUG",
        "Trigger target-health sees nothing of a in b: AWS throttles x",
    ),
    (
        WatchChanged(0.0, ("sigterm (in place)",), OFF, is_alarm=True),
        "WARNING",
        (
            "starlette_drain watches sigterm (in place); off here: target-health (this is not an ECS task), "
            "task-state (this is not an ECS task)"
        ),
    ),
    (
        WatchChanged(0.0, ("sigterm (in place)", "target-health (discovering)"), (), is_alarm=False),
        "INFO",
        "starlette_drain watches sigterm (in place), target-health (discovering)",
    ),
    (
        WatchChanged(0.0, ("sigterm (in place)",), OFF, is_alarm=False),
        "INFO",
        (
            "starlette_drain watches sigterm (in place); off here: target-health (this is not an ECS task), "
            "task-state (this is not an ECS task)"
        ),
    ),
    (
        WatchChanged(0.0, (), OFF, is_alarm=True),
        "WARNING",
        (
            "starlette_drain watches nothing, so a drain starts only by hand: target-health (this is not an ECS task), "
            "task-state (this is not an ECS task)"
        ),
    ),
    (
        WatchChanged(0.0, (), (), is_alarm=False),
        "INFO",
        "starlette_drain watches nothing, so a drain starts only by hand: it has no triggers",
    ),
    (
        RotationStarted(1100.0, ROTATION, 1200),
        "INFO",
        (
            "Rotation starts, caused by rotation (the DNS has changed). To be asked to leave: 1200, over 86400.0 s, "
            "while the process goes on serving"
        ),
    ),
    (
        RotationProgressed(0.0, "rotation", 25, asked=290, left=10, remaining=900),
        "INFO",
        "Rotation is 25% done. Asked to leave: 290, left on their own: 10, still to be asked: 900",
    ),
    (
        RotationEnded(0.0, "rotation", "cancelled", 500.0, asked=290, left=10, remaining=900),
        "INFO",
        "Rotation was cancelled after 500.0 s. Asked to leave: 290, left on their own: 10, not asked: 900",
    ),
    (
        TriggerPolled(0.0, "target-health", "healthy", 0.0042),
        "DEBUG",
        "Trigger target-health got the answer healthy after 0.004 s",
    ),
    (SessionOpened(0.0, session()), "DEBUG", "A websocket session opened on /ws"),
    (SessionShed(0.0, session()), "DEBUG", "The websocket session on /ws is asked to leave"),
    (
        SessionClosed(1060.0, session(), Outcome.FORCED),
        "DEBUG",
        "The websocket session on /ws ended after 60.0 s: forced",
    ),
    (
        STORM_BEGAN,
        "WARNING",
        ("More connections arrive than can be set up: 16 are in progress, the limit is 16; further ones are held"),
    ),
    (
        STORM_PROGRESSED,
        "DEBUG",
        "Connections still arrive: 20 are in progress, the limit is 20, 1500 wait",
    ),
    (
        STORM_ENDED,
        "INFO",
        (
            "The connections that arrived have been set up, 4.5 s after the first had to wait. Of 2700 2650 waited (at "
            "most 1900 at once, the longest for 4.2 s), 30 were refused and 2 left before their turn. Set-up: 99% "
            "within 0.052 s, 222/s; limit from 16 to 40; the event loop was 0.125 s late at worst"
        ),
    ),
    (
        SessionRefused(0.0, "websocket", "/ws\nERROR all is lost"),
        "DEBUG",
        r"A websocket session on /ws\nERROR all is lost arrived during the drain and was refused",
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


def test_a_silent_worker_is_told_of_once(caplog):
    """However often the others are counted meanwhile; and once more when it is heard of."""
    caplog.set_level(logging.INFO, "starlette_drain")
    observer = LogObserver()
    for workers, silent in ((3, ()), (3, (34,)), (2, (34,)), (2, ()), (2, ())):
        observer.notify(WorkersSeen(0.0, workers, silent))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[1].getMessage() == "Worker 34 responds again, or has ended"


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
        "drain_return_rate": 17,
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
    assert "Still to be asked to leave: 300" in caplog.records[1].getMessage()


def test_a_reason_of_several_lines_is_told_on_one(caplog):
    """Nobody forges a log line with the reason they give to POST /drain."""
    caplog.set_level(logging.DEBUG, "starlette_drain")
    LogObserver().notify(TriggerStoodDown(0.0, "sigterm", "first\nsecond\x1b[31m."))
    assert caplog.records[0].getMessage().endswith(r"process: first second\x1b[31m")


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
    assert caplog.records == []
