"""The limit on handshakes in progress: who waits, who goes on, who is refused, and how the limit adapts."""

import heapq
from random import Random

import pytest

from starlette_drain._core.admission import (
    FRESH,
    HOLD,
    LEAST,
    MOST_HELD,
    QUIET,
    SAMPLES,
    STUCK,
    AdmissionPolicy,
    Gate,
    Storm,
    parse_admission,
)


class Task:
    """A task whose set-ups take as long as *seconds* says of how many are in progress, in simulated time."""

    def __init__(self, policy, seconds):
        self.gate = Gate(policy)
        self.seconds = seconds
        self.now = 0.0
        self.times = []
        self.waits = []
        self.refused = 0
        self.most = 0
        self._ends = []
        self._numbers = iter(range(10**9))

    def begin(self):
        """Let the application get one."""
        key = next(self._numbers)
        self.gate.begin(self.now, key)
        self.most = max(self.most, self.gate.in_progress)
        heapq.heappush(self._ends, (self.now + self.seconds(self.gate.in_progress), key, self.now))

    def arrive(self):
        """Let one arrive."""
        if self.gate.enter(self.now):
            self.begin()
        elif self.gate.hold(self.now, None) is None:
            self.gate.refuse(self.now)
            self.refused += 1

    def _let_in(self):
        while (arrival := self.gate.next(self.now)) is not None:
            self.waits.append(self.now - arrival.at)
            self.begin()

    def run(self, until):
        """Let time pass, with a look at those that wait 20 times a second."""
        while self.now < until:
            look = min(self.now + 0.05, until)
            while self._ends and self._ends[0][0] <= look:
                self.now, key, began = heapq.heappop(self._ends)
                self.times.append(self.now - began)
                self.gate.finish(self.now, key)
                self._let_in()
            self.now = look
            while self.gate.expired(self.now) is not None:
                self.gate.refuse(self.now)
                self.refused += 1
            self.gate.drop_stuck(self.now)
            self._let_in()


def pool(size, seconds, rng=None):
    """Return how long a set-up takes with a database that does *size* at a time."""
    rng = rng or Random(7)
    return lambda in_progress: seconds * max(1.0, in_progress / size) * rng.uniform(0.9, 1.1)


def calm(task, seconds=60):
    """Let ten arrive each second, for the limit to learn what is usual."""
    end = task.now + seconds
    while task.now < end:
        task.arrive()
        task.run(task.now + 0.1)
    task.times.clear()


# Who goes on


def test_no_more_are_in_progress_than_the_limit():
    """The others wait, and go on in the order in which they came."""
    gate = Gate(AdmissionPolicy(2))
    assert [gate.enter(0.0) for _ in range(3)] == [True, True, False]
    gate.begin(0.0, "a")
    gate.begin(0.0, "b")
    first, second = gate.hold(0.1, None), gate.hold(0.2, None)
    assert gate.next(0.3) is None
    assert gate.finish(0.4, "a")
    assert not gate.finish(0.4, "a")
    assert gate.next(0.4) is first
    assert gate.next(0.4) is None
    gate.leave()
    assert gate.next(0.5) is second
    assert (gate.held, gate.in_progress) == (0, 2)


def test_none_overtakes_those_that_wait():
    """A place that is free for a moment goes to one that waits, not to one that comes just then."""
    gate = Gate(AdmissionPolicy(1))
    gate.enter(0.0)
    gate.begin(0.0, "a")
    assert not gate.enter(0.0)
    gate.hold(0.0, None)
    gate.finish(0.1, "a")
    assert not gate.enter(0.1)


def test_those_go_first_that_are_still_there():
    """The most impatient clients give up after 4 s: those that have waited longer come after the younger ones."""
    gate = Gate(AdmissionPolicy(1))
    gate.enter(0.0)
    old, older = gate.hold(0.0, None), gate.hold(0.1, None)
    fresh, fresher = gate.hold(1.0, None), gate.hold(2.0, None)
    order = []
    for _ in range(4):
        gate.leave()
        order.append(gate.next(FRESH + 0.5))
    assert order == [fresh, fresher, old, older]


def test_one_that_has_gone_takes_no_place():
    """It is passed over, wherever it stands."""
    gate = Gate(AdmissionPolicy(1))
    gate.enter(0.0)
    gone, also_gone, there = (gate.hold(each, None) for each in (0.0, 1.0, 2.0))
    gate.enter(2.0)
    gate.abandon(2.0, gone)
    gate.abandon(2.0, gone)
    gate.leave()
    gate.abandon(2.0, also_gone)
    assert gate.held == 1
    assert gate.next(4.0) is there
    gate.leave()
    assert gate.next(4.0) is None
    assert gate.storm.gone == 2


def test_one_that_leaves_the_old_takes_no_place():
    """Also one that had become old before it went."""
    gate = Gate(AdmissionPolicy(1))
    gate.enter(0.0)
    gone, there = gate.hold(0.0, None), gate.hold(0.0, None)
    gate.leave()
    assert gate.next(FRESH) is gone
    gate.abandon(FRESH, there)
    gate.leave()
    assert gate.next(FRESH) is None


def test_refusals_are_spread():
    """Those that came in one moment are refused one by one, from 6 to 9 s later."""
    gate = Gate(AdmissionPolicy(1))
    gate.enter(0.0)
    for _ in range(300):
        gate.hold(0.0, None)
    assert gate.expired(HOLD[0]) is None
    by_tenth = []
    for tenth in range(61, 91):
        count = 0
        while gate.expired(tenth / 10) is not None:
            count += 1
        by_tenth.append(count)
    assert sum(by_tenth) == 300
    assert max(by_tenth) <= 12


def test_memory_has_a_limit():
    """Beyond a number of handshakes that wait, the next one is refused at once."""
    gate = Gate(AdmissionPolicy(1))
    gate.held = MOST_HELD
    assert gate.hold(0.0, None) is None


def test_a_set_up_that_hangs_gives_up_its_place():
    """An application that waits for something before it accepts does not shut out all others."""
    gate = Gate(AdmissionPolicy(1))
    gate.enter(0.0)
    gate.begin(0.0, "hangs")
    assert not gate.enter(STUCK - 0.1)
    assert gate.enter(STUCK)
    assert not gate.finish(STUCK + 1, "hangs")


def test_all_can_be_taken_out_of_the_line():
    """A drain refuses those that wait, whatever their turn."""
    gate = Gate(AdmissionPolicy(1))
    gate.enter(0.0)
    gate.hold(0.0, None)
    assert gate.any_held() is not None
    assert gate.any_held() is None
    assert gate.held == 0


def test_observing_holds_none_and_counts():
    """Everybody goes on at once; the storm says how many would have waited."""
    gate = Gate(AdmissionPolicy(1, observes=True))
    assert all(gate.enter(0.0) for _ in range(10))
    assert (gate.storm.arrived, gate.storm.held, gate.held_ever) == (9, 9, 9)


def test_workers_divide_the_limit():
    """A fixed limit is the task's; each adaptive one adapts by itself, from its share on."""
    gate = Gate(AdmissionPolicy(10))
    gate.divide(4)
    assert gate.limit == 3
    adaptive = Gate(AdmissionPolicy())
    assert adaptive.limit == 8
    adaptive.divide(4)
    assert adaptive.limit == 2
    adaptive.divide(100)
    assert adaptive.limit == 1
    adaptive.divide(1)
    assert adaptive.limit == 100


# Storms


def test_a_storm_ends_when_none_has_waited_for_a_while():
    """One storm, with its figures, however often the line is empty for a moment."""
    task = Task(AdmissionPolicy(20), pool(20, 0.02))
    for _ in range(1000):
        task.arrive()
    task.run(2.0)
    assert task.gate.end_storm(task.now) is None
    task.run(2.0 + QUIET)
    storm = task.gate.end_storm(task.now)
    assert storm is not None
    assert (storm.arrived, storm.held, storm.refused, storm.most_held) == (980, 980, 0, 980)
    assert storm.longest_wait == pytest.approx(1.0, abs=0.1)
    assert storm.p99() == pytest.approx(0.022, rel=0.1)
    assert 400 <= storm.rate(2.0) <= 1001
    assert task.gate.end_storm(task.now) is None


def test_the_slowest_percent_does_not_count():
    """One slow set-up of a hundred is not the p99; two are."""
    storm = Storm(0.0, 0.0, 1, 1)
    for _ in range(198):
        storm.count(0.02)
    storm.count(3.0)
    assert storm.p99() == pytest.approx(0.02, rel=0.05)
    storm.count(3.0)
    assert storm.p99() == pytest.approx(3.0, rel=0.05)


def test_a_storm_without_set_ups_has_no_p99():
    """There is nothing to say then."""
    assert Storm(0.0, 0.0, 1, 1).p99() == 0.0


# The adaptive limit


@pytest.mark.parametrize(("size", "seconds"), [(20, 0.02), (5, 0.1), (50, 0.005)])
def test_the_limit_finds_what_the_database_takes(size, seconds):
    """Set-ups take at most two and a half times their quiet time, and the database is kept busy."""
    task = Task(AdmissionPolicy(), pool(size, seconds))
    calm(task)
    arrivals = min(5000, int(4 * size / seconds))
    for _ in range(arrivals):
        task.arrive()
    began = task.now
    while task.gate.held:
        task.run(task.now + 0.1)
    times = sorted(task.times)
    assert times[int(0.99 * len(times))] <= 2.5 * seconds
    assert task.refused == 0
    assert task.now - began <= 1.2 * arrivals * seconds / size + 0.2


def test_a_database_that_gets_slower_the_more_it_is_asked_does_not_collapse():
    """Its throughput falls beyond 20 at once. Unlimited, 3,000 would take minutes; the limit stays near 20."""

    def seconds(in_progress):
        return 0.02 * max(1.0, in_progress / 20) ** 2

    task = Task(AdmissionPolicy(), seconds)
    calm(task)
    for _ in range(3000):
        task.arrive()
    task.run(task.now + 10)
    assert task.gate.held == 0
    assert task.refused == 0
    assert task.most <= 40


def test_without_a_quiet_time_the_first_set_ups_are_the_measure():
    """A task that starts into a storm begins with a few."""
    task = Task(AdmissionPolicy(), pool(20, 0.02))
    for _ in range(2000):
        task.arrive()
    task.run(10.0)
    assert task.refused == 0
    assert task.gate.baseline == pytest.approx(0.02, rel=0.2)
    assert task.most <= 60


def test_a_database_that_is_slower_from_now_on_is_the_new_quiet_time():
    """The limit does not stay at its least for ever: there, what is measured is the quiet time."""
    task = Task(AdmissionPolicy(), pool(20, 0.02))
    calm(task)
    task.seconds = pool(20, 0.2)
    for _ in range(120):
        for _ in range(50):
            task.arrive()
        task.run(task.now + 1.0)
    assert 0.1 <= task.gate.baseline <= 0.25
    assert task.gate.limit > 2 * LEAST
    assert task.gate.held == 0


def test_a_late_event_loop_lowers_the_limit():
    """Not again before what follows from it can be seen; in a fixed limit never."""
    gate, fixed = Gate(AdmissionPolicy()), Gate(AdmissionPolicy(16))
    for moment in (0.0, 0.05, 0.1):
        gate.note_lag(moment, 0.5)
        fixed.note_lag(moment, 0.5)
    assert gate.limit == 5
    assert fixed.limit == 16
    for second in range(100):
        gate.note_lag(float(second), 0.5)
    assert gate.limit == LEAST
    gate.note_lag(200.0, 0.05)
    assert gate.limit == LEAST


def test_a_loop_that_is_late_for_those_that_arrive_says_nothing():
    """The server reads their requests whatever the limit, and what was set up meanwhile took longer for that."""
    gate = Gate(AdmissionPolicy())
    for number in range(8):
        gate.enter(0.0)
        gate.begin(0.0, number)
    for _ in range(500):
        gate.enter(0.4)
    gate.finish(0.5, 0)
    gate.note_lag(0.5, 0.5)
    assert gate.limit == 8
    assert gate._samples == []
    gate.note_lag(1.0, 0.5)
    assert gate.limit == 6


def test_the_storm_knows_the_worst_lag_and_the_limits():
    """For the line at its end."""
    gate = Gate(AdmissionPolicy())
    for number in range(9):
        if gate.enter(0.0):
            gate.begin(0.0, number)
    gate.note_lag(0.1, 0.0)
    gate.note_lag(0.2, 0.3)
    assert (gate.storm.lag, gate.storm.lowest, gate.storm.highest) == (0.3, 6, 8)


def test_a_limit_that_is_not_reached_does_not_grow():
    """What is never used says nothing of what would happen."""
    task = Task(AdmissionPolicy(), pool(20, 0.02))
    calm(task, seconds=10 * SAMPLES)
    assert task.gate.limit == 8


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("32", AdmissionPolicy(32)),
        ("auto", AdmissionPolicy()),
        ("observe", AdmissionPolicy(observes=True)),
        (" Auto:Close:observe", AdmissionPolicy(observes=True, closes=True)),
        ("nonsense", "nonsense"),
        ("0", "0"),
    ],
)
def test_what_the_option_says(text, policy):
    """A number or auto, and words after colons."""
    assert parse_admission(text) == policy
