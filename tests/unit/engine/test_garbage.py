"""The garbage collector during a drain, and that everything is afterwards as the application had it."""

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_crowd import Guest

from starlette_drain import Drain
from starlette_drain._core.events import DrainCancelled, DrainFinished, DrainReplanned, DrainStarted
from starlette_drain._engine.garbage import Freeze

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def collector():
    """Leave the collector as it was."""
    is_enabled, thresholds = gc.isenabled(), gc.get_threshold()
    assert gc.get_freeze_count() == 0
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    if is_enabled:
        gc.enable()


def make(**options):
    """Return a running drain with one session."""
    drain = Drain(triggers=[], observers=[], **({"freeze_gc": True} | options))
    drain.equip(triggers=tuple, observers=tuple)
    drain.begin()
    drain.enter(Guest(drain))
    return drain


class Loop:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


def is_found(garbage):
    """Tell whether a full collection ends *garbage*."""
    gc.collect()
    return garbage() is None


async def test_by_default_nothing_is_frozen():
    """Nobody is surprised."""
    drain = make(freeze_gc=False)
    await drain.start(window=10)
    assert gc.get_freeze_count() == 0


async def test_what_was_there_is_passed_over_until_the_drain_is_over():
    """What comes during the drain is collected as ever, and what was there before is as soon as it is over."""
    drain = make()
    old = Loop()
    await drain.start(window=10)
    assert gc.get_freeze_count() > 0
    new, old = weakref.ref(Loop()), weakref.ref(old)
    assert is_found(new)
    assert not is_found(old)
    assert await drain.wait_drained()
    assert gc.get_freeze_count() == 0
    assert is_found(old)


@pytest.mark.parametrize("ending", ["cancel", "end"])
async def test_it_thaws_whatever_ends_the_drain(ending):
    """Cancelled, or the server stopped in its midst."""
    drain = make()
    await drain.start(window=10)
    await getattr(drain, ending)()
    assert gc.get_freeze_count() == 0


async def test_the_next_drain_freezes_again():
    """A drain that was cancelled is not the last."""
    drain = make()
    for _ in range(2):
        await drain.start(window=10)
        await drain.start(window=5)
        assert gc.get_freeze_count() > 0
        await drain.cancel()
        assert gc.get_freeze_count() == 0


async def test_late_arrivals_end_a_drain_twice():
    """The second end finds nothing to thaw: what the application has frozen since stays frozen."""
    drain = make(late_arrivals="accept")
    await drain.start(window=10)
    await drain.wait_drained()
    gc.freeze()
    drain.enter(Guest(drain))
    await asyncio.sleep(60)
    assert await drain.wait_drained()
    assert gc.get_freeze_count() > 0


async def test_objects_that_the_application_froze_stay_frozen():
    """As servers do before they fork; which of the frozen are ours could not be told."""
    young = Loop()
    gc.freeze()
    later = Loop()
    drain = make()
    await drain.start(window=10)
    later = weakref.ref(later)
    assert is_found(later)
    await drain.wait_drained()
    young = weakref.ref(young)
    assert not is_found(young)


async def test_a_collector_switched_off_stays_off():
    """And nothing is frozen, for nothing would be looked at."""
    gc.disable()
    drain = make()
    await drain.start(window=10)
    assert gc.get_freeze_count() == 0
    await drain.wait_drained()
    assert not gc.isenabled()


async def test_what_the_application_sets_meanwhile_stays_set():
    """Thresholds, and the switch."""
    drain = make()
    await drain.start(window=10)
    gc.set_threshold(5000, 20, 30)
    gc.disable()
    await drain.wait_drained()
    assert gc.get_threshold() == (5000, 20, 30)
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0


async def test_several_drains_share_one_collector():
    """The last to end thaws, whichever it is."""
    first, second = make(), make()
    await first.start(window=10)
    await second.start(window=100)
    await first.wait_drained()
    assert gc.get_freeze_count() > 0
    await second.cancel()
    assert gc.get_freeze_count() == 0


FACTS = {
    "start": DrainStarted(0.0, "d", None, 1.0, 1, ""),
    "join": DrainReplanned(0.0, "d", None, 1.0, False, 1, ""),
    "finish": DrainFinished(0.0, "d", None),
    "cancel": DrainCancelled(0.0, "d", None),
}


@given(
    owner=st.sampled_from(["nothing", "frozen", "off"]),
    events=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([*FACTS])), max_size=12),
)
@settings(max_examples=50, deadline=None)
def test_any_course_of_events_leaves_the_collector_as_it_was(owner, events):
    """Three drains begin and end as they like; it is frozen while one is under way, and never because of us after."""
    freezes, under_way = [Freeze() for _ in range(3)], set()
    try:
        if owner == "frozen":
            gc.freeze()
        elif owner == "off":
            gc.disable()
        before = gc.isenabled(), gc.get_threshold()
        for number, event in [*events, *((number, "finish") for number in range(3))]:
            freezes[number].notify(FACTS[event])
            with suppress(KeyError):
                {"start": under_way.add, "finish": under_way.discard, "cancel": under_way.discard}[event](number)
            assert (gc.get_freeze_count() > 0) is (owner == "frozen" or (owner == "nothing" and bool(under_way)))
            assert (gc.isenabled(), gc.get_threshold()) == before
    finally:
        gc.unfreeze()
        gc.enable()
