"""A fleet that polls: what it takes of the account's Describe budget, and how late it notices a deregistration."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.facts import Fact
from starlette_drain._core.settings import Settings
from starlette_drain.aws.calls import AwsCalls
from starlette_drain.aws.client import GivenClients
from starlette_drain.aws.group import GroupWatch
from starlette_drain.aws.identity import OwnTarget
from starlette_drain.aws.impairment import Impairment
from starlette_drain.aws.polling import REFILL, fleet_interval
from starlette_drain.testing.fake_aws.faults import TokenBucket

__all__ = ["PollingFigures", "simulate_polling"]

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"
LAUNCHES = 500 / 60
"""Tasks that ECS starts for one service in a second, on Fargate: a quota of 500 a minute."""


@dataclass(frozen=True, slots=True)
class PollingFigures:
    """
    What a fleet did in a stretch of time.

    Attributes:
        tasks: Its size.
        interval: Seconds between two polls of one task.
        calls: Calls per second, on average.
        busiest: Calls in the busiest second.
        share: Part of the budget's refill that they used.
        throttled: Part of the calls that were throttled.
        throttled_at_start: Part of the calls that were throttled while the tasks were started.
        mean_lag: Seconds from a deregistration until its task noticed, on average.
        worst_lag: The longest of them.
    """

    tasks: int
    interval: float
    calls: float
    busiest: int
    share: float
    throttled: float
    throttled_at_start: float
    mean_lag: float
    worst_lag: float


class _Throttled(Exception):
    response: Mapping[str, Any] = {"Error": {"Code": "ThrottlingException"}}


class _Balancer:
    """The target group, behind the real token bucket."""

    def __init__(self, tasks: int) -> None:
        loop = asyncio.get_running_loop()
        self.bucket = TokenBucket(loop.time)
        self.targets = [_target(number) for number in range(tasks)]
        self.registered = 0
        self.asked: list[float] = []
        self.throttled: list[float] = []

    async def describe_target_health(self, **_: Any) -> Mapping[str, Any]:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if not self.bucket.take():
            self.throttled.append(now)
            raise _Throttled
        return {"TargetHealthDescriptions": self.targets[: self.registered]}

    def rate_throttled(self, begin: float, end: float) -> float:
        asked = sum(begin <= at < end for at in self.asked)
        return sum(begin <= at < end for at in self.throttled) / asked if asked else 0.0


class _Control:
    """A drain that only keeps the clock."""

    workers = 1

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def request(self, cause: DrainCause) -> None: ...

    def retract(self, trigger: str) -> bool:  # noqa: ARG002
        return False

    def open_sessions(self) -> int:
        return 0

    def advise(self, window: float) -> None: ...

    def fleet(self, draining: int, healthy: int) -> None: ...

    def tell(self, fact: Fact) -> None: ...

    async def wait_drained(self) -> bool:
        return True

    async def flush(self) -> None: ...


class _Task:
    """One task of the fleet, with the package's own poll loop."""

    def __init__(self, number: int, balancer: _Balancer, control: _Control, noticed: dict[int, float]) -> None:
        self._number = number
        self._noticed = noticed
        own = OwnTarget(ARN, frozenset({_address(number)}), frozenset({8000}), 3600.0)
        self.watch = GroupWatch(
            target=own,
            calls=AwsCalls(GivenClients(elbv2=balancer)),
            control=control,
            impairment=Impairment("target-health", control),
            rng=Random(number),
            trigger="target-health",
            groups=1,
            on_reading=self._conclude,
            is_inherited=_no,
        )

    def _conclude(self, watch: GroupWatch) -> None:
        if watch.reading.verdict.leaving:
            self._noticed.setdefault(self._number, asyncio.get_running_loop().time())


async def simulate_polling(tasks: int, *, intervals: int = 3, samples: int = 200, seed: int = 7) -> PollingFigures:
    """
    Start *tasks* tasks as fast as ECS does, let them poll, and take some out at random moments.

    Args:
        tasks: How many.
        intervals: For how many of their intervals to look, more than 1.
        samples: How many are taken out, at the most.
        seed: Of the luck.
    """
    rng, loop = Random(seed), asyncio.get_running_loop()
    balancer, control = _Balancer(tasks), _Control(Settings())
    noticed: dict[int, float] = {}
    fleet = [_Task(number, balancer, control, noticed) for number in range(tasks)]
    running = []
    for each in fleet:
        balancer.registered += 1
        running.append(asyncio.create_task(each.watch.run()))
        await asyncio.sleep(1 / LAUNCHES)
    started = loop.time()
    # Until every task has heard how many they are, and has asked once at the interval that follows.
    interval = fleet_interval(control.settings.poll_interval, tasks, 1, control.settings.poll_share)
    while True:
        if all(each.watch.lag == interval for each in fleet):
            break
        await asyncio.sleep(interval / 4)
    begin = loop.time()
    end = begin + intervals * interval
    chosen = rng.sample(range(tasks), min(tasks, samples))
    taken_out = {number: rng.uniform(begin, end - interval) for number in chosen}
    for number, at in sorted(taken_out.items(), key=lambda each: each[1]):
        await asyncio.sleep(at - loop.time())
        balancer.targets[number] = _target(number, "draining")
    await asyncio.sleep(end - loop.time() + 1.0)
    for polling in running:
        polling.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    lags = [noticed[number] - at for number, at in taken_out.items()]
    seconds = [int(at) for at in balancer.asked if begin <= at < end]
    rate = len(seconds) / (end - begin)
    return PollingFigures(
        tasks=tasks,
        interval=interval,
        calls=rate,
        busiest=max(seconds.count(second) for second in set(seconds)),
        share=rate / REFILL,
        throttled=balancer.rate_throttled(begin, end),
        throttled_at_start=balancer.rate_throttled(0, started),
        mean_lag=sum(lags) / len(lags),
        worst_lag=max(lags),
    )


async def _no() -> bool:
    return False


def _address(number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}"


def _target(number: int, state: str = "healthy") -> Mapping[str, Any]:
    return {"Target": {"Id": _address(number), "Port": 8000}, "TargetHealth": {"State": state}}
