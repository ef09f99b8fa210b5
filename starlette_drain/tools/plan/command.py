"""``starlette-drain plan``: computes what a deployment does to the clients, as a table, JSON or a drawing."""

import json
import math
from collections.abc import Callable
from typing import Any

import click

from starlette_drain._core.admission import AdmissionPolicy
from starlette_drain._core.pacing import SHORTEST_WINDOW
from starlette_drain._core.turnover import LONGEST_ROTATION
from starlette_drain.aws.options import AwsSettings
from starlette_drain.testing.fake_aws.strategy import STRATEGIES
from starlette_drain.tools.drawing import PLOT, PlotNotPossible
from starlette_drain.tools.plan import tables
from starlette_drain.tools.plan.allowance import LONGEST_DELAY
from starlette_drain.tools.plan.asked import read
from starlette_drain.tools.plan.clients import CLIENTS
from starlette_drain.tools.plan.crash import LONGEST as PLAYED
from starlette_drain.tools.plan.crash import Crash, Returns, play
from starlette_drain.tools.plan.moves import Move, rotation, scale_out
from starlette_drain.tools.plan.plot import draw
from starlette_drain.tools.plan.rehearsal import rehearse
from starlette_drain.tools.plan.troubles import either, troubles, well
from starlette_drain.tools.values import RATE, Number, WholeNumber, option_of

__all__ = ["plan"]

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
    asked = read(given)
    fleet = asked.fleet
    if not fleet.deployment.can_begin:
        click.echo(f"No task can be replaced: {either(fleet.deployment.beginnings())}.")
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
    found = [*troubles(asked, course, without)]
    if as_json:
        click.echo(json.dumps(tables.as_json(asked, course, without, found)))
    else:
        lines = [*tables.facts(asked, course, without), "", *tables.curves(course), "", *(found or [well(asked)])]
        click.echo("\n".join(lines))
    if plot:
        try:
            draw(course, fleet.worst, plot)
        except PlotNotPossible as problem:
            raise click.UsageError(str(problem)) from None
    return 1 if found else 0


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
