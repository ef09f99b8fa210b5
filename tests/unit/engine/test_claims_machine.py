"""Random claims, cancels, sessions and time: what the process does is a function of the claims that stand."""

import asyncio
import re
from random import Random

import pytest
from guests import Guest, Stubborn, open_guests
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from starlette_drain import Drain, DrainCause, DrainState, IllegalTransition, TooLateToCancel
from starlette_drain._core.events import DrainCancelled, DrainFinished, DrainStarted
from starlette_drain.testing import RecordingObserver, VirtualTimeLoop

LETTERS = {"DrainStarted": "S", "DrainReplanned": "R", "DrainFinished": "F", "DrainCancelled": "C"}

COURSE = re.compile(r"(SR*(FR*C?|C))*(SR*)?")
"""A drain begins, is replanned, and is over or cancelled; one that is over may be cancelled, or another run follows."""

triggers = st.sampled_from(["health", "task", "deployment"])
windows = st.integers(-20, 200)


class Machine(RuleBasedStateMachine):
    """Holds the claims in a dictionary of its own. All moments are whole seconds, so none is nearly another."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.recording = RecordingObserver()
        self.drain = Drain(triggers=[], observers=[self.recording], rng=Random(7))
        self.held: dict[str, float] = {}
        self.taken_out: set[str] = set()
        self.muted: set[str] = set()
        self.is_told_to_stop = False
        self.reports: dict[str, tuple[object, str]] = {}
        self.former = "", 0.0, 0.0
        self.waiters: list[asyncio.Task[bool]] = []
        self.guests: list[Guest] = []
        self.loop.run_until_complete(self._begin())
        self.engine = self.drain.host.engine

    async def _begin(self) -> None:
        self.drain.host.begin()

    def teardown(self):
        """End everything: nobody waits any more, and nothing is left to happen."""

        async def end():
            await self.drain.host.end()
            self.engine.claim(DrainCause("too late", "", self.engine.time(), self.engine.time() + 10))
            open_guests(self.drain, 1)
            return await asyncio.wait_for(asyncio.gather(*self.waiters), 1)

        told = self.loop.run_until_complete(end())
        assert all(isinstance(each, bool) for each in told)
        before = len(self.recording.events)
        self.loop.run_until_complete(asyncio.sleep(1000))
        assert len([each for each in self.recording.events[before:] if type(each).__name__ in LETTERS]) == 0
        self.loop.close()

    def _do(self, call):
        async def turn():
            return call()

        return self.loop.run_until_complete(turn())

    @property
    def standing(self):
        """The claims that stand."""
        return {name: deadline for name, deadline in self.held.items() if name not in self.muted}

    @rule(trigger=triggers, window=windows, taken_out=st.booleans())
    def claim(self, trigger, window, taken_out):
        """A trigger says that a drain is wanted, or wants it by another moment now, or knows of the balancer."""
        now = self.engine.time()
        self._do(lambda: self.engine.claim(DrainCause(trigger, "", now, now + window, taken_out=taken_out)))
        self.held[trigger] = now + window
        (self.taken_out.add if taken_out else self.taken_out.discard)(trigger)

    @rule(trigger=triggers)
    def claim_again(self, trigger):
        """A trigger repeats itself."""
        if trigger in self.held:
            taken_out = trigger in self.taken_out
            cause = DrainCause(trigger, "", self.engine.time(), self.held[trigger], taken_out=taken_out)
            assert self._do(lambda: self.engine.claim(cause)) is False

    @rule(trigger=triggers)
    def withdraw(self, trigger):
        """A trigger says that it wants none."""
        stood = trigger in self.standing
        assert self._do(lambda: self.engine.withdraw(trigger)) is stood
        self.held.pop(trigger, None)
        self.muted.discard(trigger)

    @rule(window=st.integers(0, 200))
    def start(self, window):
        """A command by hand: it only shortens."""
        self.loop.run_until_complete(self.drain.start(window=window))
        deadline = self.engine.time() + window
        self.held["manual"] = min(self.held.get("manual", deadline), deadline)

    @rule()
    def cancel(self):
        """A cancel: too late once the process was told to stop, and illegal where there is no drain."""
        try:
            self.loop.run_until_complete(self.drain.cancel())
        except TooLateToCancel:
            assert self.is_told_to_stop
        except IllegalTransition:
            assert not self.standing
        else:
            assert not self.is_told_to_stop
            assert self.standing
            self.held.pop("manual", None)
            self.muted = set(self.held)

    @precondition(lambda self: len(self.recording.events) > 20)
    @rule(window=st.integers(0, 60))
    def sigterm(self, window):
        """The process is told to stop."""
        now = self.engine.time()
        self._do(lambda: self.engine.claim(DrainCause("sigterm", "", now, now + window, revocable=False)))
        self.held["sigterm"] = min(self.held.get("sigterm", now + window), now + window)
        self.is_told_to_stop = True

    @invariant()
    def late_arrivals_are_refused_where_another_task_takes_them(self):
        """While a claim that stands shows that the balancer sends nothing new, and when the process is to stop."""
        sent_elsewhere = self.is_told_to_stop or bool(self.taken_out & set(self.standing))
        in_time = not self.standing or self.engine.time() < self.engine._run.deadline
        assert self.engine.admits() is (not self.standing or (not sent_elsewhere and in_time))

    @rule(count=st.integers(1, 8), kind=st.sampled_from([Guest, Guest, Stubborn]))
    def arrive(self, count, kind):
        """Sessions come, where they are let in."""
        if self.engine.admits():
            self.guests += self._do(lambda: open_guests(self.drain, count, kind))

    @rule(which=st.integers(0, 100))
    def leave(self, which):
        """A session goes."""
        if self.guests:
            guest = self.guests.pop(which % len(self.guests))
            self._do(guest.go)

    @rule(seconds=st.sampled_from([0, 1, 5, 30, 300]))
    def wait(self, seconds):
        """Time passes."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule()
    def ask(self):
        """Somebody waits for a drain."""

        async def begin():
            task = asyncio.create_task(self.drain.wait_drained())
            await asyncio.sleep(0)
            return task

        state = self.drain.state
        task = self.loop.run_until_complete(begin())
        if state is DrainState.SERVING:
            assert not task.done()
        self.waiters.append(task)

    @invariant()
    def claims_are_those_that_stand(self):
        """The engine and the model hold the same."""
        assert {each.trigger: each.deadline for each in self.engine.claims} == self.standing
        assert self.engine.is_revocable is not self.is_told_to_stop

    @invariant()
    def state_follows_from_the_claims(self):
        """It drains, or has drained, exactly while a claim stands, until the earliest deadline or the moment it was."""
        assert (self.drain.state is not DrainState.SERVING) is bool(self.standing)
        assert (self.drain.progress() is not None) is bool(self.standing)
        if self.standing:
            now, earliest, deadline = self.engine.time(), min(self.standing.values()), self.engine._run.deadline
            assert deadline == earliest or earliest < deadline <= now
            drain_id, former_earliest, former_deadline = self.former
            self.former = self.drain.progress().drain_id, earliest, deadline
            if drain_id == self.drain.progress().drain_id and earliest <= former_earliest:
                assert deadline <= former_deadline
            if self.drain.state is DrainState.DRAINING:
                assert self.engine._timer.is_set
                assert self.drain.statistics().open > 0

    @invariant()
    def events_tell_a_story(self):
        """Whoever hears all events knows what happened, and each drain has its own name and one unchanged report."""
        course = "".join(LETTERS.get(type(each).__name__, "") for each in self.recording.events)
        assert COURSE.fullmatch(course), course
        names = [each.drain_id for each in self.recording.of(DrainStarted)]
        assert len(set(names)) == len(names)
        for event in (*self.recording.of(DrainFinished), *self.recording.of(DrainCancelled)):
            report, figures = self.reports.setdefault(event.drain_id, (event.report, repr(event.report)))
            assert event.report is report
            assert repr(report) == figures
        assert all(len(guest.asked_at) <= 1 for guest in self.guests)


TestMachine = pytest.mark.slow(Machine.TestCase)
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
