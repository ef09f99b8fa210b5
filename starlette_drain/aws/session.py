# A fleet that starts asks AWS about itself in the minute in which all others do too, so nothing is asked twice: each
# source asks its session, and the session asks AWS once. The same holds for what costs memory and time here: one set of
# clients, on one loop in one thread.
#
# A session is open while at least one source or action uses it, and knows nothing from one time to the next: between
# them the process may have been forked, or given another event loop.
"""What all AWS sources and actions of one process share: the clients, who this task is, and the budget of calls."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

from starlette_drain.aws.api.budget import CLUSTER_SHARE, ECS_REFILL, FEW, PAIR, Bucket, fleet_interval, start_spread
from starlette_drain.aws.api.calls import AwsCalls, Record, region_of, unobserved
from starlette_drain.aws.api.client import Aioboto3Clients, AwsClients
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.api.once import Once
from starlette_drain.aws.identity.ecs import EcsRecords
from starlette_drain.aws.identity.identity import TaskIdentity, discover
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE, Fetch, TaskMetadata, fetch_json, read_task
from starlette_drain.aws.options import AwsSettings

__all__ = ["MANY", "AWSSession", "OpenSession"]

MANY = 5.0
"""Seconds between two first questions, for each task of the service: forty such services keep to the budget then."""

DISCOVERY_LIMIT = 30.0
"""Seconds for one attempt to find out what this task is, apart from the wait for its turn."""


class AWSSession:
    """
    One way to AWS for all sources and actions of a process.

    Args:
        clients: Who makes the AWS clients; aioboto3 by default.
        environ: The environment; the process's own by default.
        rng: The source of randomness.
        fetch: Who gets a JSON document from the task metadata endpoint; a thread by default.
        wall_clock: Seconds since 1970, to compare with AWS's.
        record: Who writes down what AWS answers.
    """

    make_clients: Callable[[], AwsClients] = Aioboto3Clients
    """What makes the AWS clients where none are given."""

    def __init__(
        self,
        *,
        clients: AwsClients | None = None,
        environ: Mapping[str, str] | None = None,
        rng: Random | None = None,
        fetch: Fetch = fetch_json,
        wall_clock: Callable[[], float] = time.time,
        record: Record | None = None,
    ) -> None:
        self.environ = os.environ if environ is None else environ
        self.rng = rng or Random()
        self.wall_clock = wall_clock
        self.record = record
        self._clients = clients
        self._fetch = fetch if record is None else _recorded(fetch, record)
        self._open: OpenSession | None = None
        self._is_urgent = False

    @property
    def is_on_ecs(self) -> bool:
        """Whether this process runs in an ECS task."""
        return bool(self.environ.get(METADATA_VARIABLE))

    @asynccontextmanager
    async def open(self, settings: AwsSettings) -> AsyncIterator["OpenSession"]:
        """Share what is open already, or open it; the last one to leave closes the clients."""
        shared = self._open
        if shared is None or shared.loop is not asyncio.get_running_loop():
            shared = self._open = OpenSession(self, settings, self._clients or self.make_clients(), self._fetch)
            if self._is_urgent:
                shared.needed.set()
        shared.users += 1
        try:
            yield shared
        finally:
            shared.users -= 1
            if not shared.users:
                if self._open is shared:
                    self._open = None
                await shared.close()

    def hurry(self) -> None:
        """Let discovery wait for no turn: a drain has begun, and needs to know who we are."""
        self._is_urgent = True
        if self._open:
            self._open.needed.set()

    def take_time(self) -> None:
        """Let discovery wait for its turn again: nothing drains."""
        self._is_urgent = False
        if self._open:
            self._open.needed.clear()


class OpenSession:
    """A session from its first user to its last; `AWSSession.open` makes it."""

    def __init__(self, session: AWSSession, settings: AwsSettings, clients: AwsClients, fetch: Fetch) -> None:
        self.loop = asyncio.get_running_loop()
        self.users = 0
        self.needed = asyncio.Event()
        """Set when a drain makes it urgent to know who we are."""
        self.size = 0
        """How many tasks the service has, as ECS told at the start."""
        self.cluster = 0
        """How many tasks its cluster has, likewise; 0 where that is not known."""
        self.listed = 0
        """How many tasks the target groups list, as last seen."""
        self.balancers = Bucket()
        """The budget of Describe calls of Elastic Load Balancing."""
        self.tasks = Bucket("ecs", ECS_REFILL)
        """That of DescribeTasks."""
        self.deployments = Bucket("ecs", ECS_REFILL)
        """That of the calls about service deployments."""
        self.task = Once(self._read_task, session.rng)
        """What the metadata endpoint tells of this task."""
        self.service = Once(self._find_service, session.rng)
        """The name of this task's service, or ``None`` for a task that was started on its own."""
        self.record = Once(self._find_record, session.rng)
        """This task as ECS showed it at the start."""
        self.identity = Once(self._find_identity, session.rng)
        """This task's own targets."""
        self._session = session
        self._settings = settings
        self._fetch = fetch
        self.calls = AwsCalls(clients, record=session.record)
        """The way to AWS."""
        for arn in settings.target_group_arn[:1]:
            self.calls.regions["elbv2"] = self.calls.region = region_of(arn)
        self._records: EcsRecords | None = None
        self._limit = asyncio.timeout(None)

    async def records(self) -> EcsRecords:
        """
        Return what ECS knows of this task.

        Raises:
            Incomplete: If the task cannot be told who it is.
        """
        if self._records is None:
            task = await self.task.get()
            self._records = self._records or EcsRecords(self.calls, task)
        return self._records

    def interval(self, shortest: float, bucket: Bucket, things: int = 1, *, longest: float = 60.0) -> float:
        """Return the seconds between two questions about each of so many *things*, as all tasks together may ask."""
        tasks = self.listed or self.size
        alone = fleet_interval(shortest, tasks, things, self._settings.poll_share, refill=bucket.refill)
        return bucket.stretched(alone, max(1, tasks) * things, longest)

    def begin(self, shortest: float, bucket: Bucket, things: int = 1, *, longest: float, guess: float = 1.0) -> None:
        """
        Let a service of more than two tasks ask seldom to begin with: others may have started with it.

        Args:
            shortest: Seconds between two questions about one thing at the least.
            bucket: The budget that they come out of.
            things: About how many things each task asks.
            longest: Seconds after which a deregistration would be noticed late.
            guess: How many times as seldom as it may alone, where nothing is known of the cluster.
        """
        alone = fleet_interval(shortest, self.size, things, self._settings.poll_share, refill=bucket.refill)
        if self.cluster:
            together = self.cluster * things / (bucket.refill * CLUSTER_SHARE)
            bucket.begin((min(together, 2 * longest) if self.size <= FEW else together) / alone)
        elif self.size > PAIR:
            bucket.begin(max(min(longest, MANY * self.size) / alone, guess))

    async def close(self) -> None:
        """Close the clients."""
        await self.calls.close()

    async def _read_task(self) -> TaskMetadata:
        with unobserved():
            task = await read_task(self._session.environ[METADATA_VARIABLE], self._fetch)
        self.calls.region = region_of(task.task_arn)
        return task

    async def _find_service(self) -> str | None:
        return await (await self.records()).service_name()

    async def _find_record(self) -> Mapping[str, Any]:
        return await (await self.records()).task()

    async def _find_identity(self) -> TaskIdentity:
        given = self._settings
        records = None
        if self._session.is_on_ecs and not (given.target_group_arn and given.target_id and given.target_port):
            records = await self.records()
        metadata = records.metadata if records else None
        try:
            async with asyncio.timeout(DISCOVERY_LIMIT) as self._limit:
                return await discover(self.calls, given, metadata, self._wait_turn, records)
        except (Incomplete, TimeoutError) as error:
            if records:
                records.forget()  # a record may have been incomplete when it was read
            if isinstance(error, Incomplete):
                raise
            problem = f"this task could not be identified within {DISCOVERY_LIMIT:g} s"
            raise Incomplete(
                problem=problem, remedy="it will be retried; find out why AWS's APIs answer so slowly"
            ) from error

    async def _wait_turn(self, tasks: int, cluster: int, groups: int, brief: bool) -> None:  # noqa: FBT001
        """Wait for a random part of the time that the fleet needs to ask, and no longer than until it is needed."""
        self.size, self.cluster = tasks, cluster
        left = (self._limit.when() or self.loop.time()) - self.loop.time()
        self._limit.reschedule(None)
        if seconds := start_spread(tasks, groups, self._settings.poll_share, brief=brief, cluster=cluster):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._session.rng.uniform(0, seconds)):
                    await self.needed.wait()
        self._limit.reschedule(self.loop.time() + left)


def _recorded(fetch: Fetch, record: Record) -> Fetch:
    """Return *fetch*, and let what it gets be written down."""

    async def fetch_and_record(url: str) -> Mapping[str, Any]:
        answer = await fetch(url)
        record.answer("metadata", {}, answer)
        return answer

    return fetch_and_record
