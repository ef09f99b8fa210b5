"""What the documentation shows, works as shown."""

import ast
import asyncio
import io
import json
import signal
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from doc_examples import PAGES, examples, run
from starlette.testclient import TestClient

from starlette_drain import Drain, DrainState, Observer, Pacing, Session, Trigger
from starlette_drain.telemetry import TriggerImpaired, TriggerRestored
from starlette_drain.testing import RecordingObserver, VirtualTimeLoop

TRIGGER = "A trigger: a pod of Kubernetes"
PACE = "A pacing strategy: fast first"
LISTENER = "An observer: lines of JSON"


class Guest(Session):
    """A session that leaves soon after it was asked to."""

    __slots__ = ("drain",)

    def __init__(self, drain):
        super().__init__("/", drain.host.engine.time())
        self.drain = drain

    def begin_close(self, policy):  # noqa: ARG002
        """Leave as the loop comes round."""
        asyncio.get_running_loop().call_soon(lambda: self.drain.host.engine.closed(self, forced=False))


def in_virtual_time(coroutine):
    """Run *coroutine* on a loop whose clock jumps."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


@pytest.mark.parametrize("page", PAGES)
def test_python_on_every_page_parses(page):
    """No reader copies a syntax error from the documentation."""
    for source in examples(page).values():
        ast.parse(source)


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page in ("README.md", "docs/index.md") for name in examples(page)]
)
def test_front_pages_run(page, name, monkeypatch):
    """The one line, and the little more, are complete as they stand."""
    assert run(page, name, monkeypatch).app


def test_endpoint_test_passes(monkeypatch):
    """The test that we recommend for an endpoint passes."""
    module = run("docs/testing-your-app.md", "Does my endpoint leave well?", monkeypatch)
    module.test_every_session_gets_a_goodbye_and_a_close()


def test_the_day_without_real_time_passes(monkeypatch):
    """The test that we show for a trigger passes, long before its day would have."""
    run("docs/testing-your-app.md", "Without real time", monkeypatch).test_a_process_drains_after_a_day()


@pytest.fixture
def pod(monkeypatch):
    """Run the example of a trigger, in a pod that is deleted at the third look; the first look fails."""
    module = run("docs/extending.md", TRIGGER, monkeypatch)
    module.looks = []

    async def read_pod():
        module.looks.append(None)
        if len(module.looks) == 1:
            raise ConnectionRefusedError
        leaving = {"deletionTimestamp": (datetime.now(UTC) + timedelta(seconds=300)).isoformat()}
        return {"metadata": leaving if len(module.looks) > 2 else {}}

    module.pod.read_pod = read_pod
    return module


@pytest.fixture
def server():
    """Be told of SIGTERM in the place of a server."""
    heard = []
    former = signal.signal(signal.SIGTERM, lambda *_: heard.append(asyncio.get_running_loop().time()))
    yield heard
    signal.signal(signal.SIGTERM, former)


def test_new_trigger_fires_with_the_deadline_of_its_source(pod, server):
    """The pod's trigger looks until the pod is to go, and the last session leaves before the preStop hook ends."""
    recording = RecordingObserver()

    async def play():
        pod.drain.host.equip(list, lambda: [recording])
        async with pod.drain.run():
            pod.drain.host.engine.track(Guest(pod.drain))
            await pod.drain.wait_drained()

    in_virtual_time(play())
    assert isinstance(pod.pod, Trigger)
    assert len(pod.looks) == 3
    report = pod.drain.report
    assert [(cause.trigger, cause.revocable) for cause in report.causes] == [("pod", False)]
    assert report.window == pytest.approx(270 - pod.drain.settings.margin, abs=1)
    told = [type(event) for event in recording.events if "Trigger" in type(event).__name__]
    assert told == [TriggerImpaired, TriggerRestored]


def test_new_trigger_goes_with_sigterm_outside_ecs(pod, server):
    """The server gets SIGTERM only when the sessions have gone, although this is no task of ECS."""

    async def play():
        async with pod.drain.run():
            guests = [Guest(pod.drain) for _ in range(100)]
            for guest in guests:
                pod.drain.host.engine.track(guest)
            await asyncio.sleep(140)
            asked, shed = pod.drain.host.engine.time(), pod.drain.progress().shed
            signal.raise_signal(signal.SIGTERM)
            await pod.drain.wait_drained()
            await asyncio.sleep(1)
        return asked, shed

    asked, shed = in_virtual_time(play())
    assert 40 < shed < 60
    assert pod.drain.report.still_open == 0
    assert server == [pytest.approx(asked + pod.drain.settings.sigterm_window, abs=1)]
    assert [cause.trigger for cause in pod.drain.report.causes] == ["pod", "sigterm"]


def test_new_pace_sheds_early_and_meets_the_deadline(monkeypatch):
    """With the falling pace three of four sessions are gone at half time, and all at the deadline."""
    module = run("docs/extending.md", PACE, monkeypatch)
    assert isinstance(module.FallingPacing(), Pacing)

    async def play():
        drain = Drain(triggers=[], observers=[], pacing=module.FallingPacing(), rng=Random(7))
        async with drain.run():
            for _ in range(400):
                drain.host.engine.track(Guest(drain))
            await drain.start(window=100)
            await asyncio.sleep(50)
            left_at_half_time = drain.statistics().open
            await drain.wait_drained()
        return left_at_half_time, drain.report

    left_at_half_time, report = in_virtual_time(play())
    assert left_at_half_time == pytest.approx(100, abs=5)
    assert (report.shed, report.still_open) == (400, 0)
    assert report.slack >= 0


def test_new_listener_writes_the_course_of_a_drain(monkeypatch):
    """The lines of JSON tell the course and the report, and nothing of single sessions."""
    module = run("docs/extending.md", LISTENER, monkeypatch)
    stream = io.StringIO()
    observer = module.JsonLines(stream)
    assert isinstance(observer, Observer)

    async def play():
        drain = Drain(triggers=[], observers=[observer])
        async with drain.run():
            drain.host.engine.track(Guest(drain))
            await drain.start(window=10)
            await drain.wait_drained()
        return drain

    drain = in_virtual_time(play())
    assert drain.state is DrainState.DRAINED
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["DrainStarted", "DrainProgressed", "DrainFinished"]
    assert lines[-1]["report"]["shed"] == 1


def test_tutorial_application_drains(monkeypatch):
    """The application of the tutorial closes its sessions with 1012 when a drain starts."""
    module = run("docs/tutorial.md", "3. One by one", monkeypatch)
    with TestClient(module.app) as client, client.websocket_connect("/ws") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"
        assert client.portal is not None
        client.portal.call(lambda: module.app.state.drain.start(window=1))
        assert websocket.receive()["code"] == 1012


@pytest.mark.parametrize(
    ("page", "name"),
    [
        *(("docs/tutorial.md", name) for name in examples("docs/tutorial.md")),
        *(("docs/clients.md", name) for name in examples("docs/clients.md")),
    ],
)
def test_tutorial_and_clients_load(page, name, monkeypatch):
    """What a reader copies from these pages imports what exists and starts."""
    assert run(page, name, monkeypatch)
