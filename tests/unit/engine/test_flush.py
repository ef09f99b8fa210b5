"""The flush before the end: in time, whatever the observers and the application's own threads do."""

import asyncio
import threading

import pytest

from starlette_drain import Drain
from starlette_drain._engine.flush import FLUSH_TIMEOUT
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio


@pytest.fixture
def release():
    """Return an event that lets the threads of a test go at its end."""
    release = threading.Event()
    yield release
    release.set()


async def test_an_observer_that_hangs_is_left_behind(release, caplog):
    """A flush that never ends holds up neither the end nor SIGTERM, takes its time once only, and is told of."""
    loop = asyncio.get_running_loop()

    class Hanging(RecordingObserver):
        def flush(self, timeout):
            super().flush(timeout)
            loop.call_soon_threadsafe(loop.let_time_pass)
            release.wait()

    hanging = Hanging()
    drain = Drain(triggers=[], observers=[hanging])
    began = loop.time()
    async with drain.run():
        await drain.start()
        await drain.host.control().flush()
        assert loop.time() - began == pytest.approx(FLUSH_TIMEOUT)
    assert loop.time() - began == pytest.approx(FLUSH_TIMEOUT)
    assert [record.getMessage() for record in caplog.records] == [
        "The observers did not flush within 5 s; some telemetry may be lost"
    ]
    (given,) = hanging.flushes
    assert given < FLUSH_TIMEOUT


async def test_the_flush_does_not_queue_behind_the_applications_own_threads(release):
    """With every thread of the default executor taken, the observers send at once."""
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, release.wait) for _ in range(100)]
    recording = RecordingObserver()
    drain = Drain(triggers=[], observers=[recording])
    drain.host.begin()
    await drain.host.control().flush()
    assert len(recording.flushes) == 1
    release.set()
    await asyncio.gather(*busy)
    await drain.host.end()


async def test_each_report_is_sent_once():
    """What SIGTERM has had sent is not sent again at the end; a drain that goes on after it is."""
    recording = RecordingObserver()
    drain = Drain(triggers=[], observers=[recording], late_arrivals="accept")
    async with drain.run():
        await drain.start()
        await drain.host.control().flush()
        assert len(recording.flushes) == 1
    assert len(recording.flushes) == 1
    async with drain.run():
        await drain.start()
    assert len(recording.flushes) == 2


async def test_an_observer_that_ends_the_program_ends_its_own_thread(caplog):
    """A SystemExit in the flush of an observer is its own; the drain and the others go on."""

    class Exiting(RecordingObserver):
        def flush(self, timeout):
            super().flush(timeout)
            raise SystemExit

    drain = Drain(triggers=[], observers=[observer := Exiting()])
    async with drain.run():
        await drain.start()
    assert len(observer.flushes) == 1
