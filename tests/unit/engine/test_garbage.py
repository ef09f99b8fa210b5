"""Full garbage collections in a storm of arrivals."""

import asyncio
import gc

import pytest

from starlette_drain import Drain
from starlette_drain._core.admission import QUIET, AdmissionPolicy
from starlette_drain._engine.admission import Admission
from starlette_drain._engine.garbage import LONGEST

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def thawed():
    """Begin and end with nothing frozen."""
    gc.unfreeze()
    yield
    gc.unfreeze()


class Door:
    """A limit of one, with a set-up in progress."""

    def __init__(self, **policy):
        self.admission = Admission(
            AdmissionPolicy(1, **policy), asyncio.get_running_loop(), lambda: True, lambda _: None
        )
        self.arrive()

    def arrive(self):
        """Let one arrive, and begin if it may; return whether it may."""
        may_begin = self.admission.enter()
        if may_begin:
            self.admission.begin(self)
        return may_begin


async def test_collections_pass_over_what_there_is_while_a_storm_lasts():
    """From the first that has to wait until none had to for a while; what comes meanwhile is passed over too."""
    door = Door()
    assert gc.get_freeze_count() == 0
    assert not door.arrive()
    before = gc.get_freeze_count()
    assert before > 0
    kept = [[] for _ in range(1000)]
    await asyncio.sleep(1.0)
    assert gc.get_freeze_count() >= before + len(kept) / 2
    await asyncio.sleep(QUIET)
    assert gc.get_freeze_count() == 0


async def test_a_storm_without_an_end_is_no_reason_to_keep_garbage():
    """After a minute collections see everything again, until the next storm."""
    door = Door()
    for _ in range(int(LONGEST)):
        door.arrive()
        await asyncio.sleep(1.0)
    await asyncio.sleep(1.0)
    assert door.admission._gate.is_storm
    assert gc.get_freeze_count() == 0


async def test_what_the_application_has_frozen_stays_frozen():
    """Python cannot tell whose it is."""
    gc.freeze()
    frozen = gc.get_freeze_count()
    door = Door()
    door.arrive()
    await asyncio.sleep(1.0)
    assert gc.get_freeze_count() <= frozen
    await asyncio.sleep(QUIET)
    assert gc.get_freeze_count() > 0


async def test_what_python_has_frozen_is_no_objection(monkeypatch):
    """3.12 begins with a few hundred objects."""
    frozen = []
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 375)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    Door().arrive()
    assert frozen == [True]


async def test_where_the_application_has_no_collector_nothing_is_frozen():
    """There is nothing to keep out."""
    gc.disable()
    try:
        Door().arrive()
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()


async def test_observing_freezes_nothing():
    """It only counts."""
    Door(observes=True).arrive()
    assert gc.get_freeze_count() == 0


async def test_the_end_of_the_application_thaws():
    """The process is left as it was, also if the application ends during a storm."""
    drain = Drain(triggers=[], observers=[], admission="1")
    async with drain.run():
        admission = drain.host.engine.admission
        assert admission.enter()
        assert not admission.enter()
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
