"""The plan by which old sessions leave, on a clock that the test turns."""

import math
from random import Random

import pytest

from starlette_drain._core.age_plan import LAST_PART, AgePlan
from starlette_drain._core.session import Session

AGE = 1000.0
START = 5000.0
LAST = LAST_PART * AGE


class Crowd:
    """Sessions that age, and when each was asked to leave."""

    def __init__(self, *, limit=math.inf, seed=7):
        self.plan = AgePlan(AGE, lambda: limit, Random(seed))
        self.now = START
        self.asked = {}

    def open(self, number=1, *, handshake=0.0):
        """Open sessions whose requests came *handshake* seconds ago."""
        sessions = [Session("/", self.now - handshake) for _ in range(number)]
        for session in sessions:
            self.plan.add(session)
        return sessions

    def look(self):
        """Ask the plan once."""
        for session in self.plan.due(self.now, 100):
            assert session not in self.asked
            assert not session.is_held
            self.asked[session] = self.now

    def pass_time(self, seconds):
        """Let time pass, and ask whenever the plan wants it."""
        until = self.now + seconds
        while (moment := self.plan.ask_at) is not None and moment <= until:
            self.now = max(self.now, moment)
            self.look()
        self.now = until

    def busiest(self, seconds=1.0):
        """Return how many were asked in the busiest stretch."""
        moments = sorted(self.asked.values())
        return max(sum(begin <= at < begin + seconds for at in moments) for begin in moments)


def test_nobody_there():
    """A plan for nobody asks for nothing."""
    assert Crowd().plan.ask_at is None


@pytest.mark.unmeasured
@pytest.mark.slow
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


@pytest.mark.unmeasured
@pytest.mark.slow
def test_sessions_that_come_evenly_leave_evenly_and_in_time():
    """One a second for an hour: none stays longer than its age, and no second is busy."""
    crowd = Crowd()
    for _ in range(3600):
        crowd.open()
        crowd.pass_time(1.0)
    ages = [at - session.opened_at for session, at in crowd.asked.items()]
    assert len(ages) == pytest.approx(3600 - 0.9 * AGE, abs=20)
    assert min(ages) >= AGE - LAST
    assert max(ages) <= AGE
    assert crowd.busiest(10.0) <= 1.5 * 10


def test_slow_handshake_hurries_nobody():
    """Whoever needed minutes to open is older than those before it, who do not leave at once for that."""
    crowd = Crowd()
    crowd.open(500)
    crowd.open(handshake=0.99 * LAST)
    crowd.pass_time(AGE)
    assert crowd.busiest() <= 500 / LAST * 1.5 + 2


@pytest.mark.parametrize("pause", [0.3 * LAST, 0.999 * LAST, 2 * LAST])
def test_pause_is_followed_by_no_burst(pause):
    """When nobody could be asked for a while, those who are left have a whole last fifth again."""
    crowd = Crowd()
    crowd.open(1000)
    crowd.pass_time(AGE - LAST + 1)
    crowd.now += pause
    back = crowd.now
    crowd.pass_time(LAST + 1)
    assert len(crowd.asked) == 1000
    assert crowd.busiest() <= 1000 / LAST * 1.5 + 2
    assert max(crowd.asked.values()) >= back + 0.95 * LAST


def test_limit_holds_and_is_used():
    """With more than the limit allows, every second sheds what is allowed, until the rest fits into a last fifth."""
    crowd = Crowd(limit=2.0)
    crowd.open(1000)
    crowd.pass_time(2 * AGE)
    moments = sorted(crowd.asked.values())
    assert len(moments) == 1000
    assert sum(at < moments[0] + 2 * LAST for at in moments) == pytest.approx(2 * 2 * LAST, abs=3)
    assert moments[-1] - moments[0] == pytest.approx(3 * LAST, abs=3)
    assert crowd.busiest(10.0) <= 2 * 10 + 2


def test_line_says_how_fast_it_moves():
    """As every pace does: 1000 within a fifth of their age, or what is allowed."""
    for limit, rate in ((math.inf, 1000 / LAST), (2.0, 2.0)):
        crowd = Crowd(limit=limit)
        crowd.open(1000)
        crowd.pass_time(AGE - LAST)
        assert crowd.plan._plan.describe(crowd.now) == f"by age, {rate:.3g} sessions/s"


def test_share_divides_the_limit_and_not_the_ages():
    """Of several processes each keeps to its part; where the limit is not needed each goes by its sessions' ages."""
    for limit, expected in ((10.0, 10 / 4 * LAST), (math.inf, 1000)):
        crowd = Crowd(limit=limit)
        crowd.open(1000)
        until = crowd.now + AGE
        while (moment := crowd.plan.ask_at) is not None and moment <= until:
            crowd.now = moment
            for session in crowd.plan.due(moment, 100, share=4):
                crowd.asked[session] = moment
        assert len(crowd.asked) == pytest.approx(expected, abs=3)


def test_who_has_gone_is_forgotten_wherever_it_stood():
    """Young, ripe or unknown; and nothing of it is kept."""
    crowd = Crowd()
    young, ripe = crowd.open(2)
    crowd.plan.discard(young)
    crowd.pass_time(AGE - LAST + 1)
    assert crowd.plan.ripe + len(crowd.asked) == 1
    crowd.plan.discard(ripe)
    crowd.plan.discard(Session("/", START))
    assert (crowd.plan.ripe, crowd.plan.ask_at) == (0, None)


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


def test_it_names_its_rate():
    """The line of the old is a strategy like others, and says what it does."""
    crowd = Crowd(limit=2.0)
    crowd.open(1000)
    crowd.pass_time(AGE - LAST + 1)
    assert crowd.plan._plan.describe(crowd.now) == "by age, 2 sessions/s"
