"""What the command prints of a simulated deployment: facts, curves, JSON."""

import dataclasses
import math
from typing import Any

from starlette_drain.tools.plan.allowance import SIGTERM
from starlette_drain.tools.plan.asked import Asked
from starlette_drain.tools.plan.deployment import Deployment
from starlette_drain.tools.plan.rehearsal import Course
from starlette_drain.tools.plan.remedies import slower
from starlette_drain.tools.plan.troubles import per_second
from starlette_drain.tools.tasks.seen import counted

__all__ = ["as_json", "curves", "facts"]

ROWS = 24
"""The most lines of the curves on a terminal."""

BAR = 40
"""The length of the longest bar, in characters."""


def facts(asked: Asked, course: Course, without: Course) -> list[str]:
    """Return the lines of the table; *without* is the deployment without a drain."""
    fleet = asked.fleet.worst
    plan = fleet.deployment
    rows = [
        ("sessions", f"{plan.tasks * fleet.sessions:,} on {counted(plan.tasks, 'task')}"),
        ("taken out", _batches(plan, is_known=not asked.fleet.start_ups)),
        ("drain together", f"{counted(fleet.draining, 'task')} at most"),
        ("noticed within", f"{fleet.lag:.3g} s{_how(asked)}"),
        ("spread over", f"{fleet.fits:.0f} s of the {fleet.allowance.name} of {fleet.delay:g} s"),
        ("at an even pace", per_second(fleet.rate)),
        ("without a drain", f"{without.peak_closes * without.stretch:,.0f} at once"),
        ("peak of closes", f"{course.peak_closes:,.0f}/s" + _over(course)),
        ("peak of arrivals", f"{course.peak_arrivals:,.0f}/s" + _over(course)),
        ("refused attempts", f"{course.refused:,}"),
        *([("gave up for good", f"{course.gave_up:,}")] if course.gave_up else []),
        ("asked twice or more", f"{course.shed_twice:,} (came back to an old task)"),
        ("away", f"{course.away:.1f} s on average, {course.away_longest:.1f} s at most"),
        ("all back after", f"{course.seconds:,.0f} s"),
        ("a deployment takes", counted(round(asked.seconds / 60), "minute")),
    ]
    return [f"{name:<20} {value}" for name, value in rows]


def _how(asked: Asked) -> str:
    """Return a note on the lag if it does not come only from the poll of a source."""
    fleet = asked.fleet.worst
    if asked.needs_events:
        return " (by events, since no source is polled)"
    if fleet.allowance is SIGTERM:
        return " (at SIGTERM)"
    if fleet.noticed is None and fleet.lag < fleet.health_lag:
        return f" (without ecs:DescribeTasks {fleet.health_lag:.3g} s)"
    return ""


def _batches(plan: Deployment, *, is_known: bool) -> str:
    tasks = counted(plan.at_once, "task")
    if plan.batches == 1:
        return f"{tasks}, together"
    worst = "" if is_known else " (the worst case: give --start-up)"
    return f"{tasks} at a time, in {plan.batches} batches {plan.start_up:g} s apart{worst}"


def _over(course: Course) -> str:
    if course.stretch == 1:
        return ""
    return f" (over {course.stretch} s; a simulated session stands for up to {course.stands_for})"


def curves(course: Course) -> list[str]:
    """Return the curves, with the highest values of several intervals per line."""
    each = max(1, math.ceil(len(course.closes) / ROWS))
    top = max(course.peak_arrivals, course.peak_closes, 1e-9)
    lines = [f"{'seconds':>8} {'closes/s':>10} {'arrivals/s':>10}"]
    for begin in range(0, len(course.closes), each):
        closes, arrivals = max(course.closes[begin : begin + each]), max(course.arrivals[begin : begin + each])
        bar = "#" * round(BAR * arrivals / top)
        lines.append(f"{begin * course.stretch:>8} {closes:>10,.0f} {arrivals:>10,.0f} {bar}".rstrip())
    return lines


def as_json(asked: Asked, course: Course, without: Course, troubles: list[str]) -> dict[str, Any]:
    """Return the same and more, for JSON."""
    fleet, wish = asked.fleet.worst, asked.wish
    plan = fleet.deployment
    return {
        "at_once": plan.at_once,
        "batches": plan.batches,
        "draining": fleet.draining,
        "detection_lag": round(fleet.lag, 3),
        "window": round(fleet.fits, 3),
        "even_rate": round(fleet.rate, 3) if math.isfinite(fleet.rate) else None,
        **{name: value for name, value in dataclasses.asdict(course).items() if name not in ("closes", "arrivals")},
        "away_without": round(without.away, 3),
        "closes": [round(each, 3) for each in course.closes],
        "arrivals": [round(each, 3) for each in course.arrivals],
        "needs_events": asked.needs_events,
        "seconds_of_a_deployment": round(asked.seconds, 3),
        "remedies": slower(asked.fleet, asked.settings.pacing, wish) if wish is not None and fleet.rate > wish else [],
        "troubles": troubles,
    }
