"""The state of one watched target group: the last answers, and what follows from them."""

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
"""How many answers in a row must say that the target is gone, or back: AWS's APIs are eventually consistent."""

REMEMBERED = 5
"""How many answers the median number of targets is taken from, so that an outlier changes nothing."""

CONFIRMED = 3
"""How many answers that median needs to be trusted."""

DELAY_AGE = 300.0
"""Seconds after which the deregistration delay is read again."""

DELAY_INTERVALS = 40.0
"""The same in intervals, if that is longer: one call in forty."""

DELAY_RETRY = 30.0
"""Seconds after which a failed read of the delay is repeated."""


class TargetGroup:
    """
    What is known about this task's target in one group.

    Args:
        target: This task's target in the group.
        polls: The polls of the group.
        rng: The source of randomness.
        follows_delay: Whether to read the delay again.
    """

    def __init__(self, target: OwnTarget, polls: Polls, rng: Random, *, follows_delay: bool = False) -> None:
        self.target = target
        self.polls = polls
        self.reading = Reading(Verdict.UNKNOWN)
        self.seen = False
        """Whether the target was ever seen registered in this group."""
        self.looks = 0
        """The number of answers that were understood."""
        self.clear: float | None = None
        """When an answer last said that the target is not being deregistered."""
        self.is_leaving = False
        """Whether the target is deregistered, until enough answers in a row have shown it in service."""
        self._missed = 0
        """How many answers in a row did not list the target."""
        self._served = 0
        """How many answers in a row showed the target in service."""
        self._targets: deque[int] = deque(maxlen=REMEMBERED)
        self._entries: deque[int] = deque(maxlen=REMEMBERED)
        self._rng = rng
        self.delay_due = self._next_delay(polls.began, polls.interval) if follows_delay else math.inf
        """When to read the delay again, or for the first time."""

    @property
    def is_in_service(self) -> bool:
        """Whether enough answers in a row have shown the target in service."""
        return self._served >= ENOUGH_LOOKS

    @property
    def targets(self) -> int:
        """The number of targets in the group: the median of the last answers."""
        return median_low(self._targets) if self._targets else 0

    @property
    def entries(self) -> int:
        """How often this task is listed in the group: the median of the last answers."""
        return median_low(self._entries) if self._entries else 0

    @property
    def is_confirmed(self) -> bool:
        """Whether there are enough answers to trust the number of targets."""
        return len(self._targets) >= CONFIRMED

    def take(self, reading: Reading, asked: float) -> bool:
        """
        Take an answer into account; return whether it is trusted.

        An answer that does not list the target changes nothing until the next one says the same.
        """
        self._missed = self._missed + 1 if reading.verdict is Verdict.GONE else 0
        self._served = self._served + 1 if reading.verdict is Verdict.SERVING else 0
        if 0 < self._missed < ENOUGH_LOOKS and not self.reading.verdict.leaving:
            return False  # what it says about other targets is not trusted either
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
        """Record that the target was not being deregistered at *moment*, by another source."""
        if not self.is_leaving and moment > (self.polls.began if self.clear is None else self.clear):
            self.clear = moment

    def take_delay(self, delay: float | None, now: float, interval: float) -> bool:
        """Set the *delay* that was read, ``None`` if that failed; return whether it has changed."""
        if delay is None:
            self.delay_due = now + DELAY_RETRY
            return False
        self.delay_due = self._next_delay(now, interval)
        has_changed = delay != self.target.delay or self.target.delay_pending
        self.target = replace(self.target, delay=delay, delay_known=True, delay_pending=False)
        return has_changed

    def give_up_delay(self) -> None:
        """Keep the assumed delay: the call is denied."""
        self.target, self.delay_due = replace(self.target, delay_pending=False), math.inf

    def _next_delay(self, now: float, interval: float) -> float:
        return now + max(DELAY_AGE, DELAY_INTERVALS * interval) * self._rng.uniform(0.75, 1.0)

    def status(self, now: float) -> dict[str, Any]:
        """Return what ``GET /drain`` shows about the group."""
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
    """Return whether enough *groups* have deregistered the target for a drain: one, or all with the policy "all"."""
    # Of a blue/green pair the task is only ever in one group.
    joined = sum(each.seen for each in groups)
    return sum(each.is_leaving for each in groups) >= (1 if policy == "any" else max(1, joined))
