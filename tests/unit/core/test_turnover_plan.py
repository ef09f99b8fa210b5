"""The plan by which sessions leave although there is no drain, on a clock that the test turns."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlette_drain._core.session import Session
from starlette_drain._core.turnover import LAST_PART, MAX_AGE, ROTATION, Rotation, TurnoverPlan

AGE = 1000.0
START = 5000.0
LAST = LAST_PART * AGE


class Crowd:
    """Sessions, and when each was asked to leave."""

    def __init__(self, *, age=AGE, limit=math.inf, seed=7):
        self.plan = TurnoverPlan(age, Random(seed))
        self.limit = limit
        self.now = START
        self.asked = {}
        self.triggers = []

    def open(self, number=1, *, handshake=0.0):
        """Open sessions whose requests came *handshake* seconds ago."""
        sessions = [Session("/", self.now - handshake) for _ in range(number)]
        for session in sessions:
            self.plan.add(session, self.now)
        return sessions

    def rotate(self, sessions, window):
        """Let *sessions* leave over *window*."""
        self.plan.rotate(Rotation(self.now, window), sessions, self.now)

    def pass_time(self, seconds):
        """Let time pass, and ask whenever the plan wants it."""
        until = self.now + seconds
        while (moment := self.plan.ask_at) is not None and moment <= until:
            self.now = max(self.now, moment)
            for session, trigger in self.plan.due(self.now, 100, self.limit):
                assert session not in self.asked
                assert not session.is_held
                self.asked[session] = self.now
                self.triggers.append(trigger)
        self.now = until

    def busiest(self, seconds=1.0):
        """Return how many were asked in the busiest stretch."""
        moments = sorted(self.asked.values())
        return max(sum(begin <= at < begin + seconds for at in moments) for begin in moments)


def test_without_sessions_there_is_nothing_to_ask():
    """An empty plan sets no timer."""
    assert Crowd().plan.ask_at is None


def test_without_an_age_a_session_has_no_moment():
    """Where sessions do not age, nothing is kept of them."""
    crowd = Crowd(age=None)
    crowd.open(3)
    assert (crowd.plan.ask_at, crowd.plan.numbers) == (None, {})


def test_one_session_leaves_anywhere_in_the_last_fifth():
    """Servers that each got one session at the same moment do not send them all away at the same moment."""
    ages = []
    for seed in range(400):
        crowd = Crowd(seed=seed)
        (session,) = crowd.open()
        crowd.pass_time(AGE)
        ages.append(crowd.asked[session] - START)
    for quarter in range(4):
        begin = AGE - LAST + quarter * LAST / 4
        assert sum(begin <= age < begin + LAST / 4 for age in ages) == pytest.approx(100, abs=35)


@pytest.mark.parametrize("number", [50, 1000])
def test_sessions_that_came_together_leave_evenly(number):
    """After a restart all sessions are of one age: they leave over a fifth of it, in step with the clock."""
    crowd = Crowd()
    crowd.open(number)
    crowd.pass_time(AGE)
    assert len(crowd.asked) == number
    tenths = [0] * 10
    for at in crowd.asked.values():
        tenths[min(9, int((at - START - (AGE - LAST)) / LAST * 10))] += 1
    assert max(tenths) - min(tenths) <= 4


def test_slow_handshake_hurries_no_other():
    """A session that took minutes to open is older than those before it, who do not leave at once for that."""
    crowd = Crowd()
    crowd.open(500)
    crowd.open(handshake=0.99 * LAST)
    crowd.open(500, handshake=2 * AGE)
    crowd.pass_time(AGE)
    assert len(crowd.asked) == 1001
    assert crowd.busiest() <= 20


@pytest.mark.parametrize("pause", [0.3 * LAST, 0.999 * LAST, 2 * LAST])
def test_pause_is_followed_by_no_burst(pause):
    """When none could be asked for a while, the others leave at the pace that they had before."""
    crowd = Crowd()
    crowd.open(1000)
    crowd.pass_time(AGE - LAST + 20)
    crowd.now += pause
    crowd.pass_time(LAST + 1)
    assert len(crowd.asked) == 1000
    assert crowd.busiest() <= 1000 / LAST * 1.5 + 2


def test_limit_holds_and_is_used():
    """With more than the limit allows, every second sheds what is allowed, and the rest waits."""
    crowd = Crowd(limit=2.0)
    crowd.open(1000)
    crowd.pass_time(AGE)
    assert crowd.plan.waiting(crowd.now) == pytest.approx(1000 - 2 * LAST, abs=5)
    crowd.pass_time(AGE)
    moments = sorted(crowd.asked.values())
    assert len(moments) == 1000
    assert moments[-1] - moments[0] == pytest.approx(500, rel=0.02)
    assert crowd.busiest(10.0) <= 2 * 10 + 2


def test_a_session_that_has_gone_is_forgotten():
    """Nothing of it is kept, one that is not known does no harm, and those that come and go do not pile up."""
    crowd = Crowd()
    for _ in range(3000):
        for session in crowd.open(2):
            crowd.plan.discard(session)
    crowd.plan.discard(Session("/", START))
    assert (crowd.plan.ask_at, crowd.plan.numbers, crowd.plan._sessions) == (None, {}, {})
    stays = crowd.open()
    for _ in range(3000):
        crowd.plan.discard(*crowd.open())
    assert list(crowd.plan.numbers) == stays
    assert len(crowd.plan._heap) < 200


def test_held_session_does_not_keep_the_others():
    """It is asked again within a last fifth of being released, and the others go as they would have."""
    crowd = Crowd()
    held, *others = crowd.open(20)
    held._holds = 1
    crowd.pass_time(AGE)
    assert set(crowd.asked) == set(others)
    crowd.pass_time(3 * AGE)
    held._holds = 0
    crowd.pass_time(LAST + 1)
    assert held in crowd.asked


# Rotations


def rotated(number=2000, window=500.0, **crowd):
    """Return a crowd without ages, of which all leave over *window*, and its sessions."""
    crowd = Crowd(age=None, **crowd)
    sessions = [Session("/", START) for _ in range(number)]
    crowd.rotate(sessions, window)
    return crowd, sessions


def test_a_rotation_is_as_even_as_a_drain():
    """One in each slot of the window, at a random moment of it, and each once."""
    crowd, sessions = rotated()
    crowd.pass_time(500.0)
    assert set(crowd.asked) == set(sessions)
    assert crowd.busiest() <= 2000 / 500 + 2
    for place, at in enumerate(sorted(crowd.asked.values())):
        assert place <= (at - START) / 500 * 2000 <= place + 1
    assert set(crowd.triggers) == {ROTATION}


def test_a_pause_moves_the_end_of_a_rotation():
    """A drain that was cancelled has cost time, which the rotation gets back."""
    crowd, _ = rotated()
    crowd.pass_time(100.0)
    crowd.now += 300.0
    crowd.pass_time(50.0)
    assert crowd.plan.tally.end == pytest.approx(START + 800.0, abs=1)
    crowd.pass_time(351.0)
    assert len(crowd.asked) == 2000
    assert crowd.busiest() <= 2000 / 500 + 2


@pytest.mark.parametrize("age", [None, 3000.0])
def test_stalls_make_a_rotation_longer_and_no_burst(age):
    """A process that stalls two seconds in five goes on as if it had not: nothing presses."""
    crowd = Crowd(age=age)
    sessions = [Session("/", START) for _ in range(2000)]
    for session in sessions:
        crowd.plan.add(session, START)
    crowd.rotate(sessions, 500.0)
    for _ in range(90):
        crowd.pass_time(6.0)
        crowd.now += 4.0
    assert len(crowd.asked) == 2000
    assert crowd.triggers == [ROTATION] * 2000
    assert crowd.busiest() <= 2000 / 500 * 1.5 + 2


def test_those_held_in_a_rotation_leave_in_the_time_that_is_left():
    """All of them released at once do not leave at once, also at the very end."""
    crowd, sessions = rotated()
    for session in sessions:
        session._holds = 1
    crowd.pass_time(499.0)
    for session in sessions:
        session._holds = 0
    crowd.pass_time(52.0)
    assert len(crowd.asked) == 2000
    assert crowd.busiest() <= 2000 / 50 * 2.2


def test_a_rotation_that_is_stopped_lets_sessions_age_on():
    """Those that were not asked go by their age again, and those past it are spread."""
    crowd = Crowd()
    sessions = crowd.open(100)
    crowd.rotate(sessions, 100.0)
    crowd.pass_time(50.0)
    crowd.plan.stop_rotating(crowd.now)
    assert crowd.triggers == [ROTATION] * len(crowd.asked)
    assert len(crowd.asked) == pytest.approx(50, abs=1)
    crowd.pass_time(AGE)
    assert len(crowd.asked) == 100
    assert crowd.triggers.count(MAX_AGE) == pytest.approx(50, abs=1)


def test_a_session_whose_age_comes_first_counts_in_the_rotation():
    """It leaves once, at its age, and the rotation does not wait for it."""
    crowd = Crowd()
    sessions = crowd.open(100)
    crowd.rotate(sessions, 10 * AGE)
    crowd.pass_time(AGE)
    assert len(crowd.asked) == 100
    assert crowd.plan.tally.asked == 100
    assert not crowd.plan.tally.waiting


@given(
    seed=st.integers(0, 1000),
    window=st.floats(1.0, 1e6),
    age=st.none() | st.floats(1.0, 1e6),
    limit=st.just(math.inf) | st.floats(0.01, 1000),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["open", "go", "hold", "release", "pass", "pause", "stop"]),
            st.integers(0, 20),
            st.floats(0.0, 2e5),
        ),
        max_size=30,
    ),
)
def test_each_is_asked_at_most_once_and_none_is_forgotten(  # noqa: C901
    seed, window, age, limit, steps
):
    """Whatever comes between: none twice, none that has gone or is held, and in the end all that were to leave have."""
    crowd = Crowd(age=age, limit=limit, seed=seed)
    there = [Session("/", START) for _ in range(20)]
    for session in there:
        crowd.plan.add(session, START)
    crowd.rotate(list(there), window)
    for what, which, seconds in steps:
        session = there[which % len(there)]
        match what:
            case "open":
                there += crowd.open()
            case "go":
                crowd.plan.discard(session)
            case "hold":
                session._holds = 1
            case "release":
                session._holds = 0
            case "pass":
                crowd.pass_time(min(seconds, window, age or window))
            case "pause":
                crowd.now += seconds
            case "stop":
                crowd.plan.stop_rotating(crowd.now)
        assert len(crowd.plan.numbers) == len(crowd.plan._sessions)
    for session in there:
        session._holds = 0
    left = set(crowd.plan.numbers)
    crowd.pass_time(4 * (window + (age or 0) + 1e6) + len(there) / limit * 2)
    assert left <= set(crowd.asked)
    assert crowd.plan.ask_at is None
