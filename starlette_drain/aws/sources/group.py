"""One target group under watch: what the answers about it said, and what is believed of it. Pure but for its pace."""

from typing import Any

from starlette_drain.aws.identity.identity import OwnTarget
from starlette_drain.aws.sources.polls import Polls
from starlette_drain.aws.sources.verdict import Reading, Verdict

__all__ = ["TargetGroup", "is_wanted"]

ENOUGH_LOOKS = 2
"""Answers in a row that it takes to believe that the target is gone, or back: AWS's APIs are eventually consistent."""


class TargetGroup:
    """
    What is known of this task's target in one group.

    Args:
        target: What this task is in the group.
        polls: When to ask about it.
    """

    def __init__(self, target: OwnTarget, polls: Polls) -> None:
        self.target = target
        self.polls = polls
        self.reading = Reading(Verdict.UNKNOWN)
        self.seen = False
        """Whether the target was ever seen registered in this group."""
        self.entries = 0
        """How often this task is listed in this group, as last seen."""
        self.clear: float | None = None
        """When an answer last said that the target is not being taken out."""
        self.is_leaving = False
        """Whether the target is taken out; until enough answers in a row have shown it in service."""
        self._missed = 0
        """How many answers in a row did not list the target."""
        self._served = 0
        """How many answers in a row showed the target in service."""

    @property
    def is_in_service(self) -> bool:
        """Whether enough answers in a row showed the target in service."""
        return self._served >= ENOUGH_LOOKS

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
        self.entries = reading.own or self.entries
        if reading.verdict.leaving:
            self.is_leaving = True
        elif self.is_in_service:
            self.is_leaving = False
        if not reading.verdict.leaving and reading.verdict is not Verdict.UNKNOWN:
            self.clear = asked
        return True

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
