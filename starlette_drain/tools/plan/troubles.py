"""What will go wrong in a deployment, and what to do about it."""

import math
from collections.abc import Iterator

from starlette_drain._core.pacing import burst_warning
from starlette_drain.aws.api.budget import is_too_slow
from starlette_drain.tools.plan.allowance import DELAY, SIGTERM
from starlette_drain.tools.plan.asked import Asked
from starlette_drain.tools.plan.clients import CLIENTS
from starlette_drain.tools.plan.rehearsal import Course
from starlette_drain.tools.plan.remedies import is_too_fast, roomier, slower

__all__ = ["either", "per_second", "troubles", "well"]

A_MOMENT = 1.0
"""Seconds by which clients may be away longer than without a drain."""


def troubles(asked: Asked, course: Course, without: Course) -> Iterator[str]:
    """
    Yield what will go wrong, each with its remedies.

    Args:
        asked: The arguments of the command.
        course: The simulated deployment.
        without: The same without a drain.
    """
    fleet, settings = asked.fleet, asked.settings
    if fleet.allowance is SIGTERM:
        yield (
            "There is no bake time for service-deployment to report, so the tasks drain only at SIGTERM, in "
            f"{fleet.delay:g} s: add target-health to --sources."
        )
        return
    yield from _troubles_of_time(asked, course)
    budget = settings.fleet_rate
    if budget is not None and fleet.rate > budget and not (asked.wish is not None and asked.wish < budget):
        yield (
            f"At {budget:g}/s the sessions do not fit into {fleet.worst.fits:.0f} s, so the drains exceed the budget: "
            f"{per_second(fleet.rate)}. To keep it, {either(fleet.remedies(budget))}."
        )
    if asked.wish is not None and fleet.rate > asked.wish:
        cures = slower(fleet, settings.pacing, asked.wish)
        yield f"{per_second(fleet.rate)} exceed the {asked.wish:g}/s that you want: {either(cures)}."
    elif asked.wish is not None and is_too_fast(course.peak_closes, settings.pacing, asked.wish):
        yield (
            f"This pacing makes {course.peak_closes:,.0f} closes/s, more than the {asked.wish:g}/s that you want: "
            f"use even, or fleet:{asked.wish:g}."
        )
    if not fleet.deployment.always_serves:
        yield f"No task serves until the new ones are healthy: {either(fleet.deployment.beginnings())}."
    elif course.refused and asked.accepts is not None:
        cures = roomier(fleet, settings.pacing, asked.accepts, CLIENTS[asked.clients], asked.seed)
        yield (
            f"{course.refused:,} attempts are refused because the service accepts {asked.accepts:g}/s: "
            f"{either(cures) or 'every remedy that was tried leaves some refused'}."
        )
    if course.gave_up:
        yield f"{course.gave_up:,} clients give up for good, as {asked.clients} does after refused attempts."
    if course.away > without.away + A_MOMENT:
        yield (
            f"Clients are away for {course.away:.1f} s on average, but for {without.away:.1f} s without a drain: "
            "they are asked to leave before the service has room for them."
        )


def _troubles_of_time(asked: Asked, course: Course) -> Iterator[str]:
    fleet, settings = asked.fleet.worst, asked.settings
    if fleet.fits <= 0:
        # The remedies aim at a time to spread as long as the margin; less is hardly a drain.
        rate = fleet.deployment.tasks * fleet.sessions / max(1.0, fleet.margin)
        yield (
            f"No time is left: a task may notice after {fleet.lag:g} s, of {fleet.delay:g} s: "
            f"{either(asked.fleet.remedies(rate))}."
        )
        return
    if course.at_deadline > max(100, 0.02 * fleet.sessions) * course.stands_for:
        yield f"{course.at_deadline:,} sessions are asked all at once, at the deadline."
    if settings.window is not None and settings.window > fleet.room:
        yield (
            f"The window of {settings.window:g} s does not fit into the {fleet.allowance.name}: "
            f"set it to {math.floor(fleet.room)} s."
        )
    if warning := burst_warning(settings.pacing, fleet.fits):
        yield f"With {fleet.fits:.3g} s to spread over, {warning}."
    if fleet.allowance is DELAY and fleet.lag > fleet.poll_interval and is_too_slow(fleet.lag, fleet.delay):
        yield f"Noticed up to {fleet.lag:.0f} s late: add events by Lambda, which need no polling."


def well(asked: Asked) -> str:
    """Return the verdict on a deployment without troubles."""
    if asked.needs_events:
        return "With events by Lambda no problem was found. Without them the tasks drain only at SIGTERM."
    return "No problem was found."


def either(remedies: list[str]) -> str:
    """Return the remedies, any one of which will do, as a part of a sentence."""
    return ", or ".join(remedies)


def per_second(rate: float) -> str:
    """Return a rate of reconnects in words."""
    return f"{rate:,.0f} reconnects/s" if math.isfinite(rate) else "all reconnects at once"
