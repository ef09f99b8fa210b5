# The life of a task in a rolling deployment, as ECS shows it:
#
#   new   PENDING ──(start_up)──> RUNNING, registered ──(initial)──> healthy
#   old   RUNNING ──> DEACTIVATING, deregistered ──(delay)──> SIGTERM, STOPPING ──(it ends, or stop_timeout)──> STOPPED
#
# How many start and go at a time is the scheduler's: see scheduler.py. A task that is DEACTIVATING does not count any
# more, so a deployment at less than 200 % takes out the next ones while the former drain.
"""A rolling deployment that goes on by itself."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette_drain.testing.fake_aws.cluster import FakeService, FakeTask
from starlette_drain.testing.fake_aws.scheduler import Limits

if TYPE_CHECKING:
    from starlette_drain.testing.fake_aws.app import FakeAWS

__all__ = ["FakeRollout"]

STOP_TIMEOUT = 30.0


class FakeRollout:
    """
    Replaces the tasks that a service has by new ones, on FakeAWS's clock.

    Several may go on at the same time: the next one replaces the new tasks of the first while its old ones drain, as
    early success criteria with deferred clean-up allow.

    Attributes:
        old: Those that are replaced.
        new: Those that take their place.
        stopped: When each of the old ones was told to stop, by its id, on FakeAWS's clock.

    Args:
        fake: The FakeAWS that it belongs to.
        service: Whose percentages decide how many go at a time.
        start_up: Seconds from the start of a task until it runs.
        make: Makes a new task; by default one like those of `FakeAWS.add_task`, with an address of its own.
        on_stop: Called with each old task when it is told to stop: what SIGTERM is to a process. It then ends by itself
            where this returns true; otherwise `end` must be called, or its stop timeout ends it.
    """

    def __init__(
        self,
        fake: "FakeAWS",
        service: FakeService,
        *,
        start_up: float = 30.0,
        make: Callable[[], FakeTask] | None = None,
        on_stop: Callable[[FakeTask], bool | None] = lambda _: True,
    ) -> None:
        self.service = service
        self.old = [each for each in fake.tasks if each.service is service and each.last_status == "RUNNING"]
        self.new: list[FakeTask] = []
        self.stopped: dict[str, float] = {}
        self._fake = fake
        self._start_up = start_up
        self._make = make or self._make_task
        self._on_stop = on_stop
        self._limits = Limits(service.min_percent, service.max_percent)
        self._limits.check(len(self.old))
        self._proved: set[str] = set()
        """The new tasks that have been healthy; a later deployment may have taken them out again."""
        self._ready: dict[str, float] = {}
        self._leaves: dict[str, float] = {}

    @property
    def is_complete(self) -> bool:
        """Whether all new tasks are healthy and all old ones have ended."""
        return self.is_early_success and all(each.last_status == "STOPPED" for each in self.old)

    @property
    def is_early_success(self) -> bool:
        """Whether all new tasks are healthy, which may be enough: the old ones are cleaned up later."""
        return len(self._proved) == len(self.old)

    def advance(self) -> None:
        """Go on to where the clock is."""
        if self.is_complete and len(self.stopped) == len(self.old):
            return
        now = self._fake.clock()
        for task in self.new:
            if task.last_status == "PENDING" and now >= self._ready[task.id]:
                task.last_status = "RUNNING"
                self._fake.register(task)
        for task in self.old:
            self._let_go(task, now)
        self._proved.update(each.id for each in self.new if each.last_status == "RUNNING" and self._is_healthy(each))
        running, proved = [each for each in self.old if each.last_status == "RUNNING"], len(self._proved)
        step = self._limits.step(len(self.old), old=len(running), new=proved, starting=len(self.new) - proved)
        for task in running[: step.stop]:
            self._fake.deactivate(task)
            self._leaves[task.id] = now + max((group.delay for group, _, _ in task.targets()), default=0.0)
        for _ in range(step.start):
            task = self._make()
            task.last_status, self._ready[task.id] = "PENDING", now + self._start_up
            self.new.append(task)

    def end(self, task: FakeTask) -> None:
        """Take note that the process of an old task has ended."""
        task.last_status = "STOPPED"

    def _let_go(self, task: FakeTask, now: float) -> None:
        if task.last_status == "DEACTIVATING" and now >= self._leaves.get(task.id, now):
            task.last_status, self.stopped[task.id] = "STOPPING", now
            if self._on_stop(task):
                self.end(task)
        timeout = self.service.definition.stop_timeout or STOP_TIMEOUT
        if task.last_status == "STOPPING" and now >= self.stopped[task.id] + timeout:
            self.end(task)

    def _is_healthy(self, task: FakeTask) -> bool:
        return all(
            health.state == "healthy" or not group.in_use
            for group, target, port in task.targets()
            for _, _, health in group.described([(target, port)])
        )

    def _make_task(self) -> FakeTask:
        options: dict[str, Any] = {}
        if self.old[0].instance_id is None:
            number = len(self._fake.tasks) + 5
            options["addresses"] = (f"10.0.{number // 250}.{number % 250}",)
        return self._fake.add_task(self.service, register=False, **options)
