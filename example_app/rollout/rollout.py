"""One scenario from the first task to the last client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from example_app.processes import Children
from example_app.rollout.balancer import BALANCERS, Balancer
from example_app.rollout.balancer.routing import Rule
from example_app.rollout.clients.control import Fleet, FleetOptions
from example_app.rollout.clients.records import Records
from example_app.rollout.cluster import Cluster
from example_app.rollout.crash import Survivors, crash
from example_app.rollout.deployment import Configuration, deploy
from example_app.rollout.events import Events
from example_app.rollout.faults import Fault, Stage
from example_app.rollout.measure import Figures, measure
from example_app.rollout.scenarios import Scenario
from example_app.rollout.tasks import Task
from example_app.rollout.times import Times
from starlette_drain.testing import FakeAWS

__all__ = ["Outcome", "Plan", "Situation", "perform"]

STANDS_BACK = 15
"""Niceness of clients and balancer where the tasks come first."""

SETTLE_WITHIN = 120.0
"""Seconds the clients have to come back when the deployment has ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: the same for every scenario of a run."""

    tasks: int
    fleet: FleetOptions
    times: Times
    deployment: Configuration
    balancer: str
    routing: Rule
    faults: tuple[Fault, ...]
    results: Path
    tasks_first: bool = False
    sources: str = "target-health"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scenario, done."""

    scenario: Scenario
    records: Records
    events: Events
    figures: Figures
    tracebacks: int
    survivors: Survivors | None = None


@dataclass(slots=True)
class Situation:
    """What goes on at this moment, to be shown."""

    scenario: Scenario
    fleet: Fleet
    events: Events
    phase: str = "starting tasks"


async def perform(scenario: Scenario, plan: Plan, watch: Callable[[Situation], Coroutine[Any, Any, None]]) -> Outcome:
    """
    Perform a rolling deployment, and return what became of the clients.

    Args:
        scenario: How tasks leave.
        plan: Everything else.
        watch: Shows what goes on until it is cancelled.

    Raises:
        ExceptionGroup: Of whatever went wrong.
    """
    events = Events()
    results = plan.results / scenario.name
    results.mkdir(parents=True, exist_ok=True)
    aws = FakeAWS()
    async with (
        Children() as children,
        Children(STANDS_BACK if plan.tasks_first else 0) as others,
        _balancer(plan, others, results) as balancer,
    ):
        with aws.serve() as endpoint:
            cluster = Cluster(
                scenario=scenario,
                times=plan.times,
                aws=aws,
                endpoint=endpoint,
                balancer=balancer,
                children=children,
                events=events,
                results=results,
                routing=plan.routing,
                strategy=plan.deployment.strategy,
                sources=plan.sources,
            )
            fleet = Fleet(plan.fleet, others, results)
            situation = Situation(scenario, fleet, events)
            try:
                async with asyncio.TaskGroup() as going_on:
                    beside = [going_on.create_task(each) for each in (cluster.follow(), watch(situation))]
                    records, survivors = await _roll(cluster, fleet, plan, situation)
                    for each in beside:
                        each.cancel()
            finally:
                await cluster.close()
    figures = measure(records, events, plan.times)
    return Outcome(scenario, records, events, figures, cluster.tracebacks(), survivors)


@asynccontextmanager
async def _balancer(plan: Plan, children: Children, results: Path) -> AsyncIterator[Balancer]:
    targets = plan.tasks * (2 if plan.deployment.next_after is None else 3)
    balancer = BALANCERS[plan.balancer](
        children, results, clients=plan.fleet.clients, targets=targets, rule=plan.routing
    )
    try:
        await balancer.start()
        yield balancer
    finally:
        await balancer.stop()


async def _roll(cluster: Cluster, fleet: Fleet, plan: Plan, situation: Situation) -> tuple[Records, Survivors | None]:
    tasks = await asyncio.gather(*(cluster.start() for _ in range(plan.tasks)))
    await asyncio.gather(*(cluster.register(task) for task in tasks))
    situation.phase = "connecting clients"
    await fleet.start(f"ws://127.0.0.1:{cluster.balancer.port}/devices")
    await fleet.wait_open()
    await asyncio.sleep(1.0)  # so that the last handshakes are no part of the graph
    survivors = None
    if cluster.scenario.strike is not None:
        situation.phase = "clients come back"
        survivors = await crash(cluster, tasks, cluster.scenario.strike, lambda: _wait_back(fleet, plan))
    else:
        situation.phase = "deploying"
        if cluster.scenario.course is None:
            await _deploy(cluster, tasks, plan)
        else:
            cluster.events.note("deployment began")
            await cluster.scenario.course(cluster, tasks)
            cluster.events.note("deployment ended")
        situation.phase = "waiting for the last clients"
        await _wait_back(fleet, plan)
    await asyncio.sleep(1.0)
    await cluster.count_sessions()
    situation.phase = "collecting records"
    records = await fleet.finish()
    if survivors is not None:
        survivors.count_returns(records, cluster.events.times("fault")[0])
    return records, survivors


async def _wait_back(fleet: Fleet, plan: Plan) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_WITHIN):
            await fleet.wait_open(1.0 - plan.fleet.deaf)


async def _deploy(cluster: Cluster, tasks: list[Task], plan: Plan) -> None:
    """Deploy, with everything that goes wrong meanwhile."""
    stage = Stage(cluster, tasks)
    async with asyncio.TaskGroup() as going_on:
        going_on.create_task(deploy(tasks, cluster, plan.deployment, plan.times, cluster.events))
        await cluster.events.wait_for("deregistered")
        for fault in plan.faults:
            going_on.create_task(fault.strike(stage))
