"""One of each fact, for the tests of those who listen."""

from dataclasses import replace

from starlette_drain._core.admission import Storm
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainProgressed,
    DrainReplanned,
    DrainStarted,
    Event,
    PaceChanged,
    RotationEnded,
    RotationProgressed,
    RotationStarted,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SessionShed,
    SignalReceived,
    StormBegan,
    StormEnded,
    StormProgressed,
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
from starlette_drain._core.report import DrainReport
from starlette_drain._core.session import Outcome, Session
from starlette_drain._core.turnover import Rotation


class WebSocketLike(Session):
    """A session with the kind of a WebSocket."""

    kind = "websocket"


OFF = (("target-health", "this is not an ECS task."), ("task-state", "this is not an ECS task"))


def session(path: str = "/ws", opened_at: float = 1000.0) -> Session:
    """Make a session."""
    return WebSocketLike(path, opened_at)


HEALTH = DrainCause("target-health", "the target is draining.", at=2000.0, deadline=2280.0, lag=5.0)
SIGTERM = DrainCause("sigterm", "the process received SIGTERM", at=2100.0, deadline=2120.0, revocable=False)

STARTED = DrainStarted(2000.0, "d-1", HEALTH, 2280.0, 1200, "evenly, 4.29 sessions/s")
SHORTENED = DrainReplanned(
    2100.0, "d-1", SIGTERM, 2120.0, shortened=True, remaining=300, pacing="evenly, 15 sessions/s"
)
JOINED = DrainReplanned(2100.0, "d-1", SIGTERM, 2110.0, shortened=False, remaining=300, pacing="evenly, 30 sessions/s")
PACED = PaceChanged(2050.0, "d-1", "paused, for at most 90 s: no other target is healthy")
PROGRESSED = DrainProgressed(2070.0, "d-1", percent=25, shed=290, remaining=900)


def report(*, still_open: int = 0, slack: float = 12.5) -> DrainReport:
    """Make the report of a drain that two causes asked for."""
    return DrainReport(
        drain_id="d-1",
        causes=(HEALTH, SIGTERM),
        window=120.0,
        detection_lag=5.0,
        duration=120.0 - slack,
        sessions_at_start=1200,
        arrived=4,
        shed=1180 - still_open,
        left=24,
        refused=7,
        forced=2,
        still_open=still_open,
        peak_rate=16.0,
        mean_rate=10.98,
        outcome="incomplete" if still_open else "late" if slack < -1 else "drained",
        slack=slack,
        return_rate=17,
    )


def finished(*, still_open: int = 0, slack: float = 12.5) -> DrainFinished:
    """Make the end of a drain."""
    return DrainFinished(2107.5, "d-1", report(still_open=still_open, slack=slack))


ROTATION = Rotation(1100.0, 86400.0, reason="the DNS has changed.")

CANCELLED = DrainCancelled(2107.5, "d-1", replace(report(still_open=600), outcome="cancelled"))
CANCELLED_LATER = DrainCancelled(2207.5, "d-1", report())


def storm() -> Storm:
    """Make the figures of a storm."""
    figures = Storm(1100.0, 1104.5, 16, 40, 2700, 0, 2650, 30, 2, 1900, 4.25, 0.125)
    for _ in range(1000):
        figures.count(0.05)
    return figures


STORM_BEGAN = StormBegan(1100.0, 16, 16, observes_only=False)
STORM_PROGRESSED = StormProgressed(1101.0, 20, 20, 1500)
STORM_ENDED = StormEnded(1109.5, storm(), 40, observes_only=False)


def story() -> list[Event]:
    """Tell one fact of every type, in an order in which they may come."""
    one, two = session(), session()
    return [
        TriggerStoodDown(1000.0, "sigterm", "the server is not uvicorn."),
        WatchChanged(1000.1, ("sigterm (in place)",), OFF, is_alarm=False),
        WatchReported(1000.2, "target-health", "not yet", "10.0.0.5 (8000) in web", "the target is not registered"),
        WindowTooLong(1000.0, window=400.0, fits=280.0, delay=300.0),
        TriggerPolled(1001.0, "target-health", "healthy", 0.004),
        TriggerImpaired(1006.0, "target-health", "no credentials were found", "give the task a task role"),
        TriggerRestored(1016.0, "target-health", 10.0),
        TriggerActed(1017.0, "self-registration", "registered 10.0.0.5 (8000) with the group web"),
        WorkersSeen(1017.5, 2, (34,)),
        WorkersSeen(1017.8, 2, ()),
        SignalReceived(1018.0, "SIGTERM"),
        SessionOpened(1000.0, one),
        SessionOpened(1000.0, two),
        RotationStarted(1100.0, ROTATION, 2),
        RotationProgressed(1500.0, "rotation", 25, asked=1, left=0, remaining=1),
        RotationEnded(1600.0, "rotation", "cancelled", 500.0, asked=1, left=0, remaining=1),
        STORM_BEGAN,
        STORM_PROGRESSED,
        STORM_ENDED,
        STARTED,
        SessionRefused(2001.0, "websocket", "/ws"),
        SessionShed(2002.0, one),
        SessionClosed(2002.5, one, Outcome.SHED),
        PACED,
        PROGRESSED,
        SHORTENED,
        SessionClosed(2105.0, two, Outcome.LEFT),
        finished(),
        CANCELLED,
    ]
