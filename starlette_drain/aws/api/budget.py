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
# Tasks that are started together would ask together, for themselves (two Describe calls) and about each group. ECS,
# whose budget is another, tells how many there are, so each draws its moment from the time in which all may ask.
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
    "REFILL",
    "fleet_interval",
    "is_too_slow",
    "share_used",
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

SLOWEST = 0.25
"""Part of the delay that may pass before a deregistration is noticed."""

ADD_A_SOURCE = (
    "add the source that needs no polling, ECS events sent on by a Lambda function; or raise the deregistration delay, "
    "or DRAIN_POLL_SHARE if little else in the account makes such calls"
)
"""What to do where polling is too slow."""


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


def start_spread(tasks: int, groups: int, share: float) -> float:
    """
    Return over how many seconds tasks that start together have to spread their first questions; 0 where they are few.

    Args:
        tasks: How many there are.
        groups: Target groups that each of them asks about.
        share: Part of the budget that all of them together may use.
    """
    calls = 1 + 2 * groups if groups else 0  # the kind of all groups; the attributes and the first poll of each
    return max(0.0, tasks * calls - BURST * share) / (REFILL * share)


def share_used(interval: float, tasks: int, groups: int, *, refill: float = REFILL) -> float:
    """Return which part of the budget *tasks* tasks use that ask at *interval*."""
    return tasks * groups / interval / refill


def is_too_slow(lag: float, delay: float) -> bool:
    """Tell whether a deregistration noticed *lag* seconds late leaves too little of its *delay*."""
    return lag > SLOWEST * delay
