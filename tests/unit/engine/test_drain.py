"""The Drain: causes, deadlines, facts, late arrivals, farewells and several lives, on a virtual clock."""

import asyncio
import logging
from itertools import pairwise
from random import Random

import pytest

from starlette_drain import Drain, DrainCause, DrainInUse, DrainState, IllegalTransition, Session, SettingsError
from starlette_drain import TooLateToCancel as TooLate
from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainProgressed,
    DrainReplanned,
    DrainStarted,
    SessionClosed,
    SessionShed,
)
from starlette_drain._core.session import Outcome
from starlette_drain.testing.recording import RecordingObserver
from starlette_drain.triggers.manual import ManualTrigger

pytestmark = pytest.mark.anyio


class FakeSession(Session):
    """Leaves *after* so many seconds when asked to; never where that is None."""

    __slots__ = ("_after", "_drain", "asked_at")

    def __init__(self, drain: Drain, after: float | None = 0.0, *, opened: bool = True) -> None:
        super().__init__("/fake", drain.host.engine.time())
        self._drain = drain
        self._after = after
        self.asked_at: list[float] = []
        drain.host.engine.track(self)
        if opened:
            drain.host.engine.opened(self)

    def begin_close(self, policy) -> None:  # noqa: ARG002
        """Go later."""
        self.asked_at.append(self._drain.host.engine.time())
        if self._after is not None:
            asyncio.get_running_loop().call_later(self._after, self.go)

    def go(self, *, forced: bool = False) -> None:
        """Go now."""
        self._drain.host.engine.closed(self, forced=forced)


@pytest.fixture
def recording():
    """Return what hears of every fact."""
    return RecordingObserver()


@pytest.fixture
def make(recording):
    """Return a maker of drains that watch nothing but what they are given."""

    def make(triggers=(), **options) -> Drain:
        return Drain(triggers=triggers, observers=[recording], rng=Random(7), **options)

    return make


@pytest.fixture
async def drain(make):
    """Return a drain that has begun."""
    drain = make()
    async with drain.run():
        yield drain


def deadline_of(drain: Drain) -> float:
    """Return how many seconds are left."""
    progress = drain.progress()
    assert progress is not None
    return progress.time_left


# --- Start, join, cancel ---


async def test_a_drain_asks_everyone_once_before_its_deadline(drain, recording):
    """Every session is asked to leave exactly once, and the last has gone when the deadline comes."""
    sessions = [FakeSession(drain, after=0.5) for _ in range(50)]
    began = drain.host.engine.time()
    await drain.start(window=100)
    assert drain.state is DrainState.DRAINING

    assert await drain.wait_drained() is True
    assert drain.state is DrainState.DRAINED
    assert [len(session.asked_at) for session in sessions] == [1] * 50
    moments = sorted(session.asked_at[0] - began for session in sessions)
    slots = [int(moment // (99 / 50)) for moment in moments]
    assert slots == list(range(50)), "one in each slot of the window less one second for the last close"
    assert drain.host.engine.time() - began == pytest.approx(moments[-1] + 0.5)


async def test_the_facts_of_a_drain_are_these_and_no_others(drain, recording):
    """Started, one shed and one closed for each session, three milestones at most, finished; all of one drain."""
    recording.clear()
    for _ in range(4):
        FakeSession(drain, opened=True)
    recording.clear()
    await drain.start(window=8, reason="because")
    await drain.wait_drained()

    kinds = [type(event) for event in recording.events]
    assert kinds[0] is DrainStarted
    assert kinds[-1] is DrainFinished
    assert sorted(kind.__name__ for kind in kinds[1:-1]) == (
        ["DrainProgressed"] * 3 + ["SessionClosed"] * 4 + ["SessionShed"] * 4
    )
    started, finished = recording.of(DrainStarted)[0], recording.of(DrainFinished)[0]
    assert (started.at, started.deadline, started.sessions) == (started.cause.at, started.at + 8, 4)
    assert (started.cause.trigger, started.cause.reason) == ("manual", "because")
    assert started.pacing == "evenly, 0.51 sessions/s"
    assert started.drain_id == finished.drain_id
    assert [(event.percent, event.shed, event.remaining) for event in recording.of(DrainProgressed)] == [
        (25, 1, 3),
        (50, 2, 2),
        (75, 3, 1),
    ]
    assert {event.outcome for event in recording.of(SessionClosed)} == {Outcome.SHED}


async def test_a_second_start_joins_and_changes_nothing(drain, recording):
    """Starting twice is one drain: the same name, the same deadline, no second fact."""
    FakeSession(drain)
    await drain.start(window=100)
    drain_id = drain.progress().drain_id
    await asyncio.sleep(1)
    await drain.start(window=500)
    await drain.start()

    assert drain.progress().drain_id == drain_id
    assert deadline_of(drain) == pytest.approx(99)
    assert len(recording.of(DrainStarted)) == 1
    assert recording.of(DrainReplanned) == []


async def test_a_second_start_can_only_shorten(drain, recording):
    """A later start with an earlier deadline brings it forward, and that is a fact of its own."""
    FakeSession(drain)
    await drain.start(window=100)
    await drain.start(window=10, reason="hurry")

    assert deadline_of(drain) == 10
    (event,) = recording.of(DrainReplanned)
    assert (event.shortened, event.cause.reason, event.deadline, event.remaining) == (True, "hurry", event.at + 10, 1)
    assert [cause.reason for cause in drain.progress().causes] == ["hurry"], "the claim that stands"
    await drain.wait_drained()
    assert [cause.reason for cause in drain.report.causes] == ["asked for by the application", "hurry"]


async def test_a_cause_that_joins_when_drained_is_told_of(drain, recording):
    """The drain is over here, and not for other workers, nor for answers: they go by the new deadline."""
    await drain.start(window=300)
    assert drain.state is DrainState.DRAINED
    now = drain.host.engine.time()
    drain.host.engine.claim(DrainCause("sigterm", "told to stop", now, now + 6, revocable=False))
    drain.host.engine.claim(DrainCause("sigterm", "told again", now, now + 6, revocable=False))
    (event,) = recording.of(DrainReplanned)
    assert (event.shortened, event.deadline, event.remaining) == (True, now + 6, 0)
    assert drain.state is DrainState.DRAINED


async def test_causes_fuse_and_the_earliest_deadline_wins(drain, recording):
    """A cause of another trigger is recorded even where it brings no earlier deadline; the earliest one holds."""
    FakeSession(drain)
    now = drain.host.engine.time()
    drain.host.engine.claim(DrainCause("a", "first", now, now + 100))
    drain.host.engine.claim(DrainCause("b", "second", now, now + 200))
    drain.host.engine.claim(DrainCause("b", "again", now, now + 300))
    drain.host.engine.claim(DrainCause("c", "third", now, now + 20))
    drain.host.engine.claim(DrainCause("a", "repeats itself", now, now + 100))

    assert deadline_of(drain) == 20
    assert [cause.reason for cause in drain.progress().causes] == ["first", "again", "third"]
    assert [(event.cause.trigger, event.shortened) for event in recording.of(DrainReplanned)] == [
        ("b", False),
        ("c", True),
    ]
    await drain.wait_drained()
    assert [cause.reason for cause in drain.report.causes] == ["first", "second", "third"]


async def test_a_cause_whose_deadline_has_passed_means_now(drain):
    """A deadline in the past is this moment: everyone is asked at once."""
    sessions = [FakeSession(drain, after=None) for _ in range(250)]
    now = drain.host.engine.time()
    drain.host.engine.claim(DrainCause("late", "found out late", now, now - 50))
    await asyncio.sleep(0.001)
    await asyncio.sleep(0)

    assert all(session.asked_at for session in sessions)
    assert drain.progress().window == 0


@pytest.mark.parametrize("window", [-1, float("nan"), float("inf"), "60", 10**400, True, [60]])
async def test_a_window_that_cannot_work_is_refused_and_starts_nothing(drain, window):
    """A negative window would close everyone at once, an endless one nobody; a switch or a text is none at all."""
    with pytest.raises(SettingsError, match="window"):
        await drain.start(window=window)
    with pytest.raises(SettingsError, match="age"):
        await drain.start(age=window)
    assert drain.state is DrainState.SERVING


class Deaf(RecordingObserver):
    """A trigger that is an observer too, of what is no fact."""

    name = "deaf"
    subscribes = (int,)
    watch = status = None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"triggers": "target-health"}, "triggers='target-health' cannot work: give a list of triggers"),
        ({"triggers": ["sigterm"]}, "triggers='sigterm' cannot work: give a list of triggers"),
        ({"triggers": [ManualTrigger]}, "triggers=<class .* cannot work: give a list of triggers"),
        ({"triggers": ManualTrigger()}, "triggers=<.*ManualTrigger object .* cannot work: give a list of triggers"),
        ({"triggers": [Deaf()]}, "Deaf.subscribes=.* cannot work: give a tuple of event classes"),
        ({"observers": [print]}, "observers=<built-in function print> cannot work: give a list of observers"),
        ({"observers": RecordingObserver()}, "observers=<.*RecordingObserver object .* cannot work"),
        ({"observers": [RecordingObserver]}, "observers=<class .* cannot work: give a list of observers"),
        ({"rng": 7}, "rng=7 cannot work: give a random.Random"),
        ({"pacing": object()}, "pacing=<object .* cannot work: give a Pacing"),
    ],
)
async def test_an_object_of_the_wrong_kind_is_refused_where_it_is_given(given, message):
    """Not at the first fact of a drain, and not by watching nothing: the Drain is not made."""
    with pytest.raises(SettingsError, match=message):
        Drain(**given)


async def test_cancel_serves_again_and_asks_nobody_more(drain, recording):
    """A drain taken back asks nobody more; who waits for it is told so; the report tells how far it came."""
    sessions = [FakeSession(drain, after=1) for _ in range(100)]
    await drain.start(window=100)
    waiting = asyncio.create_task(drain.wait_drained())
    await asyncio.sleep(30)
    await drain.cancel()

    assert await waiting is False
    assert drain.state is DrainState.SERVING
    assert drain.progress() is None
    asked = sum(bool(session.asked_at) for session in sessions)
    assert 29 <= asked <= 31
    await asyncio.sleep(1000)
    assert sum(bool(session.asked_at) for session in sessions) == asked
    assert drain.statistics().open == 100 - asked
    (event,) = recording.of(DrainCancelled)
    assert event.report is drain.report
    assert event.report.shed == asked
    assert recording.of(DrainFinished) == []


async def test_a_drain_may_follow_one_that_was_cancelled(drain, recording):
    """After a cancel a new drain is a new one, with a name of its own, and asks those who are left."""
    sessions = [FakeSession(drain) for _ in range(10)]
    await drain.start(window=10)
    await asyncio.sleep(5)
    await drain.cancel()
    await drain.start(window=10)
    assert await drain.wait_drained()

    assert [len(session.asked_at) for session in sessions] == [1] * 10
    assert len({event.drain_id for event in recording.of(DrainStarted)}) == 2


async def test_who_waits_across_a_cancel_and_a_new_start_is_told_of_the_cancel(drain):
    """A drain that is cancelled and started again in one breath was cancelled for those who waited."""
    FakeSession(drain)
    await drain.start(window=10)
    waiting = asyncio.create_task(drain.wait_drained())
    await asyncio.sleep(0)
    await drain.cancel()
    await drain.start(window=10)

    assert await waiting is False
    assert await drain.wait_drained() is True


async def test_nothing_to_cancel_is_an_illegal_move(drain):
    """Cancelling while serving raises and changes nothing."""
    with pytest.raises(IllegalTransition):
        await drain.cancel()
    assert drain.state is DrainState.SERVING


async def test_an_irrevocable_cause_makes_cancelling_too_late(drain, recording):
    """Once the process was told to stop, in whichever order, a drain goes on."""
    FakeSession(drain)
    await drain.start(window=100)
    now = drain.host.engine.time()
    drain.host.engine.claim(DrainCause("sigterm", "told to stop", now, now + 200, revocable=False))
    with pytest.raises(TooLate, match=drain.progress().drain_id):
        await drain.cancel()

    assert drain.state is DrainState.DRAINING
    assert recording.of(DrainCancelled) == []
    assert await drain.wait_drained()
    with pytest.raises(TooLate):
        await drain.cancel()


async def test_a_drain_that_is_over_may_be_cancelled(drain):
    """Drained is not dead: a task whose deregistration was taken back serves again."""
    await drain.start()
    assert drain.state is DrainState.DRAINED
    await drain.cancel()
    assert drain.state is DrainState.SERVING
    assert drain.host.engine.admits()


# --- Windows ---


async def test_the_window_is_what_is_given_then_the_option_then_the_advice_then_the_default(make):
    """An argument beats the option, the option what AWS leaves where it fits, and that the default of 285 s."""
    for options, advised, window, expected in (
        ({}, None, None, 285),
        ({}, 100, None, 100),
        ({"window": 60}, 100, None, 60),
        ({"window": 600}, 40, None, 40),
        ({"window": 600}, None, None, 600),
        ({"window": 60}, 100, 7, 7),
        ({"window": 60}, 40, 300, 300),
    ):
        drain = make(**options)
        async with drain.run():
            FakeSession(drain)
            if advised:
                drain.host.engine.note_window(advised)
            await drain.start(window=window)
            assert drain.progress().window == expected


# --- Nobody, somebody, those who never go ---


async def test_without_a_session_a_drain_is_over_at_once(drain, recording):
    """Nothing to wait for: drained in the same breath, and the report says so."""
    await drain.start(window=100)

    assert drain.state is DrainState.DRAINED
    assert await drain.wait_drained()
    assert [type(event) for event in recording.events] == [DrainStarted, DrainFinished]
    assert drain.report.slack == 100
    assert drain.report.duration == 0


async def test_sessions_that_never_go_are_reported_as_still_open(drain):
    """Who has not gone by the end of the grace never will: the drain ends, and says how many."""
    FakeSession(drain, after=0.1)
    FakeSession(drain, after=None)
    began = drain.host.engine.time()
    await drain.start(window=10)
    assert await drain.wait_drained()

    assert drain.host.engine.time() - began <= 10 + drain.settings.tail + 1
    assert (drain.report.still_open, drain.report.shed) == (1, 2)
    assert drain.report.slack < 0


async def test_the_drain_waits_for_those_who_take_their_grace(drain):
    """A drain is not over while a session takes the time it was given."""
    session = FakeSession(drain, after=6.5)
    await drain.start(window=10)
    assert await drain.wait_drained()

    assert drain.host.engine.time() == pytest.approx(session.asked_at[0] + 6.5)
    assert drain.report.still_open == 0


async def test_a_session_that_goes_after_the_end_changes_no_state(drain, recording):
    """A straggler that goes once the drain is over is forgotten; the drain does not end twice."""
    straggler = FakeSession(drain, after=None)
    await drain.start(window=1)
    await drain.wait_drained()
    straggler.go(forced=True)

    assert drain.state is DrainState.DRAINED
    assert drain.statistics().open == 0
    assert len(recording.of(DrainFinished)) == 1
    assert recording.of(SessionClosed)[0].outcome is Outcome.FORCED


async def test_sessions_that_leave_by_themselves_slow_the_drain_down(drain):
    """The pace follows the live count: when half have left, the rest still have all the time that is left."""
    sessions = [FakeSession(drain) for _ in range(100)]
    await drain.start(window=100)
    for session in sessions[:50]:
        session.go()
    assert drain.progress().rate == pytest.approx(0.5, rel=0.05)
    await drain.wait_drained()

    assert (drain.report.left, drain.report.shed) == (50, 50)
    assert max(session.asked_at[0] for session in sessions[50:]) > drain.host.engine.time() - 5


async def test_the_last_session_leaving_by_itself_ends_the_drain(drain):
    """Where the last one goes unasked nobody waits for the deadline."""
    session = FakeSession(drain)
    other = FakeSession(drain)
    await drain.start(window=100)
    session.go()
    other.go()

    assert drain.state is DrainState.DRAINED
    assert (drain.report.left, drain.report.shed) == (2, 0)


async def test_sessions_asked_by_a_drain_that_was_cancelled_do_not_burden_the_next(drain):
    """A session that is still leaving from a former drain is waited for, and asked no second time."""
    slow = FakeSession(drain, after=6)
    await drain.start(window=0)
    await asyncio.sleep(0.01)
    assert slow.asked_at
    await drain.cancel()
    await drain.start(window=100)
    assert drain.state is DrainState.DRAINING
    await drain.wait_drained()

    assert len(slow.asked_at) == 1
    assert drain.report.still_open == 0


@pytest.mark.unmeasured
async def test_ten_thousand_sessions_leave_evenly(drain):
    """10,000 sessions over 240 s: no second above 1.5 times the mean, none left at the deadline."""
    for _ in range(10_000):
        FakeSession(drain, after=0.2)
    await drain.start(window=240)
    assert await drain.wait_drained()

    report = drain.report
    assert (report.shed, report.left, report.still_open) == (10_000, 0, 0)
    assert report.peak_rate <= 1.5 * report.mean_rate
    assert report.slack >= -0.2
    assert report.mean_rate == pytest.approx(10_000 / 240, rel=0.01)


async def test_a_burst_lets_others_have_their_turn(drain):
    """A thousand at once are asked in slices, between which the event loop goes round."""
    sessions = [FakeSession(drain, after=None) for _ in range(1000)]
    await drain.start(window=0)
    await asyncio.sleep(0.001)
    asked = []
    while not asked or asked[-1] < 1000:
        asked.append(sum(bool(session.asked_at) for session in sessions))
        await asyncio.sleep(0)

    assert all(later - earlier <= 200 for earlier, later in pairwise(asked))


# --- Late arrivals and holds ---


async def test_late_arrivals_are_let_in_while_the_target_is_in_service(drain):
    """The balancer would send a client that is refused straight back; a drain by hand takes no target out."""
    FakeSession(drain)
    await drain.start(window=10)
    assert drain.host.engine.admits()
    late = FakeSession(drain)
    await drain.wait_drained()
    assert late.asked_at
    await asyncio.sleep(20)
    assert not drain.host.engine.admits(), "the deadline has passed, and the process is to be empty"


@pytest.mark.parametrize(
    ("claims", "admits"),
    [
        ({}, True),
        ({"memory": {}}, True),
        ({"health": {"taken_out": True}}, False),
        ({"memory": {}, "health": {"taken_out": True}}, False),
        ({"memory": {}, "registration": {"follows": True, "taken_out": True}}, False),
        ({"registration": {"follows": True, "taken_out": True}}, True),
        ({"sigterm": {"revocable": False}}, False),
    ],
)
async def test_late_arrivals_are_refused_once_the_balancer_has_taken_the_target_out(drain, claims, admits):
    """Or once the process was told to stop; by any of the claims that stand, and no longer than that stands."""
    FakeSession(drain)
    engine = drain.host.engine
    for trigger, more in claims.items():
        engine.claim(DrainCause(trigger, "", engine.time(), engine.time() + 100, **more))
    assert engine.admits() is admits
    engine.withdraw("health")
    assert engine.admits() is (admits or "health" in claims)


async def test_a_claim_that_learns_of_the_balancer_counts(drain):
    """The same deadline, and now the target has been taken out: by hand once known it stays so."""
    FakeSession(drain)
    engine = drain.host.engine
    await drain.start(window=100)
    assert engine.admits()
    await drain.start(window=100, taken_out=True)
    assert not engine.admits()
    await drain.start(window=100)
    assert not engine.admits()
    await drain.cancel()
    assert engine.admits()


async def test_late_arrivals_are_refused_where_they_are_to_be(make):
    """With late_arrivals="refuse" nobody is admitted from the start of a drain on, and after a cancel everybody."""
    drain = make(late_arrivals="refuse")
    drain.host.begin()
    FakeSession(drain)
    assert drain.host.engine.admits()
    await drain.start(window=10)
    assert not drain.host.engine.admits()
    drain.host.engine.refused("websocket", "/late")
    assert drain.progress().refused == 1
    await drain.cancel()
    assert drain.host.engine.admits()


async def test_accepted_late_arrivals_get_a_place_in_what_remains(make):
    """Where late arrivals are accepted they are, until the deadline, and are asked before it."""
    drain = make(late_arrivals="accept")
    async with drain.run():
        FakeSession(drain)
        await drain.start(window=100)
        began = drain.host.engine.time()
        await asyncio.sleep(50)
        late = [FakeSession(drain) for _ in range(10)]
        assert drain.host.engine.admits()
        await drain.wait_drained()

        assert all(50 <= session.asked_at[0] - began <= 100 for session in late)
        assert (drain.report.arrived, drain.report.shed) == (10, 11)
        await asyncio.sleep(60)
        assert not drain.host.engine.admits(), "the deadline has passed"


async def test_an_arrival_after_the_end_begins_a_further_run(make, recording):
    """A session accepted once the drain was over gets a run of its own, with its own report; waiters wait for it."""
    drain = make(late_arrivals="accept")
    async with drain.run():
        await drain.start(window=100)
        assert drain.state is DrainState.DRAINED
        assert await drain.wait_drained(), "drained is drained"
        first = drain.report
        await asyncio.sleep(10)
        now = drain.host.engine.time()
        drain.host.engine.claim(DrainCause("health", "draining", now, now + 200))
        session = FakeSession(drain)
        assert drain.state is DrainState.DRAINING
        assert drain.report is first, "until the further run is over"
        waiting = asyncio.create_task(drain.wait_drained())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await waiting

        assert session.asked_at
        assert drain.state is DrainState.DRAINED
        assert (drain.report.sessions_at_start, drain.report.arrived, drain.report.shed) == (1, 0, 1)
        assert (drain.report.outcome, drain.report.window) == ("drained", 90)
        assert [cause.trigger for cause in drain.report.causes] == ["manual", "health"]
        assert (first.sessions_at_start, first.arrived, first.shed) == (0, 0, 0)
        assert [event.report for event in recording.of(DrainFinished)] == [first, drain.report]
        assert len({event.drain_id for event in recording.of(DrainFinished)}) == 2


async def test_a_held_session_is_asked_when_released_or_at_the_deadline(drain):
    """A hold keeps a session out of the pacing; released it is asked in time, held it is asked at the deadline."""
    held, released = FakeSession(drain), FakeSession(drain)
    drain.host.engine.hold(held)
    drain.host.engine.hold(released)
    began = drain.host.engine.time()
    await drain.start(window=100)
    await asyncio.sleep(50)
    assert drain.statistics().held == 2
    drain.host.engine.release(released)
    await drain.wait_drained()

    assert 50 <= released.asked_at[0] - began <= 100
    assert held.asked_at[0] - began == pytest.approx(99)
    assert drain.report.slack == pytest.approx(1)


async def test_a_hold_of_a_session_that_is_over_does_no_harm(drain):
    """A hold may outlive its session, where a task of the application does."""
    session = FakeSession(drain)
    drain.host.engine.hold(session)
    session.go()
    session.go()
    drain.host.engine.release(session)
    drain.host.engine.hold(session)

    assert drain.statistics().open == 0
    await drain.start()
    assert drain.state is DrainState.DRAINED


# --- Those who raise ---


async def test_a_session_that_cannot_be_asked_does_not_stop_the_others(drain, caplog):
    """A session whose `begin_close` raises is logged; the drain goes on and reports it as still open."""

    class Broken(FakeSession):
        __slots__ = ()

        def begin_close(self, policy) -> None:  # noqa: ARG002
            msg = "broken"
            raise RuntimeError(msg)

    Broken(drain)
    others = [FakeSession(drain) for _ in range(5)]
    await drain.start(window=10)
    assert await drain.wait_drained()

    assert all(session.asked_at for session in others)
    assert drain.report.still_open == 1
    assert "could not be closed" in caplog.text


async def test_an_observer_that_raises_is_dropped_and_the_drain_goes_on(recording, caplog):
    """No observer can hurt a drain; the others hear everything."""

    class Broken:
        heard = 0

        def notify(self, _fact) -> None:
            Broken.heard += 1
            msg = "broken"
            raise RuntimeError(msg)

        def flush(self, _timeout) -> None:
            raise RuntimeError

    drain = Drain(triggers=[], observers=[Broken(), recording])
    async with drain.run():
        FakeSession(drain)
        await drain.start(window=1)
        assert await drain.wait_drained()

    assert Broken.heard == 1
    assert len(recording.of(DrainFinished)) == 1
    assert "was removed" in caplog.text


async def test_a_trigger_that_raises_watches_again_and_hurts_nobody(make, caplog):
    """An exception of a trigger neither starts nor stops a drain, and the other triggers go on."""

    class Broken:
        name = "broken"

        async def watch(self, _control) -> None:
            await asyncio.sleep(1)
            msg = "broken"
            raise RuntimeError(msg)

        def status(self, _now):
            raise RuntimeError

    manual = ManualTrigger()
    drain = make([Broken(), manual])
    async with drain.run():
        await asyncio.sleep(2)
        assert drain.state is DrainState.SERVING
        assert "Trigger 'broken' failed" in caplog.text
        manual.fire()
        assert drain.state is DrainState.DRAINED
        assert drain.host.statuses() == {
            "broken": {"error": "RuntimeError", "failed": "RuntimeError; it restarts within 1 s"},
            "manual": {"fired": 1},
        }


async def test_a_trigger_that_returns_has_nothing_to_watch(make):
    """Returning from `watch` is no failure and no drain."""

    class Short:
        name = "short"

        async def watch(self, _control) -> None:
            pass

        def status(self, now):
            return {"now": now}

    drain = make([Short()])
    async with drain.run():
        await asyncio.sleep(1)
        assert drain.state is DrainState.SERVING
        assert drain.host.statuses() == {"short": {"now": drain.host.engine.time()}}


async def test_triggers_are_cancelled_at_the_end(make):
    """A trigger is watched as long as the drain runs, and cancelled then."""
    log = []

    class Endless:
        name = "endless"

        async def watch(self, _control) -> None:
            log.append("began")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                log.append("ended")

        def status(self, _now):
            return {}

    async with make([Endless()]).run():
        await asyncio.sleep(1)
        assert log == ["began"]
    assert log == ["began", "ended"]


# --- Farewells ---


async def test_farewells_are_said_in_order_and_by_decorator(make):
    """Several farewells are said in the order of their registration; the decorator returns the function."""
    drain = make()
    said = []

    @drain.before_close
    async def first(session):
        said.append(("first", session))

    @drain.before_close
    async def second(session):
        said.append(("second", session))

    assert (first.__name__, second.__name__) == ("first", "second")
    async with drain.run():
        session = FakeSession(drain)
        await drain.host.close_hooks.run(session)
    assert said == [("first", session), ("second", session)]


async def test_a_farewell_that_fails_does_not_silence_the_next(make, caplog):
    """Each failure is logged, and the other farewells are said all the same."""
    drain = make()
    said = []

    async def fails(session):
        msg = "fails"
        raise ValueError(msg)

    async def times_out_itself(session):
        msg = "redis"
        raise TimeoutError(msg)

    async def waits_for_something_cancelled(session):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def last(session):
        said.append(session)

    for farewell in (fails, times_out_itself, waits_for_something_cancelled, last):
        drain.before_close(farewell)
    async with drain.run():
        session = FakeSession(drain)
        await drain.host.close_hooks.run(session)

    assert said == [session]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert "cut short" not in caplog.text


async def test_a_slow_farewell_is_cut_short(make, caplog):
    """All farewells to one session together have 2 s."""
    drain = make()
    said = []

    async def slow(session):
        await asyncio.sleep(1.5)
        said.append(drain.host.engine.time())

    drain.before_close(slow)
    drain.before_close(slow)
    async with drain.run():
        began = drain.host.engine.time()
        await drain.host.close_hooks.run(FakeSession(drain))
        assert drain.host.engine.time() - began == 2
    assert said == [began + 1.5]
    assert "more than 2 s" in caplog.text


async def test_who_cancels_a_farewell_from_outside_is_obeyed(make, caplog):
    """A cancellation of the farewell itself passes: the event loop is closing."""
    drain = make()

    @drain.before_close
    async def slow(_session):
        await asyncio.sleep(1.5)

    async with drain.run():
        task = asyncio.create_task(drain.host.close_hooks.run(FakeSession(drain)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert caplog.records == []


# --- Lives and loops ---


def test_a_drain_can_be_made_without_an_event_loop():
    """A module-level Drain binds to nothing: it is made before there is a loop."""
    drain = Drain(triggers=[], observers=[])

    assert drain.state is DrainState.SERVING
    assert drain.report is None
    assert drain.progress() is None
    assert drain.host.is_running is False
    assert drain.statistics().open == 0


async def test_run_twice_at_once_is_one_run(make):
    """A nested run is the outer one's guest: its end ends nothing."""
    drain = make([manual := ManualTrigger()])
    async with drain.run():
        async with drain.run() as same:
            assert same is drain
        await asyncio.sleep(0)
        assert drain.host.is_running
        manual.fire()
        assert drain.state is DrainState.DRAINED
    assert not drain.host.is_running


async def test_the_end_finishes_a_drain_as_it_stands(make, recording):
    """Where the application stops during a drain, the drain ends with a report, and the observers flush."""
    drain = make()
    async with drain.run():
        FakeSession(drain)
        await drain.start(window=100)
        await asyncio.sleep(1)
        waiting = asyncio.create_task(drain.wait_drained())
        await asyncio.sleep(0)

    assert await waiting
    assert drain.state is DrainState.DRAINED
    assert drain.report.still_open + drain.report.shed >= 1
    assert len(recording.flushes) == 1
    before = len(recording.events)
    await asyncio.sleep(1000)
    assert len(recording.events) == before, "no timer is left"


async def test_an_end_without_a_drain_tells_nothing(make, recording):
    """An application that stops without a drain has nothing to report or flush."""
    async with make().run():
        pass
    assert recording.events == []
    assert recording.flushes == []


async def test_a_new_life_after_the_end_is_a_new_beginning(make):
    """After `end` a Drain may run again: serving, without a report, its triggers watched anew."""
    drain = make([manual := ManualTrigger()])
    for _ in range(2):
        async with drain.run():
            await asyncio.sleep(0)
            assert drain.state is DrainState.SERVING
            assert drain.report is None
            assert drain.statistics().opened == 0
            manual.fire()
            assert drain.state is DrainState.DRAINED
        assert drain.report is not None
    assert drain.host.statuses()["manual"]["fired"] == 2


async def test_sessions_that_outlive_a_life_are_known_to_the_next(make):
    """Some servers stop the lifespan first: sessions still open then are closed without confusion in a new life."""
    drain = make()
    async with drain.run():
        outliving = [FakeSession(drain) for _ in range(3)]
    outliving[0].go()
    async with drain.run():
        newcomer = FakeSession(drain)
        outliving[1].go()
        assert drain.statistics().open == 2
        await drain.start(window=1)
        assert await drain.wait_drained()
    assert newcomer.asked_at
    assert outliving[2].asked_at


async def test_who_waits_from_the_startup_on_is_told(make):
    """An application may wait for the end of a drain from its startup on, before the triggers are watched."""
    drain = make()
    drain.host.attach()
    waiting = asyncio.create_task(drain.wait_drained())
    await asyncio.sleep(0)
    assert drain.host.begin() is True
    await drain.start()
    assert await asyncio.wait_for(waiting, 1)
    await drain.host.end()


async def test_starting_by_hand_begins_what_has_not_begun(make):
    """`start` works in an application whose server knows no lifespan."""
    drain = make()
    await drain.start()
    assert drain.host.is_running
    assert drain.state is DrainState.DRAINED
    await drain.host.end()


async def test_a_drain_belongs_to_one_loop_at_a_time(make):
    """While it runs on one event loop another is refused; once that one has closed it may move."""
    drain = make()
    outcome = []

    def elsewhere():
        async def main():
            assert not drain.host.is_running
            try:
                await drain.start()
            except DrainInUse as error:
                outcome.append(str(error))
            else:
                outcome.append("started")

        asyncio.run(main())

    async with drain.run():
        await asyncio.to_thread(elsewhere)
        assert drain.host.is_running
        assert drain.state is DrainState.SERVING
    await asyncio.to_thread(elsewhere)
    async with drain.run():
        assert drain.state is DrainState.SERVING

    assert "another event loop" in outcome[0]
    assert outcome[1] == "started"


def test_without_an_asyncio_loop_the_error_says_so():
    """Trio has event loops of another kind: the error names that, not a missing loop."""
    with pytest.raises(DrainInUse, match="trio"):
        Drain(triggers=[], observers=[]).host.attach()


async def test_a_trigger_fired_after_the_end_says_so(make):
    """A trigger that nobody watches any more does not start a drain that nobody would end."""
    drain = make([manual := ManualTrigger()])
    async with drain.run():
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="not watched"):
        manual.fire()
    assert drain.state is DrainState.SERVING


# --- Figures ---


async def test_statistics_and_progress_tell_how_things_stand(drain):
    """Statistics count how sessions stand; progress adds how the plan stands."""
    assert drain.progress() is None
    sessions = [FakeSession(drain, after=2) for _ in range(10)]
    drain.host.engine.hold(sessions[0])
    stats = drain.statistics()
    assert (stats.open, stats.waiting, stats.held, stats.leaving, stats.opened, stats.closed) == (10, 9, 1, 0, 10, 0)

    await drain.start(window=100)
    await asyncio.sleep(50)
    sessions[0].go()
    stats, progress = drain.statistics(), drain.progress()
    assert stats.open == stats.waiting + stats.held + stats.leaving
    assert stats.opened - stats.closed == stats.open
    assert (progress.window, progress.time_left) == (100, 50)
    assert progress.shed in (4, 5)
    assert (progress.left, progress.refused, progress.forced) == (1, 0, 0)
    assert progress.rate == pytest.approx((9 - progress.shed) / 50, rel=0.3)
    assert 0 < progress.eta <= 50
    assert progress.pacing.startswith("evenly")


async def test_the_report_adds_up(drain, recording):
    """Shed, left, refused, forced and still open are counted each once; it is the same everywhere."""
    sessions = [FakeSession(drain, after=None) for _ in range(10)]
    now = drain.host.engine.time()
    drain.host.engine.claim(DrainCause("health", "draining", now, now + 10, lag=5))
    for session in sessions[:3]:
        session.go()
    drain.host.engine.refused("websocket", "/")
    await asyncio.sleep(10.5)
    for session in sessions[3:5]:
        session.go(forced=True)
    for session in sessions[5:9]:
        session.go()
    await drain.wait_drained()

    report = drain.report
    assert (report.sessions_at_start, report.shed, report.left, report.forced) == (10, 7, 3, 2)
    assert (report.refused, report.arrived, report.still_open) == (1, 0, 1)
    assert (report.window, report.detection_lag) == (10, 5)
    assert report.causes[0].trigger == "health"
    assert report.slack == pytest.approx(10 - report.duration)
    assert recording.of(DrainFinished)[0].report is report
    assert len(recording.of(SessionShed)) == 7
    outcomes = [event.outcome for event in recording.of(SessionClosed)]
    assert [outcomes.count(each) for each in Outcome] == [3, 4, 2]


async def test_those_who_were_leaving_already_are_in_no_figure(drain, recording):
    """Whom an age, or a drain before, has asked to leave, this drain has not; and their cancellation is not its own."""
    leaving = [FakeSession(drain, after=None) for _ in range(5)]
    await drain.rotate(window=1)
    await asyncio.sleep(1)
    assert all(session.shed_at for session in leaving)
    others = [FakeSession(drain, after=None) for _ in range(5)]
    await drain.start(window=10)
    await asyncio.sleep(11)
    for session in (*leaving, *others[:2]):
        session.go(forced=True)
    for session in others[2:]:
        session.go()
    await drain.wait_drained()

    report = drain.report
    assert (report.sessions_at_start, report.shed, report.left, report.forced) == (5, 5, 0, 2)
    assert recording.of(DrainStarted)[0].sessions == 5


async def test_a_session_that_never_opened_is_counted_and_not_told_of(drain, recording):
    """A handshake that comes to nothing is no session to an observer."""
    FakeSession(drain, opened=False).go()
    assert recording.of(SessionClosed) == []
    assert drain.statistics().closed == 1
