"""One target group under watch: what the answers about it said, and what is believed of it. Pure but for its pace."""

import math
from collections import deque
from dataclasses import replace
from random import Random
from statistics import median_low
from typing import Any

from starlette_drain.aws.identity.identity import OwnTarget
from starlette_drain.aws.sources.polls import Polls
from starlette_drain.aws.sources.verdict import Reading, Verdict

__all__ = ["TargetGroup", "is_wanted"]

ENOUGH_LOOKS = 2
"""Answers in a row that it takes to believe that the target is gone, or back: AWS's APIs are eventually consistent."""

REMEMBERED = 5
"""Answers of whose numbers of targets the median counts: one that is out of line changes nothing."""

CONFIRMED = 3
"""Answers from which on that median is believed."""

DELAY_AGE = 300.0
"""Seconds after which the deregistration delay is read again at the soonest."""

DELAY_INTERVALS = 40.0
"""Intervals after which it is, where they are long: one call in forty."""

DELAY_RETRY = 30.0
"""Seconds after which it is tried again where that failed."""


class TargetGroup:
    """
    What is known of this task's target in one group.

    Args:
        target: What this task is in the group.
        polls: When to ask about it.
        rng: The source of randomness.
        follows_delay: Whether the delay is to be read again.
    """

    def __init__(self, target: OwnTarget, polls: Polls, rng: Random, *, follows_delay: bool = False) -> None:
        self.target = target
        self.polls = polls
        self.reading = Reading(Verdict.UNKNOWN)
        self.seen = False
        """Whether the target was ever seen in service, or at least registered and not draining, in this group."""
        self.looks = 0
        """How many answers were understood."""
        self.clear: float | None = None
        """When an answer last said that the target is not being taken out."""
        self.is_leaving = False
        """Whether the target is taken out; until enough answers in a row have shown it in service."""
        self._missed = 0
        """How many answers in a row did not list the target."""
        self._served = 0
        """How many answers in a row showed the target in service."""
        self._targets: deque[int] = deque(maxlen=REMEMBERED)
        self._entries: deque[int] = deque(maxlen=REMEMBERED)
        self._rng = rng
        self.delay_due = self._next_delay(polls.began, polls.interval) if follows_delay else math.inf
        """When the delay is to be read again, or for the first time."""

    @property
    def is_in_service(self) -> bool:
        """Whether enough answers in a row showed the target in service."""
        return self._served >= ENOUGH_LOOKS

    @property
    def targets(self) -> int:
        """How many targets the group lists, by the median of the last answers."""
        return median_low(self._targets) if self._targets else 0

    @property
    def entries(self) -> int:
        """How often this task is listed in this group, likewise."""
        return median_low(self._entries) if self._entries else 0

    @property
    def is_confirmed(self) -> bool:
        """Whether enough answers have told the number of targets."""
        return len(self._targets) >= CONFIRMED

    def take(self, reading: Reading, asked: float) -> bool:
        """
        Take note of an answer; return whether it is believed.

        One that does not list our target changes nothing, until the next one says the same.
        """
        self._missed = self._missed + 1 if reading.verdict is Verdict.GONE else 0
        self._served = self._served + 1 if reading.verdict is Verdict.SERVING else 0
        if 0 < self._missed < ENOUGH_LOOKS and not self.reading.verdict.leaving:
            return False  # nor is what it says of the others to be trusted
        self.reading = reading
        self.seen = self.seen or reading.verdict.registered
        self.looks += reading.verdict is not Verdict.UNKNOWN
        self._targets.append(reading.targets)
        if reading.own:
            self._entries.append(reading.own)
        if reading.verdict.leaving:
            is_open = reading.verdict is Verdict.DRAINING or self.target.delay_pending
            if not self.is_leaving and is_open and self.delay_due < math.inf:
                self.delay_due = asked
            self.is_leaving = True
        elif self.is_in_service:
            self.is_leaving = False
        if not reading.verdict.leaving and reading.verdict is not Verdict.UNKNOWN:
            self.clear = asked
        return True

    def note_serving(self, moment: float) -> None:
        """Take note that at that *moment* the target was not being taken out yet, as others know."""
        if not self.is_leaving and moment > (self.polls.began if self.clear is None else self.clear):
            self.clear = moment

    def take_delay(self, delay: float | None, now: float, interval: float) -> bool:
        """Take note of the delay that was read again, ``None`` where that failed; return whether it has changed."""
        if delay is None:
            self.delay_due = now + DELAY_RETRY
            return False
        self.delay_due = self._next_delay(now, interval)
        has_changed = delay != self.target.delay or self.target.delay_pending
        self.target = replace(self.target, delay=delay, delay_known=True, delay_pending=False)
        return has_changed

    def give_up_delay(self) -> None:
        """Take note that the delay may not be read: what was assumed stands."""
        self.target, self.delay_due = replace(self.target, delay_pending=False), math.inf

    def _next_delay(self, now: float, interval: float) -> float:
        return now + max(DELAY_AGE, DELAY_INTERVALS * interval) * self._rng.uniform(0.75, 1.0)

    def status(self, now: float) -> dict[str, Any]:
        """Return what ``GET /drain`` shows of the group."""
        return {
            "arn": self.target.target_group_arn,
            "target": str(self.target),
            "verdict": self.reading.verdict.value,
            "targets": self.reading.targets,
            "healthy": self.reading.healthy,
            "draining": self.reading.draining,
            "delay": self.target.delay,
            "delay_known": self.target.delay_known,
            **self.polls.status(now),
        }


def is_wanted(groups: tuple[TargetGroup, ...], policy: str) -> bool:
    """Tell whether enough *groups* take the target out for a drain: the first, or with the policy "all" the last."""
    # Of a blue/green pair the task is in one half only, and never leaves the other.
    joined = sum(each.seen for each in groups)
    return sum(each.is_leaving for each in groups) >= (1 if policy == "any" else max(1, joined))
