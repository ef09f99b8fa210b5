"""Rotations: every session that is open is asked to leave once, evenly, while the process goes on serving."""

import asyncio
from random import Random

import pytest
from guests import Guest, Stubborn, open_guests

from starlette_drain import Drain, DrainState, IllegalTransition, SettingsError
from starlette_drain._core.events import RotationEnded, RotationProgressed, RotationStarted, SessionShed
from starlette_drain._core.turnover import REBALANCE, Rotation
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio

DAY = 86_400.0


@pytest.fixture
async def recording():
    """Return what has been told."""
    return RecordingObserver()


@pytest.fixture
async def drain(recording):
    """Return a drain that runs."""
    drain = Drain(triggers=[], observers=[recording], rng=Random(7), retry_after=3)
    async with drain.run():
        yield drain


def busiest(moments, seconds):
    """Return how many of the moments fall into the busiest stretch."""
    return max(sum(begin <= at < begin + seconds for at in moments) for begin in moments)


async def test_all_that_are_open_leave_once_over_a_day_and_those_who_come_stay(drain, recording):
    """As even as a drain, each once; the process serves, and whoever opens meanwhile is no part of it."""
    guests = open_guests(drain, 960)
    await drain.rotate(window=DAY, reason="the DNS has changed")
    later = []
    for _ in range(24):
        await asyncio.sleep(DAY / 24)
        assert drain.state is DrainState.SERVING
        assert drain.host.engine.admits()
        later += open_guests(drain, 1)
    assert [len(guest.asked_at) for guest in guests] == [1] * 960
    assert [guest.asked_at for guest in later] == [[]] * 24
    assert busiest([guest.asked_at[0] for guest in guests], 3600) <= 960 / 24 + 2
    assert {guest.reconnect_after for guest in guests} == {3}
    (started,), (ended,) = recording.of(RotationStarted), recording.of(RotationEnded)
    assert (started.sessions, started.rotation.window, started.rotation.reason) == (960, DAY, "the DNS has changed")
    assert [each.percent for each in recording.of(RotationProgressed)] == [25, 50, 75]
    assert (ended.outcome, ended.asked, ended.left, ended.remaining) == ("complete", 960, 0, 0)
    assert {each.trigger for each in recording.of(SessionShed)} == {"rotation"}
    assert drain.rotation() is None
    assert drain.report is None


async def test_those_that_leave_by_themselves_are_not_asked(drain, recording):
    """They count as gone, and the others keep their moments."""
    guests = open_guests(drain, 100)
    await drain.rotate(window=100)
    for guest in guests[:40]:
        guest.go()
    await asyncio.sleep(101)
    (ended,) = recording.of(RotationEnded)
    assert (ended.asked, ended.left) == (60, 40)


async def test_a_share_of_them(drain):
    """Picked at random; where the share is no whole number, the fraction is a matter of chance."""
    guests = open_guests(drain, 99)
    await drain.rotate(window=100, share=1 / 3)
    assert drain.rotation().remaining in (33, 34)
    await asyncio.sleep(101)
    asked = [index for index, guest in enumerate(guests) if guest.asked_at]
    assert len(asked) in (33, 34)
    assert max(asked) > 60


async def test_those_that_opened_since_the_order_was_given_stay(drain):
    """A client that one task has asked to leave, and that comes to the next before the order does, moves once."""
    there = open_guests(drain, 10)
    await asyncio.sleep(5)
    moved = open_guests(drain, 10)
    await drain.rotate(window=100, age=3)
    await asyncio.sleep(97)
    assert [len(guest.asked_at) for guest in (*there, *moved)] == [1] * 10 + [0] * 10


async def test_a_session_in_its_handshake_is_no_part_of_it(drain):
    """To close it would refuse it, and it comes by the new way already."""
    guest = Guest(drain)
    drain.host.engine.track(guest)
    await drain.rotate(window=10)
    drain.host.engine.opened(guest)
    await asyncio.sleep(20)
    assert guest.asked_at == []


async def test_it_can_be_cancelled_and_begun_again(drain, recording):
    """Those that were not asked stay; there is nothing to cancel twice."""
    open_guests(drain, 100)
    await drain.rotate(window=100)
    with pytest.raises(IllegalTransition, match="already running"):
        await drain.rotate(window=5)
    await asyncio.sleep(50)
    await drain.stop_rotating()
    with pytest.raises(IllegalTransition, match="nothing to cancel"):
        await drain.stop_rotating()
    await asyncio.sleep(100)
    assert drain.statistics().open == 50
    await drain.rotate(window=50)
    await asyncio.sleep(51)
    assert drain.statistics().open == 0
    assert [each.outcome for each in recording.of(RotationEnded)] == ["cancelled", "complete"]


async def test_before_the_application_there_is_nothing_to_cancel():
    """And nothing to show."""
    drain = Drain(triggers=[], observers=[])
    assert drain.rotation() is None
    with pytest.raises(IllegalTransition):
        await drain.stop_rotating()


async def test_a_drain_that_is_cancelled_lets_it_go_on_without_a_burst(drain, recording):
    """While it runs the drain alone decides; then the rotation has the time that it lost."""
    guests = open_guests(drain, 400, Stubborn)
    await drain.rotate(window=400)
    await asyncio.sleep(100)
    for guest in guests:
        drain.host.engine.hold(guest)
    await drain.start(window=3000)
    await asyncio.sleep(200)
    assert drain.rotation().state == "paused"
    assert len(recording.of(SessionShed)) == 100
    with pytest.raises(IllegalTransition, match="draining"):
        await drain.rotate(window=10)
    for guest in guests:
        drain.host.engine.release(guest)
    await drain.cancel()
    assert drain.rotation().state == "rotating"
    await asyncio.sleep(301)
    assert [len(guest.asked_at) for guest in guests] == [1] * 400
    assert busiest([guest.asked_at[0] for guest in guests], 10) <= 12


async def test_a_drain_that_is_not_cancelled_takes_them_all(drain, recording):
    """Who was asked by the rotation is not asked again, and a drain of all ends the rotation."""
    guests = open_guests(drain, 100)
    await drain.rotate(window=1000)
    await asyncio.sleep(500)
    await drain.start(window=100)
    assert await drain.wait_drained()
    assert [len(guest.asked_at) for guest in guests] == [1] * 100
    assert drain.report.shed == 50
    (ended,) = recording.of(RotationEnded)
    assert (ended.asked, ended.left) == (50, 50)


async def test_the_end_of_the_application_ends_it(recording):
    """Nothing is asked after it, and the next life knows nothing of it."""
    drain = Drain(triggers=[], observers=[recording])
    async with drain.run():
        guests = open_guests(drain, 10)
        await drain.rotate(window=100)
    await asyncio.sleep(200)
    assert sum(len(guest.asked_at) for guest in guests) == 0
    assert [each.outcome for each in recording.of(RotationEnded)] == ["interrupted"]


async def test_a_limit_holds_for_a_rotation_too():
    """A window that is too short for the limit of the pacing makes it longer."""
    drain = Drain(triggers=[], observers=[], pacing="rate:2")
    async with drain.run():
        guests = open_guests(drain, 200)
        await drain.rotate(window=10)
        await asyncio.sleep(50)
        assert sum(len(guest.asked_at) for guest in guests) == pytest.approx(100, abs=3)
        await asyncio.sleep(55)
        assert drain.statistics().open == 0


@pytest.mark.parametrize(
    ("option", "value"), [("window", 0), ("window", 1e9), ("window", None), ("share", 0), ("share", 2)]
)
async def test_what_cannot_work_is_refused(drain, option, value):
    """The error names it."""
    with pytest.raises(SettingsError) as caught:
        await drain.rotate(**{option: value})
    assert caught.value.option == option


async def test_a_second_scale_out_takes_over_those_who_were_left_of_the_first(drain, recording):
    """8, 12, 16: a third of the sessions is to leave, then a quarter of the rest; those to come are no part of it."""
    engine = drain.host.engine
    open_guests(drain, 1200)
    engine.rotate(Rotation(engine.time(), 400, 1 / 3, REBALANCE))
    await asyncio.sleep(200)
    assert drain.rotation().asked == pytest.approx(200, abs=1)
    engine.rotate(Rotation(engine.time(), 400, 1 / 4, REBALANCE))
    assert drain.rotation().remaining == pytest.approx(200 + 800 / 4, abs=2)
    assert drain.rotation().window == pytest.approx(800, rel=0.02)
    await asyncio.sleep(801)
    assert drain.statistics().open == pytest.approx(600, abs=2)
    assert [each.outcome for each in recording.of(RotationEnded)] == ["replaced", "complete"]


async def test_a_scale_out_gives_way_to_a_rotation_by_hand(drain):
    """The other way round it is let be: all leave anyway."""
    engine = drain.host.engine
    open_guests(drain, 100)
    control = drain.host.control()
    assert control.rotate(Rotation(engine.time(), 100, 0.5, REBALANCE))
    await drain.rotate(window=100)
    assert drain.rotation().remaining == 100
    assert not control.rotate(Rotation(engine.time(), 100, 0.5, REBALANCE))
    assert drain.rotation().trigger == "rotation"


async def test_what_another_worker_was_asked_for_is_followed_where_that_makes_sense(drain):
    """Not when its time is over, in a process that only observes, or after the end; and more fields do no harm."""
    engine = drain.host.engine
    open_guests(drain, 10)
    order = {"at": engine.time(), "window": 100, "share": 1.0, "trigger": "rotation", "reason": "x"}
    engine.follow_rotation({**order, "at": engine.time() - 200})
    assert drain.rotation() is None
    engine.follow_rotation({**order, "colour": "blue"})
    assert drain.rotation().remaining == 10
    observing = Drain(triggers=[], observers=[], mode="observe")
    async with observing.run():
        open_guests(observing, 10)
        observing.host.engine.follow_rotation(order)
        assert observing.rotation() is None
    with pytest.raises(IllegalTransition, match="ending"):
        observing.host.engine.rotate(Rotation(0.0, 1.0))


@pytest.mark.parametrize("order", [{}, {"at": "x", "window": 1}, {"at": 1, "window": None}, {"at": True, "window": 1}])
def test_an_order_that_is_none_is_refused(order):
    """What stands in a file may be anything."""
    with pytest.raises((TypeError, ValueError)):
        Rotation.load(order)
