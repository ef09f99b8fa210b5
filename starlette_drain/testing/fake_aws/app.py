"""FakeAWS: everything that an ECS task behind a load balancer talks to, as one ASGI application."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from os import PathLike
from typing import Any, Self, TypeVar

from starlette_drain.testing.fake_aws import agent, deployments, ecs, elbv2, secrets
from starlette_drain.testing.fake_aws.cluster import (
    ACCOUNT,
    REGION,
    FakeGateway,
    FakeRegistration,
    FakeRevision,
    FakeService,
    FakeTask,
)
from starlette_drain.testing.fake_aws.deployments import FakeDeployment
from starlette_drain.testing.fake_aws.faults import (
    DISTORTING,
    ApiError,
    Fault,
    FaultKind,
    Faults,
    Throttle,
    as_error,
    distorted,
)
from starlette_drain.testing.fake_aws.replay import Replay, read_recording
from starlette_drain.testing.fake_aws.rollout import FakeRollout, FakeShift, Replacement
from starlette_drain.testing.fake_aws.server import FakeEndpoint
from starlette_drain.testing.fake_aws.strategy import STRATEGIES, Strategy
from starlette_drain.testing.fake_aws.target_group import FakeTargetGroup

__all__ = ["FakeAWS"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[int, str, bytes]
Going = TypeVar("Going", bound=Replacement)

FIRST = "0123456789012345678"
"""The number of the first revision of a service."""


class FakeAWS:
    """
    Implements the wire protocols of ELBv2, ECS and Secrets Manager, and the endpoints of a task.

    Its targets, tasks and deployments go through the real states.

    Control it from Python, even while it serves in another thread::

        fake = FakeAWS()
        task = fake.add_task(fake.add_service("web", delay=60))
        with fake.serve() as endpoint:
            subprocess.Popen([...], env={**os.environ, **endpoint.environment(task)})
            fake.deregister(task)

    Args:
        clock: Returns the time in seconds, for the delays.
        budget: Whether to throttle calls as AWS does for an account in one Region: with a bucket for each kind of call,
            which all services share.
        wall_clock: Returns seconds since 1970, for the events of services.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        budget: bool = False,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.wall_clock = wall_clock
        self.groups: dict[str, FakeTargetGroup] = {}
        self.services: list[FakeService] = []
        self.tasks: list[FakeTask] = []
        self.deployments: list[FakeDeployment] = []
        self.secrets: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self._rollouts: list[Replacement] = []
        self._leaving: dict[str, tuple[FakeTask, float, Callable[[FakeTask], bool | None]]] = {}
        """The tasks that a test deactivated: when they move on, and what to call at SIGTERM."""
        self._faults = Faults(clock)
        self._last_results: dict[str, dict[str, Any]] = {}
        """The last answer to each request that was neither stale nor distorted."""
        self._throttle = Throttle(clock) if budget else None
        self._lock = threading.RLock()
        self._replay: Replay | None = None

    @classmethod
    def replay(cls, file: str | PathLike[str], **options: Any) -> Self:
        """
        Return a FakeAWS that replays a recording, from the first request on.

        It has the task and the target groups of the recording. *options* are those of `FakeAWS`.

        Raises:
            ValueError: If the file is not a recording.
        """
        fake = cls(**options)
        fake._replay = Replay(fake, read_recording(file))
        return fake

    def add_target_group(
        self, name: str, *, delay: float = 300.0, port: int = 8000, protocol: str = "HTTP", **options: Any
    ) -> FakeTargetGroup:
        """Add a target group; *options* are attributes of `FakeTargetGroup`."""
        number = len(self.groups) + 1
        arn = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/{name}/{number:016x}"
        attributes = {
            "deregistration_delay.timeout_seconds": f"{delay:g}",
            **({"load_balancing.algorithm.type": "round_robin"} if protocol == "HTTP" else {}),
            "stickiness.enabled": "false",
            "stickiness.type": "lb_cookie" if protocol == "HTTP" else "source_ip",
        }
        if protocol != "HTTP":
            attributes["deregistration_delay.connection_termination.enabled"] = "false"
        attributes.update(options.pop("attributes", {}))
        group = FakeTargetGroup(arn, self.clock, port=port, protocol=protocol, attributes=attributes, **options)
        with self._lock:
            self.groups[arn] = group
        return group

    def add_service(
        self,
        name: str = "web",
        *,
        cluster: str = "main",
        delay: float = 300.0,
        port: int = 8000,
        container: str = "app",
        registrations: Sequence[FakeRegistration] | None = None,
        express: Sequence[FakeTargetGroup] = (),
        gateways: Sequence[FakeGateway] = (),
        **group: Any,
    ) -> FakeService:
        """
        Add a service.

        *express* and *gateways* are balancers that ECS manages. Without these and *registrations* the service gets one
        target group, created from the other options.
        """
        if registrations is None and (express or gateways):
            registrations = ()
        if registrations is None:
            made = self.add_target_group(name, delay=delay, port=port, **group)
            registrations = [FakeRegistration(made, container, port)]
        service = FakeService(name, cluster, list(registrations))
        service.starts = service.add_revision(FIRST, express=tuple(express), gateways=tuple(gateways))
        with self._lock:
            self.services.append(service)
        return service

    def update_service(
        self,
        service: FakeService,
        *,
        registrations: Sequence[FakeRegistration] = (),
        express: Sequence[FakeTargetGroup] = (),
        gateways: Sequence[FakeGateway] = (),
    ) -> FakeRevision:
        """Change the balancers of the service. Tasks added later get them; existing tasks keep theirs."""
        with self._lock:
            service.registrations = list(registrations)
            number = f"{len(service.revisions):019d}"
            service.starts = service.add_revision(number, express=tuple(express), gateways=tuple(gateways))
            return service.starts

    def add_task(self, service: FakeService | None, *, register: bool = True, **options: Any) -> FakeTask:
        """Add a task, registered with the service's target groups; *options* are attributes of `FakeTask`."""
        with self._lock:
            cluster = service.cluster if service else options.pop("cluster", "main")
            if service and service.starts and service.is_deployed_by_ecs:
                options.setdefault("started_by", service.starts.started_by)
            if service and "containers" not in options:
                ports: dict[str, tuple[int, ...]] = {}
                for each in service.registrations:
                    ports[each.container] = (*ports.get(each.container, ()), each.port)
                options["containers"] = ports or {"app": (8000,)}
            task = FakeTask(f"{len(self.tasks) + 1:032x}", cluster, service, **options)
            self.tasks.append(task)
            if register:
                self.register(task)
        return task

    def register(self, task: FakeTask, group: FakeTargetGroup | None = None) -> None:
        """Register the task with *group*, or with all groups of its service."""
        with self._lock:
            for each, target_id, port in task.targets():
                if group in (None, each):
                    each.register(target_id, port)

    def deregister(self, task: FakeTask, group: FakeTargetGroup | None = None) -> None:
        """Deregister the task from *group*, or from all groups of its service, and add an event to the service."""
        with self._lock:
            for each, target_id, port in task.targets():
                if group in (None, each):
                    each.deregister(target_id, port)
                    if task.service:
                        message = f"deregistered 1 targets in (target-group {each.arn})"
                        task.service.events.insert(0, (self.wall_clock(), message))

    def remove_target_group(self, group: FakeTargetGroup) -> None:
        """Delete *group*, even if services still refer to it."""
        with self._lock:
            self.groups.pop(group.arn, None)

    def deactivate(
        self,
        task: FakeTask,
        stop_code: str = "ServiceSchedulerInitiated",
        *,
        on_stop: Callable[[FakeTask], bool | None] = lambda _: False,
    ) -> None:
        """
        Do what ECS does to stop a task: set its status to DEACTIVATING, and deregister it everywhere.

        After the longest delay of its target groups it is STOPPING, and *on_stop* is called, as by SIGTERM. If that
        returns true the task ends at once, otherwise by the stop timeout.
        """
        with self._lock:
            self._take_out(task, stop_code)
            self._leaving[task.id] = task, self.clock() + task.longest_delay, on_stop

    def _take_out(self, task: FakeTask, stop_code: str = "ServiceSchedulerInitiated") -> None:
        task.last_status, task.desired_status, task.stop_code = "DEACTIVATING", "STOPPED", stop_code
        self.deregister(task)

    def _let_go(self) -> None:
        """Stop the deactivated tasks that are due."""
        now = self.clock()
        for task, due, on_stop in list(self._leaving.values()):
            if now < due:
                continue
            del self._leaving[task.id]
            if task.last_status == "DEACTIVATING":
                task.last_status = "STOPPING"
                if not on_stop(task):
                    self._leaving[task.id] = task, now + task.stop_timeout, on_stop
                    continue
            if task.last_status == "STOPPING":
                task.last_status = "STOPPED"

    def kill(self, task: FakeTask) -> None:
        """Stop the task without deregistering it, as after a kill."""
        with self._lock:
            task.last_status = task.desired_status = "STOPPED"
            task.stop_code = "EssentialContainerExited"

    def deploy(self, service: FakeService, **options: Any) -> FakeDeployment:
        """Begin a deployment from the service's newest revision to a new one; see `FakeDeployment` for *options*."""
        with self._lock:
            number = len(self.deployments) + 1
            newest = next((each.target for each in reversed(self.deployments) if each.service is service), None)
            source = newest or service.revisions[0]
            target = service.add_revision(f"{number:019d}", source.definition + 1)
            deployment = FakeDeployment(source, target, str(number), **options)
            self.deployments.append(deployment)
        return deployment

    def roll(self, service: FakeService, **options: Any) -> FakeRollout:
        """
        Begin a rolling deployment, which then advances as with ECS's scheduler.

        See `FakeRollout` for *options*. It advances with every call that is answered, every tenth of a second while
        `serve` serves, and with `advance`.
        """
        with self._lock:
            return self._begin(FakeRollout(self, service, **options))

    def shift(self, service: FakeService, strategy: Strategy = STRATEGIES["blue-green"], **options: Any) -> FakeShift:
        """Begin a blue/green, linear or canary deployment, which advances as with `roll`; see `FakeShift`."""
        with self._lock:
            return self._begin(FakeShift(self, service, strategy, **options))

    def _begin(self, replacement: Going) -> Going:
        self._rollouts.append(replacement)
        replacement.advance()
        return replacement

    def advance(self) -> None:
        """Advance the deployments, the tasks that stop, or the recording, to the current time."""
        with self._lock:
            if self._replay:
                self._replay.advance()
            self._let_go()
            for each in self._rollouts:
                each.advance()

    def _tick(self) -> None:
        """Advance while serving; a recording begins with the first request."""
        if self._replay is None or self._replay.has_begun:
            self.advance()

    def fail(
        self,
        kind: FaultKind,
        *,
        action: str | None = None,
        api: str | None = None,
        times: int | None = None,
        seconds: float | None = None,
        code: str | None = None,
        status: int = 503,
        message: str | None = None,
        takes: float = 0.0,
    ) -> None:
        """
        Make calls fail from now on.

        Args:
            kind: ``"throttle"``, ``"deny"``, ``"error"`` or ``"hang"``; ``"slow"``; ``"stale"`` (the previous answer),
                ``"partial"`` (every other entry is missing) or ``"empty"`` (no entries).
            action: Only this call, such as ``"DescribeTargetHealth"``; ``"metadata"`` and ``"task-protection"`` are
                the endpoints of the task.
            api: Only calls to ``"elbv2"``, ``"ecs"``, ``"secretsmanager"`` or ``"task"``.
            times: Only this many calls.
            seconds: Only this long.
            code: The error code, instead of the default.
            status: The HTTP status of an ``"error"``.
            message: The message, instead of the default.
            takes: Seconds that a ``"slow"`` answer takes.

        Raises:
            ValueError: If *kind* or *api* is not one of these.
        """
        until = None if seconds is None else self.clock() + seconds
        with self._lock:
            self._faults.add(Fault(kind, action, api, times, until, code, status, message, takes))

    def recover(self) -> None:
        """End all failures."""
        with self._lock:
            self._faults.clear()

    def serve(self) -> "FakeEndpoint":
        """Return a context manager that serves on a free port of 127.0.0.1, from a thread."""
        return FakeEndpoint(self)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = await _read(receive)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        with self._lock:
            self.advance()
            answer, takes = self._answer(scope["method"], scope["path"], headers, body)
        await asyncio.sleep(takes)
        if answer is None:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        status, media_type, content = answer
        fields = [(b"content-type", media_type.encode()), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[Answer | None, float]:
        """Return the answer, or ``None`` for no answer, and the seconds that it takes."""
        if method in ("GET", "PUT") and path.startswith(("/v4/", "/api/")):
            return self._answer_task(method, path, body)
        target, _, operation = headers.get("x-amz-target", "").rpartition(".")
        form = {} if operation else elbv2.parse_form(body)
        action = operation or form.get("Action", "")
        api = "elbv2" if form else "secretsmanager" if target == "secretsmanager" else "ecs"
        self.calls[action] += 1
        fault = self._faults.strike(action, api)
        takes = fault.takes if fault else 0.0
        if fault and fault.kind == "hang":
            return None, takes
        try:
            self._raise(fault, action, is_json=bool(operation))
            request = json.loads(body or b"{}") if operation else form
            result = self._result(api, action, request, fault.kind if fault else "")
            if operation:
                return (200, "application/x-amz-json-1.1", json.dumps(result).encode()), takes
            return (200, "text/xml", elbv2.as_xml(action, result).encode()), takes
        except ApiError as error:
            if operation:
                content = json.dumps(ecs.error_json(error)).encode()
                return (error.status, "application/x-amz-json-1.1", content), takes
            return (error.status, "text/xml", elbv2.error_xml(error).encode()), takes

    def _result(self, api: str, action: str, request: Mapping[str, Any], distortion: str) -> dict[str, Any]:
        """Return the result of a request, possibly distorted."""
        key = f"{action} {sorted(request.items(), key=str)}"
        if distortion == "stale" and key in self._last_results:
            return self._last_results[key]
        if self._throttle and not self._throttle.take(action):
            raise ApiError("ThrottlingException", "Rate exceeded")
        if api == "elbv2":
            result = elbv2.answer(request, self.groups)
        elif api == "secretsmanager":
            result = secrets.answer(action, request, self.secrets)
        elif "ServiceDeployment" in action or "ServiceRevisions" in action:
            result = deployments.answer(action, request, self.deployments, self.services)
        else:
            result = ecs.answer(action, request, self.services, self.tasks)
        if distortion in ("partial", "empty"):
            return distorted(distortion, result)
        self._last_results[key] = result
        return result

    def _raise(self, fault: Fault | None, action: str, *, is_json: bool) -> None:
        if fault and fault.kind != "slow" and fault.kind not in DISTORTING:
            raise as_error(fault, action, is_json=is_json)

    def _answer_task(self, method: str, path: str, body: bytes) -> tuple[Answer | None, float]:
        _, kind, task_id, *rest = path.split("/")
        task = next((each for each in self.tasks if each.id == task_id), None)
        action = "metadata" if kind == "v4" else "task-protection"
        self.calls[action] += 1
        fault = self._faults.strike(action, "task")
        takes = fault.takes if fault else 0.0
        if fault and fault.kind == "hang":
            return None, takes
        if fault and fault.kind != "slow" and fault.kind not in DISTORTING:
            error = as_error(fault, action, is_json=True)
            failure = {"error": {"Arn": task.arn if task else "", "Code": error.code, "Message": error.message}}
            return (error.status, "application/json", json.dumps(failure).encode()), takes
        status, content = 200, None
        if task and kind == "v4":
            content = agent.metadata(task, "".join(f"/{each}" for each in rest))
        elif task and rest == ["task-protection", "v1", "state"]:
            status, content = agent.protection(task, json.loads(body or b"{}") if method == "PUT" else None)
        if content is None:
            return (404, "text/plain", b"404 page not found\n"), takes
        return (status, "application/json", json.dumps(content).encode()), takes


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body
