"""A fleet that polls: what it takes of the account's Describe budget, and how late it notices a deregistration."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from simulations.account import Account
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import Event, TriggerPolled
from starlette_drain.aws.api.budget import REFILL, fleet_interval
from starlette_drain.aws.api.client import GivenClients
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.aws.options import AwsSettings
from starlette_drain.aws.sources.target_health import TargetHealthTrigger

__all__ = ["PolledTask", "PollingFigures", "simulate_polling"]

LAUNCHES = 500 / 60
"""Tasks that ECS starts for one service in a second, on Fargate: a quota of 500 a minute."""

SETTLED = 4000.0
"""Seconds after which a fleet is looked at at the latest."""

ENVIRON = {METADATA_VARIABLE: "http://169.254.170.2/v4/0123"}


@dataclass(frozen=True, slots=True)
class PollingFigures:
    """
    What a fleet did in a stretch of time.

    Attributes:
        tasks: Its size.
        interval: Seconds between two polls of one group by one task.
        calls: Polls per second, on average.
        busiest: Polls in the busiest second.
        share: Part of the budget's refill that they used; to read delays again comes on top.
        throttled: Part of the calls that were throttled.
        share_at_start: Part of the refill that they used while the fleet started, discovery included, in the busiest
            minute.
        throttled_at_start: Part of the calls that were throttled meanwhile.
        first_look: Seconds from the start of a task until it has looked for the first time, the longest of them.
        armed: Seconds from the start of the first task until every one had seen its own target.
        mean_lag: Seconds from a deregistration until its task noticed, on average.
        worst_lag: The longest of them.
    """

    tasks: int
    interval: float
    calls: float
    busiest: int
    share: float
    throttled: float
    share_at_start: float
    throttled_at_start: float
    first_look: float
    armed: float
    mean_lag: float
    worst_lag: float


class _Control:
    """A drain that keeps the clock, and notes when it is asked for."""

    workers = 1

    def __init__(self, settings: AwsSettings) -> None:
        self.settings = settings
        self.noticed: float | None = None
        self.looked: float | None = None

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def claim(self, cause: DrainCause) -> None:
        self.noticed = self.noticed or cause.at

    def withdraw(self, trigger: str) -> bool:  # noqa: ARG002
        return False

    def open_sessions(self) -> int:
        return 0

    def note_window(self, window: float) -> None: ...

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None: ...

    def emit(self, event: Event) -> None:
        if isinstance(event, TriggerPolled):
            self.looked = self.looked or event.at

    async def wait_drained(self) -> bool:
        return True

    async def flush(self) -> None: ...


class PolledTask:
    """One task of the fleet, with the package's own trigger."""

    def __init__(self, number: int, account: Account, settings: AwsSettings, *, seed: int | None = None) -> None:
        async def fetch(_: str) -> Mapping[str, Any]:
            return account.metadata(number)

        clients = GivenClients(elbv2=account, ecs=account)
        self.control = _Control(settings)
        self.trigger = TargetHealthTrigger(
            clients=clients, environ=ENVIRON, rng=Random(number if seed is None else seed), fetch=fetch
        )

    def interval(self) -> float | None:
        """Return the seconds between two polls, once its own target was seen."""
        status = self.trigger.status(self.control.time())
        seen = any(each["verdict"] == "serving" for each in status["target_groups"])
        return status["target_groups"][0]["interval"] if seen else None


async def simulate_polling(
    tasks: int,
    *,
    layout: str = "one",
    intervals: int = 3,
    samples: int = 200,
    by_hand: bool = False,
    seed: int = 7,
    delay: float = 3600.0,
) -> PollingFigures:
    """
    Start *tasks* tasks as fast as ECS does, let them poll, and take some out at random moments.

    Args:
        tasks: How many.
        layout: Which target groups list them, a key of `GROUPS`.
        intervals: For how many of their intervals to look, more than 1.
        samples: How many are taken out, at the most.
        by_hand: Whether the target groups are given by a setting, so that nobody asks ECS how large the service is.
        seed: Of the luck.
        delay: Of the target groups: while polls are rarer than a quarter of it, ECS is asked in between.
    """
    rng, loop = Random(seed), asyncio.get_running_loop()
    account = Account(tasks, layout, delay=delay)
    settings = AwsSettings(target_group_arn=account.arns if by_hand else ())
    fleet = [PolledTask(number, account, settings) for number in range(tasks)]
    running, started = [], []
    for each in fleet:
        started.append(loop.time())
        account.registered += 1
        running.append(asyncio.create_task(each.trigger.watch(each.control)))
        await asyncio.sleep(1 / LAUNCHES)
    # Until every task has heard how many they are, and a whole interval more, in which the phases spread.
    interval = fleet_interval(settings.poll_interval, tasks, len(account.arns), settings.poll_share)
    await _wait_for(lambda: all(each.interval() for each in fleet))
    armed = loop.time()
    # Those that were throttled when they started take hours; the others need not wait for them.
    settled = armed + SETTLED
    await _wait_for(lambda: all(each.interval() == interval for each in fleet) or loop.time() > settled, every=20.0)
    await asyncio.sleep(interval)
    begin = loop.time()
    end = begin + intervals * interval
    chosen = rng.sample(range(tasks), min(tasks, samples))
    taken_out = {number: rng.uniform(begin, end - interval) for number in chosen}
    for number, at in sorted(taken_out.items(), key=lambda each: each[1]):
        await asyncio.sleep(at - loop.time())
        account.deregister(number)
    await asyncio.sleep(end - loop.time() + 1.0)
    for polling in running:
        polling.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    lags = [(fleet[number].control.noticed or end) - at for number, at in taken_out.items()]
    seconds = [int(at) for at in account.polled if begin <= at < end]
    rate = len(seconds) / (end - begin)
    minutes = Counter(int(at / 60) for at in account.asked if at < armed)
    return PollingFigures(
        tasks=tasks,
        interval=interval,
        calls=rate,
        busiest=max(Counter(seconds).values()),
        share=rate / REFILL,
        throttled=account.part_throttled(begin, end),
        share_at_start=max(minutes.values()) / 60 / REFILL,
        throttled_at_start=account.part_throttled(0, begin),
        first_look=max((each.control.looked or end) - at for each, at in zip(fleet, started, strict=True)),
        armed=armed,
        mean_lag=sum(lags) / len(lags),
        worst_lag=max(lags),
    )


async def _wait_for(condition: Callable[[], bool], *, every: float = 1.0) -> None:
    while not condition():  # noqa: ASYNC110 - virtual time; the poll loops tell nobody
        await asyncio.sleep(every)
