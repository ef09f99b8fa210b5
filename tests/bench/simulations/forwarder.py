"""The Lambda function behind its queue, in a deployment of thousands of tasks: calls, and when which task is told."""

import contextlib
import heapq
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from example_app import lambda_forwarder
from starlette_drain.testing.fake_aws.faults import TokenBucket

__all__ = ["ForwarderFigures", "simulate_forwarder"]

CLUSTER = "arn:aws:ecs:eu-central-1:123456789012:cluster/main"

# As example_app/deploy/lambda-forwarder.yaml sets them.
BATCH, WINDOW, AT_ONCE, COMES_AGAIN, RECEIVES = 100, 1.0, 10, 30.0, 10

CALL = 0.15
"""Seconds that a call of AWS takes."""

ATTEMPTS = 5
"""How often boto3 tries."""

POST = 0.3
"""Seconds that fifty tasks take to answer that are asked at the same time."""

DARK = 5.0
"""Seconds that a task takes which does not answer."""


@dataclass(frozen=True, slots=True)
class ForwarderFigures:
    """
    What became of the events.

    Attributes:
        tasks: How many were taken out.
        calls: Calls of DescribeTasks, those that were throttled included.
        throttled: How many of them were.
        outsider: Part of the calls of another tool out of the same bucket that went through.
        median: Seconds from an event until its task was told, in the median.
        last: The longest of them.
        never: Tasks that were not told.
        by_then: When the last of the tasks was told, from the beginning of the deployment.
    """

    tasks: int
    calls: int
    throttled: int
    outsider: float
    median: float
    last: float
    never: int
    by_then: float


class _Throttled(Exception):
    response: Mapping[str, Any] = {"Error": {"Code": "ThrottlingException"}}


@dataclass
class _World:
    """The clock, ECS behind its bucket, and the tasks."""

    rng: Random
    outsider_rate: float
    lag: float
    now: float = 0.0
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    throttled: int = 0
    asked_by_outsider: int = 0
    answered_to_outsider: int = 0
    dark: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.latest = 0.0
        """The bucket's clock, which does not go back where invocations overlap."""
        self.bucket = TokenBucket(lambda: self.latest, capacity=100.0, refill=20.0)

    def take(self, at: float) -> bool:
        """Let the outsider take what is his up to now, then take a token."""
        while self.asked_by_outsider < at * self.outsider_rate:
            self.latest = max(self.latest, self.asked_by_outsider / self.outsider_rate)
            self.asked_by_outsider += 1
            self.answered_to_outsider += self.bucket.take()
        self.latest = max(self.latest, at)
        return self.bucket.take()

    def describe_tasks(self, *, tasks: Sequence[str], **_: Any) -> Mapping[str, Any]:
        """Answer as ECS through boto3, whose retries take time."""
        for attempt in range(ATTEMPTS):
            self.calls += 1
            self.now += CALL
            if self.take(self.now):
                return {"tasks": [self._record(each) for each in tasks], "failures": []}
            self.throttled += 1
            self.now += self.rng.random() * 2**attempt
        raise _Throttled

    def _record(self, arn: str) -> Mapping[str, Any]:
        record = self.records[arn]
        if self.now < self.began[arn] + self.lag:  # eventually consistent
            return record | {"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 3}
        return record

    def post(self, address: str, _order: Mapping[str, Any]) -> int:
        """Be told, as a task."""
        if address in self.dark:
            text = "timed out"
            raise OSError(text)
        self.told.setdefault(address, self.now + POST)
        return 202


def simulate_forwarder(
    tasks: int,
    *,
    within: float = 5.0,
    looks: bool = False,
    lag: float = 0.0,
    outsider: float = 5.0,
    dark: int = 0,
    seed: int = 7,
) -> ForwarderFigures:
    """
    Take *tasks* tasks out, and hand the events to the real function as Lambda and the template's queue do.

    Args:
        tasks: How many.
        within: Seconds in which ECS takes them out.
        looks: Whether DescribeTasks is asked about every one, as where events are old or not ECS's own.
        lag: Seconds by which the records of ECS are behind its events.
        outsider: Calls a second that others make out of the same bucket.
        dark: How many of the tasks do not answer.
        seed: Of the luck.
    """
    world = _World(Random(seed), outsider, lag)
    events: list[tuple[float, str, int]] = []
    for number in range(tasks):
        arn = f"{CLUSTER.replace(':cluster', ':task')}/{number:032x}"
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        world.records[arn] = {
            "taskArn": arn,
            "clusterArn": CLUSTER,
            "lastStatus": "DEACTIVATING",
            "desiredStatus": "STOPPED",
            "version": 4,
            "containers": [{"networkInterfaces": [{"privateIpv4Address": address}]}],
        }
        world.began[arn] = world.rng.uniform(0, within)
        heapq.heappush(events, (world.began[arn], arn, 1))
    addresses = {arn: lambda_forwarder._addresses(record)[0] for arn, record in world.records.items()}
    world.dark = frozenset(list(addresses.values())[:dark])
    busy = [0.0] * AT_ONCE
    with _function(world, looks=looks):
        while events:
            heapq.heapify(busy)
            begin = max(heapq.heappop(busy), events[0][0] + WINDOW)
            batch = []
            while events and len(batch) < BATCH and events[0][0] <= begin:
                batch.append(heapq.heappop(events))
            world.now = begin
            failed = _invoke(world, batch)
            heapq.heappush(busy, world.now)
            for _, arn, receives in batch:
                if arn in failed and receives < RECEIVES:
                    heapq.heappush(events, (begin + COMES_AGAIN, arn, receives + 1))
    world.take(max(world.told.values()))
    lags = sorted(world.told[addresses[arn]] - at for arn, at in world.began.items() if addresses[arn] in world.told)
    return ForwarderFigures(
        tasks=tasks,
        calls=world.calls,
        throttled=world.throttled,
        outsider=world.answered_to_outsider / max(1, world.asked_by_outsider),
        median=lags[len(lags) // 2],
        last=lags[-1],
        never=tasks - dark - len(lags),
        by_then=max(world.told.values()),
    )


def _invoke(world: _World, batch: Sequence[tuple[float, str, int]]) -> set[str]:
    """Hand a batch to the function, take the time that it takes, and return what has to come again."""
    wall, records = datetime.now(UTC), []
    for _, arn, _ in batch:
        time = (wall - timedelta(seconds=world.now - world.began[arn])).isoformat()
        event = {
            "source": "aws.ecs",
            "detail-type": "ECS Task State Change",
            "time": time,
            "detail": world.records[arn],
        }
        records.append({"messageId": arn, "body": json.dumps(event)})
    rounds = -(-len(batch) // lambda_forwarder.AT_ONCE)
    failed = lambda_forwarder.handler({"Records": records})["batchItemFailures"]
    world.now += rounds * POST + (DARK if failed else 0.0)
    return {each["itemIdentifier"] for each in failed}


@contextlib.contextmanager
def _function(world: _World, *, looks: bool) -> Iterator[None]:
    """Put the world into the place of AWS and of the tasks, and let what the function prints go."""
    names = ("_clients", "_post", "FRESH")
    before = {name: getattr(lambda_forwarder, name) for name in names}
    vars(lambda_forwarder).update(_clients={"ecs": world}, _post=world.post)
    if looks:
        vars(lambda_forwarder).update(FRESH=0.0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        vars(lambda_forwarder).update(before)
