"""``mode="observe"``: the drain decides, and says what it would close, and closes nothing."""

import asyncio
import logging
import signal

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from starlette_drain import Drain, DrainState, Session
from starlette_drain._core.events import DrainFinished, DrainProgressed, DrainStarted, SessionShed, TriggerStoodDown
from starlette_drain.telemetry.logs import LogObserver
from starlette_drain.telemetry.otel import OpenTelemetryObserver
from starlette_drain.testing import RecordingObserver
from starlette_drain.triggers.sigterm import SigtermTrigger

pytestmark = pytest.mark.anyio


class Stayer(Session):
    """A session that must not be closed."""

    __slots__ = ()

    def begin_close(self, _policy):
        """Fail."""
        pytest.fail("an observed drain has closed a session")


def seat(drain, count):
    """Open *count* sessions."""
    sessions = [Stayer("/", drain.host.engine.time()) for _ in range(count)]
    for each in sessions:
        drain.host.engine.track(each)
        drain.host.engine.opened(each)
    return sessions


async def test_it_plays_the_whole_drain_and_closes_nothing():
    """It begins, passes its milestones and ends as a drain would; every session is still open and unmarked."""
    recording = RecordingObserver()
    drain = Drain(mode="observe", triggers=[], observers=[recording])
    async with drain.run():
        sessions = seat(drain, 20)
        await drain.start(window=60)
        assert drain.state is DrainState.DRAINING
        assert await drain.wait_drained()
        assert drain.statistics().open == 20
        assert [each.shed_at for each in sessions] == [None] * 20
    assert len(recording.of(DrainStarted)) == len(recording.of(DrainFinished)) == 1
    assert [each.percent for each in recording.of(DrainProgressed)] == [25, 50, 75]
    assert recording.of(SessionShed) == []
    assert drain.report.shed == 20
    assert drain.report.outcome == "drained"
    assert 55 < drain.report.duration < 75


async def test_arrivals_are_welcome_and_the_next_drain_counts_them_too():
    """It sends no client away, and a further drain finds all sessions where they were."""
    drain = Drain(mode="observe", triggers=[], observers=[])
    async with drain.run():
        seat(drain, 3)
        await drain.start(window=10)
        assert drain.host.engine.admits()
        assert not drain.host.engine.sends_away
        seat(drain, 2)
        assert await drain.wait_drained()
        await drain.cancel()
        await drain.start(window=10)
        assert await drain.wait_drained()
    assert drain.report.sessions_at_start == 5
    assert drain.statistics().open == 5


@pytest.mark.parametrize("mode", ["drain", "observe"])
async def test_the_metrics_tell_whether_a_drain_closes_anything(mode):
    """So that no alarm asks for a deployment to be stopped that goes as it would without us."""
    reader = InMemoryMetricReader()
    observer = OpenTelemetryObserver(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    drain = Drain(mode=mode, triggers=[], observers=[observer])
    async with drain.run():
        seat(drain, 1)
        await drain.start(window=60)
        metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    (time_left,) = (each for each in metrics if each.name == "drain.time_left")
    assert [dict(point.attributes) for point in time_left.data.data_points] == [{"drain.mode": mode}]


async def test_sigterm_is_not_held():
    """The signal reaches the server at once: nothing is delayed for a drain that closes nothing."""
    recording = RecordingObserver()
    before = signal.getsignal(signal.SIGTERM)
    drain = Drain(mode="observe", triggers=[SigtermTrigger()], observers=[recording], sigterm=True)
    async with drain.run():
        await asyncio.sleep(0.1)
        assert signal.getsignal(signal.SIGTERM) is before
    (off,) = recording.of(TriggerStoodDown)
    assert "observe" in off.why


async def test_the_log_says_that_nothing_is_closed(caplog):
    """Each line of the drain says so, and no line of anything else."""
    caplog.set_level(logging.INFO, "starlette_drain")
    drain = Drain(mode="observe", triggers=[], observers=[LogObserver(observes_only=True)])
    async with drain.run():
        seat(drain, 4)
        await drain.start(window=10)
        await drain.wait_drained()
    lines = [record.getMessage() for record in caplog.records if "Drain " in record.getMessage()]
    assert len(lines) >= 3
    assert all(line.startswith("Dry run, no session is closed: Drain ") for line in lines)
