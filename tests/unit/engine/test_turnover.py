"""Sessions that have lived long enough move on, one by one, and never in a burst."""

import asyncio
import gc
import weakref
from random import Random

import pytest
from guests import Guest

from starlette_drain import Drain
from starlette_drain._core.events import SessionShed
from starlette_drain._core.turnover import LAST_PART
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio

AGE = 1000.0


class Referable(Guest):
    """A guest that can be referred to weakly."""

    __slots__ = ("__weakref__",)


class House:
    """A drain whose sessions age."""

    def __init__(self, **options) -> None:
        self.recording = RecordingObserver()
        options = {"max_session_age": AGE} | options
        self.drain = Drain(triggers=[], observers=[self.recording], rng=Random(7), **options)
        self.drain.host.equip(triggers=tuple, observers=tuple)
        self.drain.host.begin()
        self.began = self.drain.host.engine.time()

    def seat(self, count: int):
        """Open *count* sessions."""
        guests = [Referable(self.drain) for _ in range(count)]
        for guest in guests:
            self.drain.host.engine.track(guest)
            self.drain.host.engine.opened(guest)
        return guests

    def sheds(self):
        """Return when sessions were asked to leave, in seconds since the beginning."""
        return [event.at - self.began for event in self.recording.of(SessionShed)]


async def test_each_leaves_at_the_age_or_up_to_a_fifth_earlier():
    """Those who came together leave over a fifth of the age, without a drain."""
    house = House()
    house.seat(400)
    await asyncio.sleep(AGE + 1)
    sheds = house.sheds()
    assert len(sheds) == 400
    assert (1 - LAST_PART) * AGE <= min(sheds) <= 0.81 * AGE
    assert 0.99 * AGE <= max(sheds) <= AGE
    tenth = [sum((0.8 + part * 0.02) * AGE <= at < (0.82 + part * 0.02) * AGE for at in sheds) for part in range(10)]
    assert max(tenth) <= 43
    assert min(tenth) >= 37
    assert house.drain.report is None


async def test_whoever_is_moved_comes_back_after_the_usual_delay():
    """There is room elsewhere: the client is told ``retry_after`` and no more."""
    house = House()
    (guest,) = house.seat(1)
    await asyncio.sleep(AGE)
    assert guest.reconnect_after == house.drain.settings.retry_after


async def test_a_held_session_is_asked_later():
    """``hold`` means not now for ageing too; the moment comes again."""
    house = House()
    (guest,) = house.seat(1)
    house.drain.host.engine.hold(guest)
    await asyncio.sleep(3 * AGE)
    assert house.sheds() == []
    house.drain.host.engine.release(guest)
    await asyncio.sleep(LAST_PART * AGE)
    assert len(house.sheds()) == 1


async def test_a_cancelled_drain_is_not_followed_by_a_burst():
    """Those whose time came during the drain get a new moment, spread like the first."""
    house = House()
    guests = house.seat(300)
    for guest in guests:
        house.drain.host.engine.hold(guest)  # so that the drain takes nobody
    await asyncio.sleep(0.7 * AGE)
    await house.drain.start(window=3000)
    await asyncio.sleep(0.4 * AGE)
    assert house.sheds() == []
    for guest in guests:
        house.drain.host.engine.release(guest)
    await house.drain.cancel()
    back = house.drain.host.engine.time() - house.began
    await asyncio.sleep(LAST_PART * AGE + 1)

    sheds = house.sheds()
    assert len(sheds) == 300
    tenths = [sum(back + part * 20 <= at < back + (part + 1) * 20 for at in sheds) for part in range(10)]
    assert max(tenths) <= 0.12 * 300


async def test_during_a_drain_ageing_asks_nobody():
    """The plan of the drain alone decides who leaves when."""
    house = House()
    house.seat(100)
    await asyncio.sleep(0.79 * AGE)
    await house.drain.start(window=1000)
    await asyncio.sleep(0.25 * AGE)
    assert 22 <= len(house.sheds()) <= 28


async def test_a_session_that_has_gone_is_not_remembered():
    """Short sessions do not pile up until the birthday that they will not see."""
    house = House()
    guests = house.seat(100)
    traces = [weakref.ref(guest) for guest in guests]
    for guest in guests:
        house.drain.host.engine.closed(guest, forced=False)
    house.recording.events.clear()
    del guests, guest
    gc.collect()
    assert [trace for trace in traces if trace() is not None] == []


async def test_the_end_of_the_watch_is_the_end_of_ageing():
    """An application that stops asks nobody for their age."""
    house = House()
    house.seat(3)
    await asyncio.sleep(1)
    await house.drain.host.end()
    await asyncio.sleep(2 * AGE)
    assert house.sheds() == []


async def test_a_limit_holds_however_many_came_together():
    """An age is no deadline: what a pacing allows in a second is kept to, and the rest waits for its turn."""
    house = House(pacing="rate:5")
    house.seat(3000)
    await asyncio.sleep(AGE)
    assert len(house.sheds()) == pytest.approx(5 * LAST_PART * AGE, abs=5)
    await asyncio.sleep(AGE)
    sheds = house.sheds()
    assert len(sheds) == 3000
    assert max(sum(begin <= at < begin + 1 for at in sheds) for begin in range(800, 1500)) <= 5 + 2


async def test_a_limit_is_divided_among_the_workers():
    """Each worker of a task takes its part of what is allowed to all."""
    house = House(pacing="fleet:10")
    house.drain.host.engine.divide(4)
    house.seat(2000)
    await asyncio.sleep(AGE)
    assert len(house.sheds()) == pytest.approx(10 / 4 * LAST_PART * AGE, abs=3)


async def test_where_the_limit_is_not_needed_the_age_alone_decides():
    """A few sessions are not sent away faster because more would be allowed."""
    house = House(pacing="rate:50")
    house.seat(10)
    await asyncio.sleep(0.9 * AGE)
    assert 4 <= len(house.sheds()) <= 6


async def test_one_timer_for_all():
    """A hundred thousand sessions wait for their age without a timer for each."""
    house = House()
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1)
    before = len(loop._scheduled)
    house.seat(1000)
    assert len([each for each in loop._scheduled if not each.cancelled()]) <= before + 1
    assert len(loop._scheduled) <= before + 20
