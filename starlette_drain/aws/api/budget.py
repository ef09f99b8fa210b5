# How often may one task of many ask?
#
# ELBv2 gives all Describe calls of an account in one Region one bucket of 40 tokens, refilled with 10 a second:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html. A fleet that asks too often
# throttles itself, and with it everybody's Terraform, console and deployment tools. No task knows the others, but every
# answer about a target group lists them. So each task stretches its interval with the number of tasks:
#
#     interval = max(poll_interval, tasks x groups / (refill x share))
#
# `tasks` tasks that each ask about one group once in that time make refill x share / groups calls a second, and all
# groups together refill x share. While a deployment doubles the fleet the interval doubles too.
#
# How many tasks are there? One that serves two groups at once is listed in both; of a blue/green pair it is listed in
# one half, and asks about both, however empty the other. All tasks of a service are registered alike, so a task takes
# all that the groups list, and divides by how often it is listed itself: N in each of two groups are N tasks where it
# is in both, and 2N where it is in one. Until it is listed it takes the larger number.
#
# No task knows how many other services there are, and the bucket is theirs too. What tells is that AWS throttles: each
# throttled poll doubles the interval of its task, each answered one shortens it by a little, down to what the sum above
# says. A part p of the polls is throttled where p x ln 2 = (1 - p) x RECOVERY: 1.4 %, for any number of services and
# tasks, and of the calls of others as many. A service that is so small that it takes next to nothing is never stretched
# so far that it would sleep through a deregistration.
#
# To learn that by being throttled alone would cost the others dearly: each of 8,000 tasks has to be throttled four
# times. So a fresh task of more than two asks ECS, whose budget is another, how many tasks its cluster has, and takes
# all of them for tasks that ask as this one does. Where ECS does not say, it begins at an interval that notices in good
# time still. Either way each answer shortens it a little.
#
# Tasks that are started together would ask together. ECS tells how many there are, so each
# draws its moment from the time in which all may ask. In a small service a task finds out first what its groups are and
# what their delay is. In a large one that has to wait: the first look alone is one call for each task and group, and
# takes a larger part of the budget, for once. In a cluster with many more tasks than its own a large one waits longer.
#
# The price is the detection lag. A deregistration is noticed up to one interval late, and the deadline counts from the
# last answer before it, so that each second of the interval is one less to shed in. Past a quarter of the delay that is
# no way to notice at all, and something that needs no polling has to.
"""How often the tasks of a fleet may ask AWS: pure arithmetic."""

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
"""Describe calls that an account may make at once in one Region."""

REFILL = 10.0
"""Describe calls per second that it gets back."""

ECS_REFILL = 20.0
"""Likewise of DescribeTasks, and of the calls about service deployments: a bucket of its own each.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

RECOVERY = 0.01
"""By which part an answered poll shortens an interval that has been stretched: back from a doubling after 70."""

DESCENT = 0.02
"""Likewise of an interval that was stretched on a guess: faster would overshoot, and be throttled for it."""

MOST = 32.0
"""How many times as long an interval becomes at the most."""

NOTHING = 0.01
"""Part of the refill that a service may always use, however others throttle it."""

FEW = 20
"""Tasks up to which a service is small: it finds out all about its target groups before it looks for the first time."""

START_SHARE = 0.5
"""Part of the budget that the first looks of a larger one may use."""

START = 60.0
"""Seconds in which a fleet that starts together looks for the first time, up to 300 tasks."""

PATIENT = 8.0
"""Seconds for each task of a service by which a large cluster may put off its first look, at the most."""

PAIR = 2
"""Tasks up to which a service asks at full pace from the start, however many others its cluster has."""

CLUSTER_SHARE = 0.45
"""Part of the budget that all tasks of a cluster may use to begin with."""

SLOWEST = 0.25
"""Part of the delay that may pass before a deregistration is noticed."""

ADD_A_SOURCE = (
    "add the source that needs no polling, ECS events sent on by a Lambda function; or raise the deregistration delay, "
    "or DRAIN_POLL_SHARE if little else in the account makes such calls"
)
"""What to do where polling is too slow."""


class Bucket:
    """
    One of the account's buckets of calls, as far as this task knows it.

    Args:
        service: Whose calls, as botocore names it.
        refill: Calls per second that the account gets back.
    """

    def __init__(self, service: str = "elbv2", refill: float = REFILL) -> None:
        self.service = service
        self.refill = refill
        self.stretch = 1.0
        """How many times as long the intervals are as this service alone would need."""
        self._most = MOST
        self._is_guess = False

    def begin(self, stretch: float) -> None:
        """Ask so many times as seldom to begin with; that is a guess, so it recovers faster until AWS throttles."""
        self.stretch, self._is_guess = min(MOST, max(self.stretch, stretch)), True

    def stretched(self, interval: float, calls: float, longest: float) -> float:
        """
        Return the *interval* that a service keeps, as AWS throttles.

        Args:
            interval: Seconds, as the service alone would need.
            calls: How many calls the service makes in one interval.
            longest: Seconds that the interval should not exceed where so few calls do not matter.
        """
        longest = max(longest, interval)
        self._most = longest / interval if calls / longest <= NOTHING * self.refill else MOST
        self.stretch = min(self.stretch, self._most)
        return interval * self.stretch

    def throttled(self) -> float:
        """Take note that AWS has throttled a poll; return how many times as long the interval becomes."""
        self._is_guess = False
        before = self.stretch
        self.stretch = min(self._most, before * 2)
        return self.stretch / before

    def answered(self) -> None:
        """Take note that a poll was answered."""
        self.stretch = max(1.0, self.stretch * (1 - (DESCENT if self._is_guess else RECOVERY)))


def tasks_listed(targets: int, own: int) -> int:
    """
    Return how many tasks are behind what the target groups list.

    Args:
        targets: How many all groups list together.
        own: How many of them are this task's own; 0 where it is not listed yet.
    """
    return math.ceil(targets / max(1, own))


def fleet_interval(poll_interval: float, tasks: int, groups: int, share: float, *, refill: float = REFILL) -> float:
    """
    Return the seconds between two questions about one thing: for ELBv2, one target group.

    Args:
        poll_interval: Seconds that a task waits in any case.
        tasks: How many ask as often as this one.
        groups: How many such things each of them asks about.
        share: Part of the budget that all of them together may use.
        refill: Calls per second that the account gets back.
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
    Return over how many seconds tasks that start together have to spread their first questions; 0 where they are few.

    Args:
        tasks: How many there are.
        groups: Target groups that each of them asks about.
        share: Part of the budget that all of them together may use.
        brief: Whether they look for the first time before they ask anything else.
        cluster: How many tasks their cluster has, any of which may start with them; 0 where that is not known.
    """
    if not groups:
        return 0.0
    calls = 1 + 2 * groups  # the kind of all groups; the attributes and the first poll of each
    if brief:
        calls, share = groups, max(share, START_SHARE)  # the first poll of each alone
    alone, all_of_them = (max(0.0, each * calls - BURST * share) / (REFILL * share) for each in (tasks, cluster))
    return max(alone, min(all_of_them, tasks * groups * PATIENT)) if brief else alone


def share_used(interval: float, tasks: int, groups: int, *, refill: float = REFILL) -> float:
    """Return which part of the budget *tasks* tasks use that ask at *interval*."""
    return tasks * groups / interval / refill


def is_too_slow(lag: float, delay: float) -> bool:
    """Tell whether a deregistration noticed *lag* seconds late leaves too little of its *delay*."""
    return lag > SLOWEST * delay
