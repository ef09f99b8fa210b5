"""The hands of a deployment: FakeAWS, uvicorn processes and a balancer, kept in step."""

import asyncio
from collections.abc import Sequence
from itertools import count
from math import gcd
from pathlib import Path

from example_app.ports import find_port
from example_app.processes import Children
from example_app.rollout.balancer import Balancer
from example_app.rollout.balancer.routing import Rule
from example_app.rollout.events import Events
from example_app.rollout.scenarios import Scenario
from example_app.rollout.tasks import ADMIN_TOKEN, Task, uvicorn_command
from example_app.rollout.times import Times
from starlette_drain.testing import FakeAWS, FakeDeployment, FakeEndpoint, FakeRegistration
from starlette_drain.testing.fake_aws.strategy import PAUSED, STRATEGIES, Stage, Strategy

__all__ = ["Cluster"]

ALGORITHMS: dict[Rule, str] = {
    "round-robin": "round_robin",
    "least-connections": "least_outstanding_requests",
}
"""What an ALB calls the rules of the balancers."""

FOLLOW_EVERY = 0.05
"""Seconds between two looks of the balancer at the target group."""

ASK_EVERY = 0.5
"""Seconds between two questions to a task that should be draining."""


class Cluster:
    """
    One service of one scenario.

    The tasks run in bridge mode, each with a port of its own on this machine, so that nothing has to be set up.
    FakeAWS alone knows which target is in which state; the balancer follows it as an ALB follows its target group.
    """

    def __init__(
        self,
        *,
        scenario: Scenario,
        times: Times,
        aws: FakeAWS,
        endpoint: FakeEndpoint,
        balancer: Balancer,
        children: Children,
        events: Events,
        results: Path,
        routing: Rule = "round-robin",
        strategy: Strategy = STRATEGIES["rolling"],
        sources: str = "target-health",
    ) -> None:
        self.scenario = scenario
        self.times = times
        self.aws = aws
        self.balancer = self._first_balancer = balancer
        self.events = events
        self.tasks: list[Task] = []
        self._endpoint = endpoint
        self._children = children
        self._results = results
        self._numbers = count(1)
        self._ports: set[int] = {balancer.port}
        self._routed: dict[tuple[str, int], int] = {}
        """What the balancer was told: the weight of each healthy target."""
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._sources = sources
        self._deployment: FakeDeployment | None = None
        protocol = "TCP" if strategy.is_network else "HTTP"
        self._groups = [
            aws.add_target_group(
                name, delay=times.delay, target_type="instance", initial=times.initial, protocol=protocol
            )
            for name in (("devices", "devices-2") if strategy.is_shifting else ("devices",))
        ]
        if not strategy.is_network:
            for each in self._groups:
                each.attributes["load_balancing.algorithm.type"] = ALGORITHMS[routing]
        self._weights = [1, 0][: len(self._groups)]
        registration = FakeRegistration(self._groups[0], "app", 8000, next(iter(self._groups[1:]), None))
        self._service = aws.add_service("devices", registrations=[registration])

    async def follow(self) -> None:
        """
        Let the balancer send new connections to the healthy targets and to no other, for ever.

        Raises:
            RuntimeError, OSError: If the balancer does not obey; nothing that is registered is ever reached then.
        """
        while True:
            weights = {
                ("127.0.0.1", port): weight
                for group, weight in zip(self._groups, self._weights, strict=True)
                for _, port, health in group.described(())
                if health.state == "healthy"
            }
            if weights != self._routed:
                await self.balancer.route_to(weights)
                self._routed = weights  # not before: `register` waits for it
            await asyncio.sleep(FOLLOW_EVERY)

    async def start(self) -> Task:
        """Start a task and wait until it answers."""
        name = f"task-{next(self._numbers)}"
        port = find_port(frozenset(self._ports))
        self._ports.add(port)
        record = self.aws.add_task(
            self._service,
            register=False,
            network_mode="bridge",
            addresses=("172.17.0.2",),
            host_ports={8000: port},
            instance_id="i-0123456789abcdef0",
        )
        if self._deployment:
            record.started_by, record.is_alternate = self._deployment.target.started_by, True
        environment = self._endpoint.environment(record) | self.times.environment()
        environment |= {"DRAIN_ADMIN_TOKEN": ADMIN_TOKEN, "DRAIN_SOURCES": self._sources}
        environment |= self.scenario.environment
        log = self._results / f"{name}.log"
        command = uvicorn_command(self.scenario.app, port)
        child = await self._children.start(name, command, log=log, environment=environment)
        task = Task(name, record, child, port)
        self.tasks.append(task)
        await task.wait_up()
        return task

    async def register(self, task: Task) -> None:
        """Register its target and wait until the balancer sends to it."""
        self.aws.register(task.record)
        self.events.note("registered", task.name)
        while task.target not in self._routed:  # noqa: ASYNC110 - as ECS does, we look again and again
            await asyncio.sleep(FOLLOW_EVERY)

    async def deregister(self, task: Task) -> None:
        """Begin to take its target out, and watch what the task makes of it."""
        self.aws.deactivate(task.record)
        self._begin_to_watch(task)

    async def begin_shift(self, strategy: Strategy) -> None:
        """Begin a deployment to a new revision, whose tasks the second group of the pair gets."""
        bake = strategy.bake * self.times.scale / 60
        self._deployment = self.aws.deploy(self._service, strategy=strategy.name, bake=bake, steps=strategy.steps)

    async def enter(self, stage: Stage, old: Sequence[Task]) -> None:
        """Let the balancer follow the weights, and watch the old tasks once they get nothing new."""
        if self._deployment:
            self._deployment.stage, self._deployment.percent = stage.name, stage.percent
        new = round(stage.percent)
        self._weights = [each // gcd(new, 100) for each in (100 - new, new)]
        if stage.name == PAUSED and self.times.ecs_rest:
            self.events.note("shifted")
            for task in old:
                self._begin_to_watch(task)

    async def pause(self, old: Sequence[Task], seconds: float) -> None:
        """Do what docs/deploying-on-ecs.md does while a hook holds the deployment: drain the old tasks, then go on."""
        window = max(seconds / 2, seconds - self.times.margin - 2 * ASK_EVERY)
        try:
            async with asyncio.timeout(seconds):
                for task in old:
                    await task.post("/drain", {"window": window, "reason": "replaced", "taken_out": True})
                for task in old:
                    while ((await task.get("/drain")) or {}).get("state") != "drained":  # noqa: ASYNC110
                        await asyncio.sleep(ASK_EVERY)
        except TimeoutError:
            self.events.note("fault", "the pause is over, and not all old tasks have drained: ECS would roll back")

    def terminate(self, task: Task) -> None:
        """Send SIGTERM."""
        task.terminate()

    async def cut(self, task: Task) -> None:
        """Let the balancer close what is left."""
        await self.balancer.cut(task.target)

    async def exited(self, task: Task, seconds: float) -> bool:
        """Wait for its end."""
        return await task.child.wait(seconds) is not None

    async def kill(self, task: Task) -> None:
        """Send SIGKILL."""
        await task.kill()

    async def lose(self, tasks: Sequence[Task]) -> None:
        """Kill tasks in one moment; ECS takes each target out as soon as it sees that its task has ended."""
        self.events.note("fault", f"{', '.join(each.name for each in tasks)} killed")
        await asyncio.gather(*(each.kill() for each in tasks))
        for each in tasks:
            self.events.note("deregistered", each.name)
            self.aws.deactivate(each.record)

    async def drop(self, share: float) -> None:
        """Let the balancer lose a share of its connections."""
        self.events.note("fault", f"the balancer drops {share:.0%} of its connections")
        await self.balancer.drop(share)

    async def close(self) -> None:
        """End what is left, without ceremony."""
        if self.balancer is not self._first_balancer:
            await self.balancer.stop()
        for watching in self._watching.values():
            watching.cancel()
        for task in self.tasks:
            task.child.kill()
        for task in self.tasks:
            await task.child.wait(5)

    async def change_balancer(self) -> Balancer:
        """Let new clients come by a second balancer; return the former one, which keeps those that it has."""
        former = self.balancer
        second = former.successor()
        await second.start()
        await second.route_to(self._routed)
        await former.retire()
        self.balancer = second
        return former

    async def count_sessions(self) -> None:
        """Note how many sessions each task has that tells."""
        for task in self.tasks:
            if task.child.is_alive and (answer := await task.get("/drain")):
                self.events.note("sessions", f"{task.name}: {answer['sessions']['open']}")

    def tracebacks(self) -> int:
        """Return how many tracebacks all tasks have logged."""
        return sum(task.tracebacks() for task in self.tasks)

    def _begin_to_watch(self, task: Task) -> None:
        if self.scenario.drains and task.name not in self._watching:
            self._watching[task.name] = asyncio.create_task(self._watch(task))

    async def _watch(self, task: Task) -> None:
        """Ask the task how far its drain is, until it is over."""
        seen = False
        while task.child.is_alive:
            answer = await task.get("/drain")
            drain = (answer or {}).get("drain") or {}
            causes = drain.get("causes") or ((answer or {}).get("report") or {}).get("causes") or []
            if causes and not seen:
                seen = True
                self.events.note("draining seen", task.name, ago=causes[0]["seconds_ago"])
            if answer and answer.get("state") == "drained":
                self.events.note("drained", task.name)
                return
            await asyncio.sleep(ASK_EVERY)
