"""``starlette-drain plan``: what a deployment will do to the clients, as a table, as JSON or as a picture."""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from starlette_drain._core.declared import environment_name
from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain.aws.options import AwsSettings
from starlette_drain.exceptions import SettingsError
from starlette_drain.tools.option_help import argument_help
from starlette_drain.tools.plan.allowance import LONGEST_DELAY
from starlette_drain.tools.plan.clients import CLIENTS
from starlette_drain.tools.plan.deployment import Deployment
from starlette_drain.tools.plan.plot import PlotNotPossible, draw
from starlette_drain.tools.plan.rehearsal import Course, rehearse
from starlette_drain.tools.plan.sums import Fleet

__all__ = ["add_command"]

USUAL = AwsSettings()

ROWS = 24
"""Lines of the curves on a terminal."""

BAR = 40
"""Characters of the longest bar."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    words = "work out what a deployment will do to the clients, without AWS"
    parser = commands.add_parser("plan", help=words, description=words)
    parser.add_argument("--sessions", type=_whole, default=10_000, help="on each task (10,000)")
    parser.add_argument("--tasks", type=_whole, default=8, help="desired count of the service (8)")
    parser.add_argument("--delay", type=_delay, default=300.0, help="deregistration delay in seconds (300)")
    parser.add_argument("--min-percent", type=_percent, default=100, help="minimumHealthyPercent (100)")
    parser.add_argument("--max-percent", type=_whole, default=200, help="maximumPercent (200)")
    parser.add_argument("--blue-green", action="store_true", help="all old tasks go together, as in blue/green")
    parser.add_argument("--clients", choices=sorted(CLIENTS), default="full-jitter", help="how they come back")
    parser.add_argument("--accepts", type=_rate, help="attempts per second that the service takes in (any number)")
    parser.add_argument("--wish", type=_rate, help="reconnects per second that you would like at the most")
    for option in ("pacing", "window", "margin", "poll_interval", "poll_share"):
        parser.add_argument(
            f"--{option.replace('_', '-')}",
            type=_option(option),
            default=getattr(USUAL, option),
            help=argument_help(option),
        )
    parser.add_argument("--seed", type=int, default=7, help="of the randomness (7)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves into FILE (.svg, .png, .pdf; needs matplotlib)")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do what was asked; return 0, or 1 where something will not finish or the wish is not met, or 2."""
    deployment = Deployment(given.tasks, given.min_percent, given.max_percent, given.blue_green)
    fleet = Fleet(
        deployment,
        given.sessions,
        given.delay,
        given.margin,
        given.poll_interval,
        given.poll_share,
        window=given.window,
    )
    if not deployment.at_once:
        _say("No task may be taken out: raise maximumPercent, or lower minimumHealthyPercent.")
        return 1
    course = rehearse(fleet, CLIENTS[given.clients], pacing=given.pacing, accepts=given.accepts, seed=given.seed)
    troubles = _troubles(fleet, course, given)
    if given.plot:
        try:
            draw(course, fleet, given.plot)
        except PlotNotPossible as problem:
            _say(str(problem))
            return 2
    if given.json:
        _say(json.dumps(_plain(fleet, course, troubles, given)))
    else:
        _say("\n".join([*_facts(fleet, course), "", *_curves(course), "", *(troubles or ["All will be well."])]))
    return 1 if troubles else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _troubles(fleet: Fleet, course: Course, given: argparse.Namespace) -> list[str]:
    found = []
    if not fleet.deployment.healthy:
        found.append("No task serves until the old ones are gone: raise maximumPercent or minimumHealthyPercent.")
    if fleet.fits <= 0:
        found.append(f"No time is left: noticed {fleet.lag:g} s late, of {fleet.delay:g} s. Raise the delay.")
    elif course.at_deadline > max(100, 0.02 * fleet.sessions) * course.stands_for:
        found.append(f"{course.at_deadline:,} sessions are left for the instant of the deadline.")
    if isinstance(given.pacing, FleetPacing) and fleet.rate > (budget := given.pacing.limit):
        left = fleet.heaviest - budget * fleet.fits
        found.append(
            f"{left:,.0f} sessions do not fit into {fleet.fits:.0f} s at {budget:g}/s, so the "
            f"budget gives way: {fleet.rate:,.0f}/s. To keep it, {_or(fleet.remedies(budget))}."
        )
    if given.window is not None and given.window > fleet.room:
        found.append(f"The window of {given.window:g} s does not fit under the delay: {fleet.room:.0f} s do.")
    if given.wish is not None and fleet.rate > given.wish:
        found.append(
            f"{fleet.rate:,.0f} reconnects/s are more than the {given.wish:g}/s wished for: "
            f"{_or(fleet.remedies(given.wish))}."
        )
    if fleet.lag > fleet.poll_interval and fleet.lag > fleet.delay / 4:
        found.append(f"Noticed up to {fleet.lag:.0f} s late: add events by Lambda, which need no polling.")
    return found


def _or(remedies: list[str]) -> str:
    return ", or ".join(remedies)


def _facts(fleet: Fleet, course: Course) -> list[str]:
    plan = fleet.deployment
    total = plan.tasks * fleet.sessions
    rows = [
        ("sessions", f"{total:,} on {plan.tasks} tasks"),
        ("drain at once", f"{plan.at_once} of them, {plan.batches} times; {fleet.heaviest:,.0f} sessions at the most"),
        ("noticed within", f"{fleet.lag:.3g} s"),
        ("spread over", f"{fleet.fits:.0f} s of the delay of {fleet.delay:g} s"),
        ("at an even pace", f"{fleet.rate:,.0f} reconnects/s"),
        ("without a drain", f"{fleet.heaviest:,.0f} in one instant"),
        ("peak of closes", f"{course.peak_closes:,.0f}/s" + _over(course)),
        ("peak of arrivals", f"{course.peak_arrivals:,.0f}/s" + _over(course)),
        ("refused attempts", f"{course.refused:,}"),
        ("asked twice or more", f"{course.shed_twice:,} (came back to a task that was next)"),
        ("all back after", f"{course.seconds:,.0f} s"),
    ]
    return [f"{name:<20} {value}" for name, value in rows]


def _over(course: Course) -> str:
    return f" (in {course.stretch} s; each session played stands for {course.stands_for})" if course.stretch > 1 else ""


def _curves(course: Course) -> list[str]:
    """Return the curves, a line for some stretches each, by their highest values."""
    each = max(1, math.ceil(len(course.closes) / ROWS))
    top = max(course.peak_arrivals, course.peak_closes, 1e-9)
    lines = [f"{'seconds':>8} {'closes/s':>10} {'arrivals/s':>10}"]
    for begin in range(0, len(course.closes), each):
        closes, arrivals = max(course.closes[begin : begin + each]), max(course.arrivals[begin : begin + each])
        bar = "#" * round(BAR * arrivals / top)
        lines.append(f"{begin * course.stretch:>8} {closes:>10,.0f} {arrivals:>10,.0f} {bar}".rstrip())
    return lines


def _plain(fleet: Fleet, course: Course, troubles: list[str], given: argparse.Namespace) -> dict[str, Any]:
    plan = fleet.deployment
    return {
        "at_once": plan.at_once,
        "batches": plan.batches,
        "detection_lag": round(fleet.lag, 3),
        "window": round(fleet.fits, 3),
        "even_rate": round(fleet.rate, 3) if math.isfinite(fleet.rate) else None,
        **{name: value for name, value in dataclasses.asdict(course).items() if name not in ("closes", "arrivals")},
        "closes": [round(each, 3) for each in course.closes],
        "arrivals": [round(each, 3) for each in course.arrivals],
        "remedies": fleet.remedies(given.wish) if given.wish is not None and fleet.rate > given.wish else [],
        "troubles": troubles,
    }


def _whole(text: str) -> int:
    if (number := int(text.replace(",", "").replace("_", ""))) < 1:
        raise ValueError
    return number


def _percent(text: str) -> int:
    if not 0 <= (number := int(text)) <= 100:
        raise ValueError
    return number


def _rate(text: str) -> float:
    if not (math.isfinite(number := float(text)) and number > 0):
        raise ValueError
    return number


def _delay(text: str) -> float:
    if not 0 <= (number := float(text)) <= LONGEST_DELAY:
        msg = f"AWS takes a deregistration delay from 0 to {LONGEST_DELAY:g} s"
        raise argparse.ArgumentTypeError(msg)
    return number


def _option(name: str) -> Callable[[str], Any]:
    """Return what reads the option *name* as its variable would be."""

    def read(text: str) -> Any:
        try:
            return getattr(AwsSettings.load({}, {environment_name(name): text}), name)
        except SettingsError as error:
            msg = f"{text!r} cannot work: {error.remedy}"
            raise argparse.ArgumentTypeError(msg) from None

    return read
