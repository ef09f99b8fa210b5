"""Tasks or connections are lost in one moment, and nothing else happens: what that does to the tasks that are left."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields

from example_app.rollout.clients.records import Records
from example_app.rollout.cluster import Cluster
from example_app.rollout.measure import percentile
from example_app.rollout.scenarios import Strike
from example_app.rollout.tasks import Task

__all__ = ["Survivors", "crash"]

CHECK_EVERY = 0.5
CHECK_WITHIN = 2.0
"""Seconds between two health checks of a task, and after which one has failed."""

WATCHED = ("stall", "busy", "collection")
"""What a task tells of its event loop."""

WATCH_WITHIN = 30.0
"""Seconds that a task has to tell how it fared."""


@dataclass(slots=True)
class Survivors:
    """
    How those fared that were left.

    Attributes:
        stall: Seconds for which an event loop stood still, at the longest.
        busy: The same in seconds of its own CPU time, which other processes of the machine do not lengthen.
        collection: The longest garbage collection, in the same seconds.
        quiet_p99: Seconds that a handshake took in the application before the crash, at the 99th percentile.
        set_up_p50: The median afterwards.
        set_up_p99: The 99th percentile.
        checks: Health checks.
        late_checks: Those without an answer in time.
        seconds: From the first client's loss until every client was back; infinite where one never was.
        ideal: The same if the tasks had set up those that had connected, in their order and without a pause, as fast as
            they did while the middle nine tenths came back.
    """

    stall: float = 0.0
    busy: float = 0.0
    collection: float = 0.0
    quiet_p99: float = 0.0
    set_up_p50: float = 0.0
    set_up_p99: float = 0.0
    checks: int = 0
    late_checks: int = 0
    seconds: float = 0.0
    ideal: float = 0.0

    def figures(self) -> dict[str, str]:
        """Return them as they are shown."""
        shown = {each.name: f"{getattr(self, each.name):.3f}" for each in fields(self)}
        return shown | {"late_checks": f"{self.late_checks} of {self.checks}"}

    def count_returns(self, records: Records, crashed: float) -> None:
        """Take from what the clients remember how long it took until they were back."""
        losses = [each for each in records.losses if each.lost >= crashed]
        returns = sorted(math.inf if each.back is None else each.back for each in losses)
        if not returns:
            return
        began = min(each.lost for each in losses)
        takes = (percentile(returns, 0.95) - percentile(returns, 0.05)) / (0.9 * len(returns))
        connected = sorted(each for each in records.connected if each >= began)[: len(returns)]
        self.seconds = returns[-1] - began
        self.ideal = max(
            (at - began + (len(returns) - place) * takes for place, at in enumerate(connected)), default=math.inf
        )


async def crash(
    cluster: Cluster, tasks: Sequence[Task], strike: Strike, wait_back: Callable[[], Awaitable[None]]
) -> Survivors:
    """Let *strike* happen, wait until the clients are back, and return how those of *tasks* fared that are left."""
    number = strike.tasks(len(tasks))
    victims, others = tasks[:number], tasks[number:]
    found = Survivors()
    quiet = [watched for each in others for watched in await _set_ups(each, None)]
    found.quiet_p99 = percentile(sorted(quiet), 0.99)
    cluster.events.note("deployment began")
    checking = [asyncio.create_task(_check(each, found)) for each in others]
    if victims:
        await cluster.lose(victims)
    if strike.connections:
        await cluster.drop(strike.connections)
    await wait_back()
    for each in checking:
        each.cancel()
    times = sorted([watched for each in others for watched in await _set_ups(each, found)])
    found.set_up_p50, found.set_up_p99 = percentile(times, 0.5), percentile(times, 0.99)
    cluster.events.note("deployment ended")
    return found


async def _set_ups(task: Task, found: Survivors | None) -> list[float]:
    watched = await task.get("/watch", within=WATCH_WITHIN) or dict.fromkeys(WATCHED, math.inf)
    if found is not None:
        for each in WATCHED:
            setattr(found, each, max(getattr(found, each), watched[each]))
    return [float(each) for each in watched.get("set_ups", ())]


async def _check(task: Task, found: Survivors) -> None:
    while True:
        found.checks += 1
        found.late_checks += await task.get("/healthz", within=CHECK_WITHIN) is None
        await asyncio.sleep(CHECK_EVERY)
