# When a fleet starts, all tasks call AWS in the same minute. So no call is made twice: each source asks its session,
# and the session calls AWS once. It also shares what costs memory and time: one set of clients, on one loop in one
# thread.
#
# A session is open while at least one source or action uses it, and keeps nothing after that: the process may be
# forked, or get another event loop.
"""What all AWS sources and actions of a process share: the clients, the task's identity, and the budget of calls."""

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
"""Seconds between the first polls, for each task of the service: with that, forty such services fit the budget."""

DISCOVERY_LIMIT = 30.0
"""Seconds for one attempt to identify this task, not counting the wait for its turn."""


class AWSSession:
    """
    The access to AWS that all sources and actions of a process share.

    Args:
        clients: Creates the AWS clients; by default with aioboto3.
        environ: The environment variables; by default those of the process.
        rng: The source of randomness.
        fetch: Gets a JSON document from the task metadata endpoint; by default in a thread.
        wall_clock: Returns seconds since 1970, to compare with AWS's times.
        record: Records the answers of AWS.
    """

    make_clients: Callable[[], AwsClients] = Aioboto3Clients
    """Creates the AWS clients if none are given."""

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
        """Enter the open session, or open it; the last user to leave closes the clients."""
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
        """Skip the wait before discovery: a drain has begun and needs the task's identity."""
        self._is_urgent = True
        if self._open:
            self._open.needed.set()

    def take_time(self) -> None:
        """Wait before discovery again: there is no drain."""
        self._is_urgent = False
        if self._open:
            self._open.needed.clear()


class OpenSession:
    """An open session, from its first user to its last; `AWSSession.open` creates it."""

    def __init__(self, session: AWSSession, settings: AwsSettings, clients: AwsClients, fetch: Fetch) -> None:
        self.loop = asyncio.get_running_loop()
        self.users = 0
        self.needed = asyncio.Event()
        """Set when a drain makes the task's identity urgent."""
        self.size = 0
        """The number of tasks of the service at the start."""
        self.cluster = 0
        """The number of tasks of the cluster at the start; 0 if unknown."""
        self.listed = 0
        """The number of tasks that the target groups listed last."""
        self.balancers = Bucket()
        """The budget of Elastic Load Balancing's Describe calls."""
        self.tasks = Bucket("ecs", ECS_REFILL)
        """The budget of DescribeTasks."""
        self.deployments = Bucket("ecs", ECS_REFILL)
        """The budget of the calls about service deployments."""
        self.task = Once(self._read_task, session.rng)
        """The task's metadata."""
        self.service = Once(self._find_service, session.rng)
        """The name of this task's service, or ``None`` for a standalone task."""
        self.record = Once(self._find_record, session.rng)
        """This task as ECS showed it at the start."""
        self.identity = Once(self._find_identity, session.rng)
        """This task's own targets."""
        self._session = session
        self._settings = settings
        self._fetch = fetch
        self.calls = AwsCalls(clients, record=session.record)
        """The AWS calls."""
        for arn in settings.target_group_arn[:1]:
            self.calls.regions["elbv2"] = self.calls.region = region_of(arn)
        self._records: EcsRecords | None = None
        self._limit = asyncio.timeout(None)

    async def records(self) -> EcsRecords:
        """
        Return the ECS records of this task.

        Raises:
            Incomplete: If the task metadata endpoint does not answer.
        """
        if self._records is None:
            task = await self.task.get()
            self._records = self._records or EcsRecords(self.calls, task)
        return self._records

    def interval(self, shortest: float, bucket: Bucket, things: int = 1, *, longest: float = 60.0) -> float:
        """Return the seconds between two calls about each of *things*, so that the whole fleet fits the budget."""
        tasks = self.listed or self.size
        alone = fleet_interval(shortest, tasks, things, self._settings.poll_share, refill=bucket.refill)
        return bucket.stretched(alone, max(1, tasks) * things, longest)

    def begin(self, shortest: float, bucket: Bucket, things: int = 1, *, longest: float, guess: float = 1.0) -> None:
        """
        Begin with long intervals in a service of more than two tasks: other services may have started with it.

        Args:
            shortest: The shortest interval between two calls about one thing, in seconds.
            bucket: The budget of the calls.
            things: The number of things that each task asks about.
            longest: The interval in seconds above which a deregistration would be noticed late.
            guess: By how much to stretch the interval if nothing is known about the cluster.
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
                records.forget()  # they may have been incomplete when they were read
            if isinstance(error, Incomplete):
                raise
            problem = f"this task could not be identified within {DISCOVERY_LIMIT:g} s"
            raise Incomplete(
                problem=problem, remedy="it will be retried; find out why the AWS APIs answer so slowly"
            ) from error

    async def _wait_turn(self, tasks: int, cluster: int, groups: int, brief: bool) -> None:  # noqa: FBT001
        """Wait for a random part of the time over which the fleet spreads its calls, or until it is urgent."""
        self.size, self.cluster = tasks, cluster
        left = (self._limit.when() or self.loop.time()) - self.loop.time()
        self._limit.reschedule(None)
        if seconds := start_spread(tasks, groups, self._settings.poll_share, brief=brief, cluster=cluster):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._session.rng.uniform(0, seconds)):
                    await self.needed.wait()
        self._limit.reschedule(self.loop.time() + left)


def _recorded(fetch: Fetch, record: Record) -> Fetch:
    """Wrap *fetch* so that its answers are recorded."""

    async def fetch_and_record(url: str) -> Mapping[str, Any]:
        answer = await fetch(url)
        record.answer("metadata", {}, answer)
        return answer

    return fetch_and_record
