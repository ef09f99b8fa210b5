# The life of a task in a deployment, as ECS shows it:
#
#   new   PENDING ──(start_up)──> RUNNING, registered ──(initial)──> healthy
#   old   RUNNING ──> DEACTIVATING, deregistered ──(delay)──> SIGTERM, STOPPING ──(it ends, or stop_timeout)──> STOPPED
#
# How many start and stop at a time in a rolling deployment is decided in scheduler.py. A task that is DEACTIVATING no
# longer counts, so a deployment below 200 % stops the next tasks while earlier ones drain. If traffic is shifted, all
# new tasks start at once, and all old ones stop together at the end: see strategy.py.
"""Deployments that advance by themselves."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette_drain.testing.fake_aws.cluster import FakeService, FakeTask
from starlette_drain.testing.fake_aws.deployments import FakeHook
from starlette_drain.testing.fake_aws.scheduler import Limits
from starlette_drain.testing.fake_aws.strategy import PAUSED, Stage, Strategy

if TYPE_CHECKING:
    from starlette_drain.testing.fake_aws.app import FakeAWS

__all__ = ["FakeRollout", "FakeShift"]


class Replacement:
    """Replaces the tasks of a service by new ones, on FakeAWS's clock; see `FakeRollout`."""

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
        self._proved: set[str] = set()
        """The new tasks that have been healthy; a later deployment may have stopped them again."""
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

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        return self.is_complete and len(self.stopped) == len(self.old)

    def advance(self) -> None:
        """Advance to the current time."""
        if self.is_over:
            return
        now = self._fake.clock()
        for task in self.new:
            if task.last_status == "PENDING" and now >= self._ready[task.id]:
                task.last_status = "RUNNING"
                self._fake.register(task)
        for task in (*self.old, *(each for each in self.new if each.id in self._leaves)):
            self._let_go(task, now)
        self._proved.update(each.id for each in self.new if each.last_status == "RUNNING" and self._is_healthy(each))
        self._step(now)

    def end(self, task: FakeTask) -> None:
        """Record that the process of a task has ended."""
        task.last_status = "STOPPED"

    def _step(self, now: float) -> None:
        """Start and stop the tasks that are due."""
        raise NotImplementedError

    def _start(self, now: float) -> None:
        task = self._make()
        task.last_status, self._ready[task.id] = "PENDING", now + self._start_up
        self.new.append(task)

    def _deactivate(self, task: FakeTask, now: float) -> None:
        self._fake._take_out(task)
        self._leaves[task.id] = now + task.longest_delay

    def _let_go(self, task: FakeTask, now: float) -> None:
        if task.last_status == "DEACTIVATING" and now >= self._leaves.get(task.id, now):
            task.last_status, self.stopped[task.id] = "STOPPING", now
            if self._on_stop(task):
                self.end(task)
        if task.last_status == "STOPPING" and now >= self.stopped[task.id] + task.stop_timeout:
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


class FakeRollout(Replacement):
    """
    Replaces the tasks of a service in a rolling deployment, on FakeAWS's clock.

    Several rollouts may run at the same time: the second replaces the new tasks of the first while its old ones drain,
    as early success criteria with deferred clean-up allow.

    Attributes:
        old: The tasks that are replaced.
        new: The tasks that replace them.
        stopped: When each old task was told to stop, by id, on FakeAWS's clock.

    Args:
        fake: The FakeAWS that it belongs to.
        service: The service, whose percentages decide how many tasks are replaced at a time.
        **options: ``start_up``: seconds from the start of a task until it runs (30). ``make``: creates a new task; by
            default with `FakeAWS.add_task` and its own address. ``on_stop``: called with each old task when it is told
            to stop, as by SIGTERM. If it returns true the task ends at once; otherwise `end` must be called, or the
            stop timeout ends it.
    """

    def __init__(self, fake: "FakeAWS", service: FakeService, **options: Any) -> None:
        super().__init__(fake, service, **options)
        self._limits = Limits(service.min_percent, service.max_percent)
        self._limits.check(len(self.old))

    def _step(self, now: float) -> None:
        running, proved = [each for each in self.old if each.last_status == "RUNNING"], len(self._proved)
        step = self._limits.step(len(self.old), old=len(running), new=proved, starting=len(self.new) - proved)
        for task in running[: step.stop]:
            self._deactivate(task, now)
        for _ in range(step.start):
            self._start(now)


class FakeShift(Replacement):
    """
    Replaces the tasks of a service in a blue/green, linear or canary deployment, on FakeAWS's clock.

    Traffic is shifted to the new tasks, then all old ones stop together. A PAUSE hook holds the deployment until
    ContinueServiceDeployment is called, or until it times out and rolls the deployment back.

    Attributes:
        deployment: Its record in the API.

    Args:
        fake: The FakeAWS that it belongs to.
        service: The service. If its target groups are pairs, new tasks are registered with the other group.
        strategy: The strategy, with its stages.
        **options: As for `FakeRollout`.
    """

    def __init__(self, fake: "FakeAWS", service: FakeService, strategy: Strategy, **options: Any) -> None:
        super().__init__(fake, service, **options)
        self.deployment = fake.deploy(service, strategy=strategy.name, bake=strategy.bake / 60, steps=strategy.steps)
        self._stages = strategy.stages()
        self._until = math.inf

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        status = self.deployment.status
        return status == "SUCCESSFUL" or (
            status == "ROLLBACK_SUCCESSFUL" and all(each.last_status == "STOPPED" for each in self.new)
        )

    def _step(self, now: float) -> None:
        deployment = self.deployment
        if deployment.status != "IN_PROGRESS":
            return
        if not self.new:
            for _ in self.old:
                self._start(now)
        if self.is_complete:
            deployment.status, self.service.starts = "SUCCESSFUL", deployment.target
        elif self.is_early_success and deployment.stage == "SCALE_UP":
            self._until = now
        if (hook := deployment.hook) is not None and hook.status == "AWAITING_ACTION" and now >= self._until:
            hook.status = "TIMED_OUT"
        if hook is not None and hook.is_over:
            deployment.hook, self._until = None, now
            if hook.action == "ROLLBACK":
                self._roll_back(now)
                return
        while now >= self._until:
            self._enter(next(self._stages, None), now)

    def _enter(self, stage: Stage | None, now: float) -> None:
        deployment = self.deployment
        if stage is None:
            deployment.stage, self._until = "CLEAN_UP", math.inf
            for task in self.old:
                self._deactivate(task, now)
            return
        deployment.stage, deployment.percent, self._until = stage.name, stage.percent, now + stage.seconds
        if stage.name == PAUSED and stage.seconds:
            deployment.hook = FakeHook(self._fake.wall_clock() + stage.seconds)

    def _roll_back(self, now: float) -> None:
        self.deployment.status, self.deployment.percent = "ROLLBACK_SUCCESSFUL", 0.0
        for task in self.new:
            self._deactivate(task, now)

    def _make_task(self) -> FakeTask:
        task = super()._make_task()
        task.started_by, task.definition = self.deployment.target.started_by, self.deployment.target.definition
        task.is_alternate = not self.old[0].is_alternate
        return task
