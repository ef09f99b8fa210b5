"""What the documentation shows, works as shown."""

import ast
import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from doc_examples import PAGES, examples, run
from virtual_time import VirtualTimeLoop

from starlette_drain import Drain, DrainState, Observer, Pacing, Session, Trigger

TRIGGER = "A trigger: a pod of Kubernetes"
PACE = "A pace: fast first"
LISTENER = "A listener: lines of JSON"


class Guest(Session):
    """A session that leaves soon after it was asked to."""

    __slots__ = ("drain",)

    def __init__(self, drain):
        super().__init__("/", drain.time())
        self.drain = drain

    def leave(self, goodbye):  # noqa: ARG002
        """Leave as the loop comes round."""
        asyncio.get_running_loop().call_soon(lambda: self.drain.closed(self, forced=False))


def in_virtual_time(coroutine):
    """Run *coroutine* on a loop whose clock jumps."""
    # Not by asyncio.Runner: from Python 3.12 on its end gives threads 300 s, which a jumping clock takes for over.
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


@pytest.mark.parametrize("page", PAGES)
def test_python_on_every_page_parses(page):
    """Nobody copies a syntax error from the documentation."""
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
    module.test_every_session_hears_a_farewell_and_a_close()


def test_new_trigger_fires_with_the_deadline_of_its_source(monkeypatch):
    """The pod's trigger looks until the pod is to go, and leaves the margin before it is killed."""
    module = run("docs/extending.md", TRIGGER, monkeypatch)
    assert isinstance(module.drain, Drain)
    looks = []

    async def read_pod():
        looks.append(None)
        if len(looks) == 1:
            raise ConnectionRefusedError
        leaving = {"deletionTimestamp": (datetime.now(UTC) + timedelta(seconds=300)).isoformat()}
        return {"metadata": leaving if len(looks) > 2 else {}}

    async def play():
        trigger = module.PodTrigger(read_pod)
        drain = Drain(triggers=[trigger], observers=[])
        async with drain.run():
            drain.enter(Guest(drain))
            await drain.wait_drained()
        return trigger, drain

    trigger, drain = in_virtual_time(play())
    assert isinstance(trigger, Trigger)
    assert len(looks) == 3
    assert drain.report.causes[0].trigger == "pod"
    assert not drain.report.causes[0].revocable
    assert drain.report.window == pytest.approx(300 - drain.settings.margin, abs=1)


def test_new_pace_sheds_early_and_meets_the_deadline(monkeypatch):
    """With the falling pace three of four sessions are gone at half time, and all at the deadline."""
    module = run("docs/extending.md", PACE, monkeypatch)
    assert isinstance(module.FallingPacing(), Pacing)

    async def play():
        drain = Drain(triggers=[], observers=[], pacing=module.FallingPacing(), rng=Random(7))
        async with drain.run():
            for _ in range(400):
                drain.enter(Guest(drain))
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
            drain.enter(Guest(drain))
            await drain.start(window=10)
            await drain.wait_drained()
        return drain

    drain = in_virtual_time(play())
    assert drain.state is DrainState.DRAINED
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["fact"] for line in lines] == ["DrainStarted", "DrainProgressed", "DrainFinished"]
    assert lines[-1]["report"]["shed"] == 1
