"""``starlette-drain plan``: computes what a deployment does to the clients, as a table, JSON or a drawing."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import click

from starlette_drain._core.admission import AdmissionPolicy
from starlette_drain._core.pacing import SHORTEST_WINDOW, burst_warning
from starlette_drain._core.turnover import LONGEST_ROTATION
from starlette_drain.aws.api.budget import ECS_REFILL, fleet_interval, is_too_slow
from starlette_drain.aws.options import AwsSettings
from starlette_drain.testing.fake_aws.strategy import STRATEGIES, Strategy
from starlette_drain.tools.drawing import PLOT, PlotNotPossible
from starlette_drain.tools.plan.allowance import BAKE_TIME, DELAY, LONGEST_DELAY, PAUSE, SIGTERM
from starlette_drain.tools.plan.clients import CLIENTS
from starlette_drain.tools.plan.crash import LONGEST as PLAYED
from starlette_drain.tools.plan.crash import Crash, Returns, play
from starlette_drain.tools.plan.deployment import START_UP, START_UPS, Deployment
from starlette_drain.tools.plan.moves import Move, rotation, scale_out
from starlette_drain.tools.plan.plot import draw
from starlette_drain.tools.plan.rehearsal import Course, rehearse
from starlette_drain.tools.plan.remedies import is_too_fast, roomier, slower
from starlette_drain.tools.plan.sums import DEPLOYMENT_LAG, EVENT_LAG, Fleet
from starlette_drain.tools.tasks.seen import counted
from starlette_drain.tools.values import RATE, Number, WholeNumber, option_of

__all__ = ["plan"]

OPTIONS = ("sources", "pacing", "window", "margin", "start_delay", "poll_interval", "poll_share")
"""The options of the drain that the plan uses."""

ROWS = 24
"""The most lines of the curves on a terminal."""

BAR = 40
"""The length of the longest bar, in characters."""

A_MOMENT = 1.0
"""Seconds by which clients may be away longer than without a drain."""

PERCENT = WholeNumber("percent", least=0, most=100, unit="a whole number")
COUNT = WholeNumber("count", least=1, unit="a whole number")
MINUTES = Number("minutes", most=20_160)
ANY = AwsSettings()

NAMES = {
    "sessions": "sessions that move",
    "window": "spread over",
    "rate": "reconnects",
    "peak": "peak of closes",
    "each_task": "of each task",
    "share": "share of each task",
    "in_each_task": "then in each task",
    "by_round_robin": "by round robin",
}
UNITS = dict.fromkeys(("rate", "peak", "each_task"), "/s") | {
    "sessions": "",
    "window": " s",
    "share": "",
    "in_each_task": "",
    "by_round_robin": " times as many in an old task as in a new one, so nothing moves there",
}
"""The units of the facts of a `Move`."""

CRASH_ROWS: dict[str, Callable[[Returns], str]] = {
    "last client back": lambda found: f"{found.back_after:.1f} s" if not found.not_back else "never",
    f"not back in {PLAYED:g} s": lambda found: f"{found.not_back:,}",
    "set-up, p99": lambda found: f"{found.p99:.3f} s",
    "attempts given up": lambda found: f"{found.gave_up:,}",
    "attempts refused": lambda found: f"{found.refused:,}",
    "in progress at most": lambda found: f"{found.most:,}",
}
"""The rows of the table of a crash."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of the command."""

    fleet: Fleet
    strategy: Strategy
    delay: float
    settings: AwsSettings
    clients: str
    accepts: float | None
    wish: float | None
    seed: int

    @property
    def needs_events(self) -> bool:
        """Whether only events by Lambda tell a task before SIGTERM."""
        return not self.settings.sources and self.fleet.allowance is DELAY

    @property
    def seconds(self) -> float:
        """Seconds from the start of the first new task until the last old one has ended."""
        return self.fleet.worst.deployment.seconds + self.strategy.seconds + self.delay


@click.command()
@click.option("--sessions", type=COUNT, default=10_000, show_default=True, help="Sessions per task.")
@click.option("--tasks", type=COUNT, default=8, show_default=True, help="Desired count of the service.")
@click.option(
    "--delay", type=Number(most=LONGEST_DELAY), default=300.0, show_default=True, help="Deregistration delay, seconds."
)
@click.option("--min-percent", type=PERCENT, default=100, show_default=True, help="minimumHealthyPercent.")
@click.option(
    "--max-percent",
    type=WholeNumber("percent", least=100, unit="a whole number"),
    default=200,
    show_default=True,
    help="maximumPercent.",
)
@click.option(
    "--start-up",
    type=Number(above=True, most=86_400),
    help="Time until a new task is healthy; decides how many old tasks drain together. Default: the worst of 5 s to "
    "5 minutes.",
)
@click.option(
    "--strategy",
    type=click.Choice(sorted(STRATEGIES)),
    default="rolling",
    show_default=True,
    help="Deployment strategy.",
)
@click.option("--blue-green", "strategy", flag_value="blue-green", help="The same as --strategy blue-green.")
@click.option("--bake", type=MINUTES, help="bakeTimeInMinutes (0; 3 for express).")
@click.option("--pause", type=MINUTES, default=0.0, help="Length of a PAUSE hook in which the old tasks are drained.")
@click.option("--nlb", is_flag=True, help="Behind a Network Load Balancer: ECS shifts traffic more slowly.")
@click.option(
    "--next-after",
    type=Number(most=86_400),
    help="The next rolling deployment begins this long after the new tasks serve; with early success criteria the old "
    "tasks may still drain.",
)
@click.option(
    "--clients",
    type=click.Choice(sorted(CLIENTS)),
    default="full-jitter",
    show_default=True,
    help="How clients reconnect.",
)
@click.option(
    "--accepts", type=RATE, help="Connection attempts per second that the service can take. Default: unlimited."
)
@click.option("--wish", type=RATE, help="Highest rate of reconnects that you want.")
@option_of("sources")
@option_of("pacing")
@option_of("window")
@option_of("margin")
@option_of("start_delay")
@option_of("poll_interval")
@option_of("poll_share")
@click.option(
    "--rotate",
    type=Number(least=SHORTEST_WINDOW, most=LONGEST_ROTATION),
    help="Instead of a deployment: a rotation of all tasks over this time.",
)
@click.option(
    "--scale-out", type=COUNT, help="Instead of a deployment: the rebalance after a scale-out to this number of tasks."
)
@click.option(
    "--crash", type=COUNT, help="Instead of a deployment: so many tasks crash, and their clients come to the others."
)
@click.option(
    "--set-up",
    type=Number(above=True, most=60.0),
    default=0.02,
    show_default=True,
    help="With --crash: what the application takes for a handshake.",
)
@click.option(
    "--at-once",
    type=COUNT,
    default=20,
    show_default=True,
    help="With --crash: handshakes that a task sets up at once before each takes longer, such as its database pool.",
)
@click.option("--slows", is_flag=True, help="With --crash: the database does less in all the more it is asked.")
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the random numbers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--plot", type=PLOT, metavar="FILE", help="Draw the curves into FILE (.svg, .png, .pdf); needs matplotlib."
)
def plan(*, as_json: bool, plot: str | None, **given: Any) -> int:
    """Compute what a deployment does to the clients."""
    if given["crash"] is not None:
        return _tell_crash(_crash(given), given["seed"], as_json=as_json)
    if (move := _move(given)) is not None:
        return _tell(move, as_json=as_json)
    asked = _asked(given)
    fleet = asked.fleet
    if not fleet.deployment.can_begin:
        click.echo(f"No task can be replaced: {_or(fleet.deployment.beginnings())}.")
        return 1
    course, without = (
        rehearse(
            fleet.worst,
            CLIENTS[asked.clients],
            pacing=asked.settings.pacing,
            accepts=asked.accepts,
            seed=asked.seed,
            drains=drains,
        )
        for drains in (True, False)
    )
    troubles = [*_troubles(asked, course, without)]
    if as_json:
        click.echo(json.dumps(_plain(asked, course, without, troubles)))
    else:
        lines = [*_facts(asked, course, without), "", *_curves(course), "", *(troubles or [_well(asked)])]
        click.echo("\n".join(lines))
    if plot:
        try:
            draw(course, fleet.worst, plot)
        except PlotNotPossible as problem:
            raise click.UsageError(str(problem)) from None
    return 1 if troubles else 0


def _move(given: dict[str, Any]) -> Move | None:
    """Return the move of sessions that was requested instead of a deployment."""
    tasks, sessions = given["tasks"], given["sessions"]
    how = {"pacing": given["pacing"] or ANY.pacing, "wish": given["wish"], "seed": given["seed"]}
    if given["rotate"] is not None:
        return rotation(tasks, sessions, given["rotate"], **how)
    if given["scale_out"] is None:
        return None
    if given["scale_out"] <= tasks:
        msg = f"--scale-out {given['scale_out']} is not a scale-out of {tasks} tasks: give more"
        raise click.UsageError(msg)
    return scale_out(tasks, given["scale_out"], sessions, **how)


def _crash(given: dict[str, Any]) -> Crash:
    tasks, lost = given["tasks"], given["crash"]
    if lost >= tasks:
        msg = f"--crash {lost} leaves none of {tasks} tasks: give fewer"
        raise click.UsageError(msg)
    return Crash(
        tasks, lost, given["sessions"], given["set_up"], given["at_once"], given["slows"], clients=given["clients"]
    )


def _tell_crash(crash: Crash, seed: int, *, as_json: bool) -> int:
    limits = {"off": None, str(crash.at_once): AdmissionPolicy(crash.at_once), "auto": AdmissionPolicy()}
    found = {name: play(crash, policy, seed) for name, policy in limits.items()}
    troubles = crash.troubles()
    advice = f'Set admission="auto", or "{crash.at_once}" if that is what each task sets up at once.'
    if as_json:
        played = {name: each.as_json() for name, each in found.items()}
        told = {"arrive": crash.arrive, "rate": round(crash.rate, 3), "advice": advice, "admission": played}
        click.echo(json.dumps({**told, "troubles": troubles}))
        return 1 if troubles else 0
    click.echo(f"come to each task    {crash.arrive:,}\nset up at best       {crash.rate:,.0f}/s in each task\n")
    click.echo(f"{'admission':<20} " + "".join(f"{name:>12}" for name in found))
    for title, show in CRASH_ROWS.items():
        click.echo(f"{title:<20} " + "".join(f"{show(each):>12}" for each in found.values()))
    click.echo("\n" + "\n".join([*troubles, advice]))
    return 1 if troubles else 0


def _tell(move: Move, *, as_json: bool) -> int:
    rows = {
        "sessions": move.sessions,
        "window": round(move.window, 3) if math.isfinite(move.window) else None,
        "rate": round(move.rate, 3),
        "peak": round(move.peak, 3),
        **move.facts,
    }
    if as_json:
        click.echo(json.dumps({**rows, "troubles": list(move.troubles)}))
    else:
        lines = [f"{NAMES[name]:<20} {each:,g}{UNITS[name]}" for name, each in rows.items() if each is not None]
        click.echo("\n".join([*lines, "", *(move.troubles or ["No problem was found."])]))
    return 1 if move.troubles else 0


def _asked(given: dict[str, Any]) -> Asked:
    settings = AwsSettings(**{name: given[name] for name in OPTIONS if given[name] is not None})
    strategy = STRATEGIES[given["strategy"]].with_times(given["bake"], given["pause"], is_network=given["nlb"])
    if given["next_after"] is not None and strategy.is_shifting:
        msg = "--next-after goes with --strategy rolling only: no other deployment ends before its old tasks"
        raise click.UsageError(msg)
    deployment = Deployment(
        given["tasks"],
        given["min_percent"],
        given["max_percent"],
        strategy.is_shifting,
        given["start_up"] or START_UP,
        given["next_after"],
    )
    early = max(DEPLOYMENT_LAG, settings.poll_interval)
    seconds, allowance, noticed = given["delay"], DELAY, _lag_of_others(settings, deployment, given)
    if strategy.bake > 0 and "service-deployment" in settings.sources:
        seconds, allowance, noticed = strategy.bake, BAKE_TIME, early
    elif strategy.pause > 0:
        seconds, allowance, noticed = min(strategy.pause, PAUSE.longest), PAUSE, early
    elif settings.sources == ("service-deployment",):
        seconds, allowance, noticed = settings.sigterm_window, SIGTERM, 0.0
        settings = replace(settings, window=None, margin=0.0, start_delay=0.0)
    fleet = Fleet(
        deployment,
        given["sessions"],
        seconds,
        settings.margin,
        settings.poll_interval,
        settings.poll_share,
        window=settings.window,
        noticed=noticed,
        allowance=allowance,
        start_delay=settings.start_delay,
        stands_in=settings.has_stand_in,
        start_ups=() if given["start_up"] or strategy.is_shifting or not deployment.can_begin else START_UPS,
    )
    return Asked(
        fleet, strategy, given["delay"], settings, given["clients"], given["accepts"], given["wish"], given["seed"]
    )


def _lag_of_others(settings: AwsSettings, deployment: Deployment, given: dict[str, Any]) -> float | None:
    """Return the lag of sources other than target health; ``None`` if only that is watched."""
    if "task-state" not in settings.sources:
        return None if "target-health" in settings.sources else EVENT_LAG
    tasks = deployment.listed(given["delay"])
    return fleet_interval(settings.poll_interval, tasks, 1, settings.poll_share, refill=ECS_REFILL)


def _troubles(asked: Asked, course: Course, without: Course) -> Iterator[str]:
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
            f"{_per_second(fleet.rate)}. To keep it, {_or(fleet.remedies(budget))}."
        )
    if asked.wish is not None and fleet.rate > asked.wish:
        cures = slower(fleet, settings.pacing, asked.wish)
        yield f"{_per_second(fleet.rate)} exceed the {asked.wish:g}/s that you want: {_or(cures)}."
    elif asked.wish is not None and is_too_fast(course.peak_closes, settings.pacing, asked.wish):
        yield (
            f"This pacing makes {course.peak_closes:,.0f} closes/s, more than the {asked.wish:g}/s that you want: "
            f"use even, or fleet:{asked.wish:g}."
        )
    if not fleet.deployment.always_serves:
        yield f"No task serves until the new ones are healthy: {_or(fleet.deployment.beginnings())}."
    elif course.refused and asked.accepts is not None:
        cures = roomier(fleet, settings.pacing, asked.accepts, CLIENTS[asked.clients], asked.seed)
        yield (
            f"{course.refused:,} attempts are refused because the service accepts {asked.accepts:g}/s: "
            f"{_or(cures) or 'every remedy that was tried leaves some refused'}."
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
            f"{_or(asked.fleet.remedies(rate))}."
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


def _well(asked: Asked) -> str:
    if asked.needs_events:
        return "With events by Lambda no problem was found. Without them the tasks drain only at SIGTERM."
    return "No problem was found."


def _or(remedies: list[str]) -> str:
    return ", or ".join(remedies)


def _per_second(rate: float) -> str:
    return f"{rate:,.0f} reconnects/s" if math.isfinite(rate) else "all reconnects at once"


def _facts(asked: Asked, course: Course, without: Course) -> list[str]:
    fleet = asked.fleet.worst
    plan = fleet.deployment
    rows = [
        ("sessions", f"{plan.tasks * fleet.sessions:,} on {counted(plan.tasks, 'task')}"),
        ("taken out", _batches(plan, is_known=not asked.fleet.start_ups)),
        ("drain together", f"{counted(fleet.draining, 'task')} at most"),
        ("noticed within", f"{fleet.lag:.3g} s{_how(asked)}"),
        ("spread over", f"{fleet.fits:.0f} s of the {fleet.allowance.name} of {fleet.delay:g} s"),
        ("at an even pace", _per_second(fleet.rate)),
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
    tasks = "1 task" if plan.at_once == 1 else f"{plan.at_once} tasks"
    if plan.batches == 1:
        return f"{tasks}, together"
    worst = "" if is_known else " (the worst case: give --start-up)"
    return f"{tasks} at a time, in {plan.batches} batches {plan.start_up:g} s apart{worst}"


def _over(course: Course) -> str:
    if course.stretch == 1:
        return ""
    return f" (over {course.stretch} s; a simulated session stands for up to {course.stands_for})"


def _curves(course: Course) -> list[str]:
    """Return the curves, with the highest values of several intervals per line."""
    each = max(1, math.ceil(len(course.closes) / ROWS))
    top = max(course.peak_arrivals, course.peak_closes, 1e-9)
    lines = [f"{'seconds':>8} {'closes/s':>10} {'arrivals/s':>10}"]
    for begin in range(0, len(course.closes), each):
        closes, arrivals = max(course.closes[begin : begin + each]), max(course.arrivals[begin : begin + each])
        bar = "#" * round(BAR * arrivals / top)
        lines.append(f"{begin * course.stretch:>8} {closes:>10,.0f} {arrivals:>10,.0f} {bar}".rstrip())
    return lines


def _plain(asked: Asked, course: Course, without: Course, troubles: list[str]) -> dict[str, Any]:
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
