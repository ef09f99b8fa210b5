# How often may each task of a fleet call AWS?
#
# ELBv2 gives all Describe calls of an account in one Region one bucket of 40 tokens, refilled at 10 per second:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html. A fleet that polls too fast
# throttles itself, and also Terraform, the console and deployment tools. Tasks do not know one another, but every
# answer about a target group lists them. So each task stretches its interval with the number of tasks:
#
#     interval = max(poll_interval, tasks x groups / (refill x share))
#
# `tasks` tasks that each call once per group and interval make refill x share / groups calls per second for a group,
# and refill x share for all groups together. While a deployment doubles the fleet, the interval doubles too.
#
# How many tasks are there? A task that serves two groups at once is listed in both. A task of a blue/green pair is
# listed in one group, but polls both, even if the other is empty. All tasks of a service are registered alike, so a
# task divides the number of all listed targets by how often it is listed itself: N targets in each of two groups are N
# tasks if it is in both, and 2N if it is in one. Until it is listed it assumes the larger number.
#
# A task does not know how many other services share the bucket, but sees that AWS throttles. A throttled poll doubles
# the task's interval, and an answered poll shortens it a little, down to the formula above. In balance a part p of the
# polls is throttled, with p x ln 2 = (1 - p) x RECOVERY: 1.4 %, for any number of services and tasks, and the same part
# of other calls. A service so small that it uses next to nothing is never stretched so far that it would miss a
# deregistration.
#
# Learning that only by being throttled would harm others: each of 8,000 tasks would have to be throttled four times. So
# a new task in a service of more than two asks ECS, which has another budget, for the number of tasks in the cluster,
# and assumes that all of them poll as it does. If ECS does not tell, it begins with an interval that is still short
# enough to notice in time. Either way each answer shortens the interval a little.
#
# Tasks that are started together would poll together. ECS tells how many there are, so each picks a random moment in
# the time in which all may call. In a small service a task first looks up its groups and their delay. In a large
# service that has to wait: the first poll of each task and group comes first, and may use a larger part of the budget.
# In a cluster with many more tasks than its own service, a large service waits longer.
#
# The price is the detection lag. A deregistration is noticed up to one interval late, and the deadline counts from the
# last answer before it, so each second of the interval is a second less to shed. If the lag is more than a quarter of
# the delay, polling is too slow, and a source without polling is needed.
"""How often the tasks of a fleet may call AWS: pure arithmetic."""

import math

__all__ = [
    "ADD_A_SOURCE",
    "BURST",
    "ECS_REFILL",
    "FEW",
    "PAIR",
    "REFILL",
    "START",
    "Bucket",
    "fleet_interval",
    "is_too_slow",
    "share_used",
    "stand_in_interval",
    "start_spread",
    "tasks_listed",
]

BURST = 40.0
"""Size of an account's bucket of Describe calls in one Region."""

REFILL = 10.0
"""Refill of that bucket, in calls per second."""

ECS_REFILL = 20.0
"""Refill of the bucket of DescribeTasks, and of that of the calls about service deployments, in calls per second.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

RECOVERY = 0.01
"""The part by which an answered poll shortens a stretched interval: 70 answers undo a doubling."""

DESCENT = 0.02
"""The same for an interval that was stretched on a guess: faster would overshoot and be throttled."""

MOST = 32.0
"""The largest factor by which an interval is stretched."""

NOTHING = 0.01
"""The part of the refill that a service may always use, even if others cause throttling."""

FEW = 20
"""The most tasks of a small service, which looks up its target groups before its first poll."""

START_SHARE = 0.5
"""The part of the budget that the first polls of a larger service may use."""

START = 60.0
"""Seconds in which all tasks of a fleet that starts together make their first poll, up to 300 tasks."""

PATIENT = 8.0
"""The most seconds, for each task of a service, by which a large cluster may delay its first poll."""

PAIR = 2
"""The most tasks of a service that polls at full pace from the start, however large its cluster."""

CLUSTER_SHARE = 0.45
"""The part of the budget that all tasks of a cluster may use at the start."""

SLOWEST = 0.25
"""The largest part of the delay that may pass before a deregistration is noticed."""

ADD_A_SOURCE = (
    "add the source that needs no polling, ECS events forwarded by a Lambda function; or raise the deregistration "
    "delay, or DRAIN_POLL_SHARE if little else in the account makes such calls"
)
"""What to do if polling is too slow."""


class Bucket:
    """
    One of the account's buckets of calls, as far as this task knows it.

    Args:
        service: The service, as botocore names it.
        refill: Its refill in calls per second.
    """

    def __init__(self, service: str = "elbv2", refill: float = REFILL) -> None:
        self.service = service
        self.refill = refill
        self.stretch = 1.0
        """The factor by which the intervals are longer than this service alone would need."""
        self._most = MOST
        self._is_guess = False

    def begin(self, stretch: float) -> None:
        """Stretch the intervals by *stretch* at the start. As a guess, this recovers faster until AWS throttles."""
        self.stretch, self._is_guess = min(MOST, max(self.stretch, stretch)), True

    def stretched(self, interval: float, calls: float, longest: float) -> float:
        """
        Return the interval stretched by what throttling has taught.

        Args:
            interval: The interval in seconds that the service alone would need.
            calls: The number of calls that the service makes in one interval.
            longest: The longest interval in seconds for a service with so few calls that they do not matter.
        """
        longest = max(longest, interval)
        self._most = longest / interval if calls / longest <= NOTHING * self.refill else MOST
        self.stretch = min(self.stretch, self._most)
        return interval * self.stretch

    def throttled(self) -> float:
        """Record that AWS has throttled a poll; return the factor by which the interval grows."""
        self._is_guess = False
        before = self.stretch
        self.stretch = min(self._most, before * 2)
        return self.stretch / before

    def answered(self) -> None:
        """Record that a poll was answered."""
        self.stretch = max(1.0, self.stretch * (1 - (DESCENT if self._is_guess else RECOVERY)))


def tasks_listed(targets: int, own: int) -> int:
    """
    Return the number of tasks behind the listed targets.

    Args:
        targets: The number of targets in all groups together.
        own: How many of them are this task's own; 0 if it is not listed yet.
    """
    return math.ceil(targets / max(1, own))


def fleet_interval(poll_interval: float, tasks: int, groups: int, share: float, *, refill: float = REFILL) -> float:
    """
    Return the seconds between two calls about one thing; for ELBv2, about one target group.

    Args:
        poll_interval: The shortest interval in seconds.
        tasks: The number of tasks that call as often as this one.
        groups: The number of things that each of them asks about.
        share: The part of the budget that all of them together may use.
        refill: The refill of the budget in calls per second.
    """
    return max(poll_interval, tasks * groups / (refill * share))


def stand_in_interval(delay: float, tasks: int, share: float) -> float:
    """
    Return the seconds between two questions to ECS, which is asked while target health may be asked but seldom.

    Args:
        delay: The deregistration delay.
        tasks: How many ask.
        share: Part of the budget that all of them together may use.
    """
    return fleet_interval(max(1.0, SLOWEST * delay), tasks, 1, share, refill=ECS_REFILL)


def start_spread(tasks: int, groups: int, share: float, *, brief: bool = False, cluster: int = 0) -> float:
    """
    Return over how many seconds tasks that start together have to spread their first calls; 0 if they are few.

    Args:
        tasks: The number of tasks.
        groups: The number of target groups that each of them polls.
        share: The part of the budget that all of them together may use.
        brief: Whether they make their first poll before all other calls.
        cluster: The number of tasks of their cluster, all of which may start with them; 0 if unknown.
    """
    if not groups:
        return 0.0
    calls = 1 + 2 * groups  # one for the types of all groups; the attributes and the first poll of each
    if brief:
        calls, share = groups, max(share, START_SHARE)  # only the first poll of each
    alone, all_of_them = (max(0.0, each * calls - BURST * share) / (REFILL * share) for each in (tasks, cluster))
    return max(alone, min(all_of_them, tasks * groups * PATIENT)) if brief else alone


def share_used(interval: float, tasks: int, groups: int, *, refill: float = REFILL) -> float:
    """Return the part of the budget that *tasks* tasks use if each polls *groups* things at *interval*."""
    return tasks * groups / interval / refill


def is_too_slow(lag: float, delay: float) -> bool:
    """Return whether a deregistration noticed *lag* seconds late leaves too little of its *delay*."""
    return lag > SLOWEST * delay
