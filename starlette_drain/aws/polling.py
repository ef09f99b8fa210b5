# How often may one task of many ask?
#
# ELBv2 gives all Describe calls of an account in one Region one bucket of 40 tokens, refilled with 10 a second:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html. A fleet that asks too often
# throttles itself, and with it everybody's Terraform, console and deployment tools. No task knows the others, but every
# answer about a target group lists them. So each task stretches its interval with the number of targets listed:
#
#     interval = max(poll_interval, targets x groups / (refill x share))
#
# `targets` tasks that each ask about one group once in that time make refill x share / groups calls a second, and all
# groups together refill x share. While a deployment doubles the fleet the interval doubles too.
#
# The price is the detection lag. A deregistration is noticed up to one interval late, and the deadline counts from the
# last answer before it, so that each second of the interval is one less to shed in. Past a quarter of the delay that is
# no way to notice at all, and something that needs no polling has to.
"""How often the tasks of a fleet may ask ELBv2: pure arithmetic."""

__all__ = ["BURST", "REFILL", "fleet_interval", "is_too_slow", "share_used"]

BURST = 40.0
"""Describe calls that an account may make at once in one Region."""

REFILL = 10.0
"""Describe calls per second that it gets back."""

SLOWEST = 0.25
"""Part of the delay that may pass before a deregistration is noticed."""


def fleet_interval(poll_interval: float, targets: int, groups: int, share: float) -> float:
    """
    Return the seconds between two questions about one target group.

    Args:
        poll_interval: Seconds that a task waits in any case.
        targets: How many the group lists: each is taken for a task that asks as often as this one.
        groups: Target groups that each task asks about.
        share: Part of the budget that the whole fleet may use.
    """
    return max(poll_interval, targets * groups / (REFILL * share))


def share_used(interval: float, targets: int, groups: int) -> float:
    """Return which part of the budget a fleet uses that asks at *interval*."""
    return targets * groups / interval / REFILL


def is_too_slow(lag: float, delay: float) -> bool:
    """Tell whether a deregistration noticed *lag* seconds late leaves too little of its *delay*."""
    return lag > SLOWEST * delay
