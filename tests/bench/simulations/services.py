"""Several services in one account, and somebody else who calls the same API: who is throttled, and what is noticed."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from simulations.account import Account, Shared
from simulations.polling import PolledTask
from starlette_drain.aws.options import AwsSettings
from starlette_drain.testing.fake_aws.faults import TokenBucket

__all__ = ["ServiceFigures", "simulate_services"]


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """
    What all services did in a stretch of time.

    Attributes:
        calls: Calls per second that all tasks made, those that were throttled included.
        share: Part of the refill that those used which were answered.
        throttled: Part of them that was throttled.
        outsider: Part of the outsider's calls that went through.
        outsider_at_first: The same of the first quarter of an hour.
        outsider_of_ecs: Part of those of somebody who asks DescribeTasks as often, at all times.
        first_look: Seconds from the start of a task until it has looked at its target for the first time, of all but
            one in a hundred.
        interval: Seconds between two polls of a task, in the median.
        median_lag: Seconds from a deregistration until it was noticed, in the median.
        p99_lag: The same of all but one in a hundred.
    """

    calls: float
    share: float
    throttled: float
    outsider: float
    outsider_at_first: float
    outsider_of_ecs: float
    first_look: float
    interval: float
    median_lag: float
    p99_lag: float


class _Outsider:
    """Somebody who asks so many times a second, at no regular moments, and does not try again."""

    def __init__(self, bucket: TokenBucket, rate: float, rng: Random) -> None:
        self._bucket = bucket
        self._rate = rate
        self._rng = rng
        self.answered: list[tuple[float, bool]] = []

    async def ask(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(self._rate))
            self.answered.append((asyncio.get_running_loop().time(), self._bucket.take()))

    def part_answered(self, begin: float, end: float) -> float:
        """Return which part of the calls in a stretch of time went through."""
        within = [answered for at, answered in self.answered if begin <= at < end]
        return sum(within) / len(within)


async def simulate_services(
    services: int,
    tasks: int,
    *,
    settle: float = 3600.0,
    seconds: float = 3600.0,
    samples: int = 400,
    outsider: float = 2.0,
    seed: int = 7,
    may_count: bool = True,
    may_ask_ecs: bool = True,
    started_in: float = 900.0,
) -> ServiceFigures:
    """
    Let *services* services of *tasks* tasks each poll, and take some tasks out at random moments.

    All have found out who they are, in a quarter of an hour, as after an update of all of them.

    Args:
        services: How many.
        tasks: How many each has.
        settle: Seconds until it is measured.
        seconds: For how long.
        samples: How many tasks are taken out.
        outsider: Calls per second of somebody else.
        seed: Of the luck.
        may_count: Whether the tasks may ask how many the cluster has.
        may_ask_ecs: Whether they may ask ECS about themselves.
        started_in: Seconds in which they start.
    """
    rng, loop = Random(seed), asyncio.get_running_loop()
    shared = Shared()
    allowed = {"may_count": may_count, "may_ask_ecs": may_ask_ecs}
    accounts = [Account(tasks, "one", shared, **allowed) for _ in range(services)]
    other, of_ecs = (_Outsider(each, outsider, Random(seed)) for each in (shared.balancers, shared.tasks))
    running = [asyncio.create_task(each.ask()) for each in (other, of_ecs)]
    fleet = []
    settings = AwsSettings(deregistration_delay=300.0)
    for number, account in enumerate(accounts):
        account.registered = tasks
        fleet += [PolledTask(own, account, settings, seed=number * tasks + own) for own in range(tasks)]
    starts = sorted((rng.uniform(0, started_in), number) for number in range(len(fleet)))
    for at, number in starts:
        await asyncio.sleep(at - loop.time())
        running.append(asyncio.create_task(fleet[number].trigger.watch(fleet[number].control)))
    await asyncio.sleep(settle - loop.time())
    begin, end = settle, settle + seconds
    looks = sorted((fleet[number].control.looked or begin) - at for at, number in starts)
    chosen = rng.sample(range(len(fleet)), min(len(fleet) // 2, samples))
    taken_out = {number: rng.uniform(begin, end) for number in chosen}
    intervals = sorted(each.interval() or 0.0 for each in fleet)
    for number, at in sorted(taken_out.items(), key=lambda each: each[1]):
        await asyncio.sleep(at - loop.time())
        accounts[number // tasks].deregister(number % tasks)
    await asyncio.sleep(end - loop.time())
    asked = sum(1 for at in _all(accounts, "asked") if begin <= at < end)
    throttled = sum(1 for at in _all(accounts, "throttled") if begin <= at < end)
    await asyncio.sleep(2 * intervals[-1])
    for polling in running:
        polling.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    now = loop.time()
    lags = sorted((fleet[number].control.noticed or now) - at for number, at in taken_out.items())
    return ServiceFigures(
        calls=asked / seconds,
        share=(asked - throttled) / seconds / shared.balancers.refill,
        throttled=throttled / asked,
        outsider=other.part_answered(begin, end),
        outsider_at_first=other.part_answered(0.0, 900.0),
        outsider_of_ecs=of_ecs.part_answered(0.0, end),
        first_look=looks[int(len(looks) * 0.99)],
        interval=intervals[len(intervals) // 2],
        median_lag=lags[len(lags) // 2],
        p99_lag=lags[int(len(lags) * 0.99)],
    )


def _all(accounts: list[Account], what: str) -> Iterator[float]:
    for account in accounts:
        yield from getattr(account, what)
