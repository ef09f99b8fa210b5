"""The command line."""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from example_app.rollout.balancer import BALANCERS
from example_app.rollout.clients.backoff import BEHAVIOURS
from example_app.rollout.clients.control import FleetOptions
from example_app.rollout.deployment import Configuration
from example_app.rollout.faults import FAULTS
from example_app.rollout.rollout import Plan
from example_app.rollout.scenarios import SCENARIOS, Scenario
from example_app.rollout.times import Times
from starlette_drain.testing.fake_aws.strategy import STRATEGIES

__all__ = ["parse"]

EPILOG = "faults: " + "; ".join(f"{each.name}: {each.what}" for each in FAULTS.values())


def parse(arguments: Sequence[str] | None = None) -> tuple[list[Scenario], Plan]:
    """Return the scenarios to perform, and what is the same for all of them."""
    parser = _parser()
    options = parser.parse_args(arguments)
    faults = tuple(FAULTS[name] for name in options.fault)
    fleet = FleetOptions(
        clients=options.clients,
        reconnect=options.reconnect,
        ramp=options.ramp,
        kind=options.fleet,
        honour_retry_after=options.honour_retry_after,
        deaf=max((each.deaf for each in faults), default=0.0),
    )
    strategy = STRATEGIES[options.strategy].with_times(options.bake, options.pause, is_network=options.nlb)
    plan = Plan(
        tasks=options.tasks,
        fleet=fleet,
        times=Times(
            options.scale,
            options.delay,
            options.cut,
            options.stop_timeout,
            options.margin,
            options.sigterm_window,
            # As `starlette-drain plan` computes.
            strategy.bake if strategy.bake and "service-deployment" in options.sources else strategy.pause,
        ),
        deployment=Configuration(
            options.minimum_healthy_percent, options.maximum_percent, options.in_turn, strategy, options.next_after
        ),
        balancer=options.balancer,
        routing=options.routing,
        faults=faults,
        results=options.results.resolve(),
        tasks_first=options.tasks_first,
        sources=options.sources,
    )
    for conflict in _conflicts(plan):
        parser.error(conflict)
    names = options.scenario or ["sigterm-only", "drain"]
    return [SCENARIOS[name] for name in dict.fromkeys(names)], plan


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m example_app.rollout",
        description="Perform a rolling deployment on this machine, and count what the clients see of it.",
        epilog=EPILOG,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--scenario", action="append", choices=SCENARIOS, help="what tasks do when told to go; may be repeated")
    add("--tasks", type=_count, default=4, help="tasks of the service")
    add("--clients", type=_count, default=2000, help="WebSockets, all together")
    add("--reconnect", choices=BEHAVIOURS, default="phoenix", help="how clients come back; in real seconds")
    add("--honour-retry-after", action="store_true", help="clients wait as long as a 503 asks for")
    add("--ramp", type=_positive, default=500.0, help="clients per second that connect before the deployment")
    add("--fleet", default="lean", help="lean, websockets, or the command of another load generator")
    add("--balancer", choices=BALANCERS, default="tcp", help="the lab's own, or a real HAProxy")
    add("--routing", choices=("round-robin", "least-connections"), default="round-robin", help="of either balancer")
    add("--fault", action="append", default=[], choices=FAULTS, help="what goes wrong (see below); may be repeated")
    add("--tasks-first", action="store_true", help="clients and balancer run at a lower priority than the tasks")
    times = parser.add_argument_group("times, in seconds of ECS")
    times.add_argument("--scale", type=_positive, default=0.1, help="real seconds for each of them")
    times.add_argument("--delay", type=_positive, default=300.0, help="deregistration delay")
    times.add_argument("--margin", type=_seconds, default=15.0, help="DRAIN_MARGIN")
    times.add_argument("--sigterm-window", type=_positive, default=6.0, help="DRAIN_SIGTERM_WINDOW")
    times.add_argument("--cut", type=_positive, default=8.0, help="from SIGTERM to the balancer's cut")
    times.add_argument("--stop-timeout", type=_positive, default=30.0, help="from SIGTERM to SIGKILL")
    service = parser.add_argument_group("the service's deployment configuration")
    service.add_argument("--minimum-healthy-percent", type=_percent, default=100)
    service.add_argument("--maximum-percent", type=_percent, default=200)
    service.add_argument("--in-turn", action="store_true", help="let each batch end before the next begins")
    service.add_argument("--strategy", choices=STRATEGIES, default="rolling", help="as of starlette-drain plan")
    service.add_argument("--bake", type=_seconds, help="bakeTimeInMinutes; 0, or 3 for express")
    service.add_argument("--pause", type=_seconds, default=0.0, help="minutes of a PAUSE hook; old tasks drain in it")
    service.add_argument("--nlb", action="store_true", help="ten minutes more for each of two shifts of traffic")
    service.add_argument(
        "--next-after", type=_seconds, help="seconds until the next deployment, once the new tasks are healthy"
    )
    service.add_argument("--sources", default="target-health", help="DRAIN_SOURCES")
    add("--results", type=Path, default=Path("rollout-results"), help="directory for the JSON file, picture and logs")
    return parser


def _conflicts(plan: Plan) -> Iterator[str]:
    """Yield which options do not go together, with the remedy."""
    times, fleet = plan.times, plan.fleet
    try:
        plan.deployment.check(plan.tasks)
    except ValueError as error:
        yield str(error)
    if times.ecs_margin >= times.ecs_delay:
        yield f"--margin {times.ecs_margin:g} leaves nothing of a delay of {times.ecs_delay:g} s: take less"
    strategy, next_after = plan.deployment.strategy, plan.deployment.next_after
    if next_after is not None and (strategy.is_shifting or plan.deployment.in_turn):
        yield "--next-after goes with --strategy rolling without --in-turn: others end with their old tasks"
    if strategy.is_shifting and plan.routing != "round-robin":
        yield f"--strategy {strategy.name.lower()} needs --routing round-robin: it shifts traffic by weights"
    if fleet.kind == "websockets" and (fleet.deaf or fleet.honour_retry_after):
        asked = "--fault deaf-clients" if fleet.deaf else "--honour-retry-after"
        yield f"--fleet websockets does not know {asked}: take --fleet lean"


def _count(text: str) -> int:
    return int(_number(text, int, at_least=1))


def _percent(text: str) -> int:
    return int(_number(text, int, at_least=0))


def _seconds(text: str) -> float:
    return _number(text, float, at_least=0)


def _positive(text: str) -> float:
    if not (number := _seconds(text)):
        msg = "must be more than 0"
        raise argparse.ArgumentTypeError(msg)
    return number


def _number(text: str, kind: type[float], *, at_least: int) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not at_least <= number < math.inf:  # false for what is no number, too
        what = "a whole number" if kind is int else "a number"
        msg = f"must be {what} of at least {at_least}, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return number
