# ECS knows the tasks and their private addresses. From the service's network they are asked at those addresses, with
# the admin token; from elsewhere by ECS Exec, where the command in the container needs no token.
"""Shows and controls all tasks of an ECS service."""

import asyncio
import json
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls, region_of
from starlette_drain.aws.api.client import Aioboto3Clients, AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed
from starlette_drain.tools.tasks.channel import ROTATION, Channel, HttpChannel, Refused, Unreachable, shown_in
from starlette_drain.tools.tasks.seen import Seen

__all__ = ["EcsTask", "ExecChannel", "ServiceTasks", "exec_line", "place_of"]

LIST_EVERY = 5.0
"""Seconds between two listings of the tasks."""

EXEC_EVERY = 10.0
"""Seconds between two requests to a task by ECS Exec, which takes a few seconds."""

EXEC_TIMEOUT = 30.0
AT_ONCE = 16
MOST_NAMED = 100
"""The most tasks in one call of DescribeTasks."""

SHORT = 12
"""The length of a task's short name."""

PORT = 8000
"""The port of a server whose service has no target group."""

ENDED = ("STOPPED", "DELETED")
"""The last statuses of a task that is gone."""

INSIDE = {
    "": {"GET": ["status"], "POST": ["start"], "DELETE": ["cancel"]},
    ROTATION: {"GET": ["rotate"], "POST": ["rotate"], "DELETE": ["rotate", "--cancel"]},
}
"""The equivalent commands in the container, by path and method."""

TOOLS = ("aws", "session-manager-plugin")
"""The programs that ECS Exec needs on this machine."""

Run = Callable[[Sequence[str]], str]
"""Runs a command line and returns its output; raises `OSError` if that fails."""


@dataclass(frozen=True, slots=True)
class EcsTask:
    """
    A task as ECS shows it.

    Attributes:
        arn: Its ARN.
        name: The beginning of its id, or the whole id if that is not unique.
        cluster: The name or ARN of its cluster.
        container: The name of the container that serves.
        address: Its private address, if it has its own.
        is_stopping: Whether ECS is stopping it.
    """

    arn: str
    name: str
    cluster: str
    container: str
    address: str | None
    is_stopping: bool


class ExecChannel:
    """
    A channel to a task by ECS Exec, if that is installed here.

    Args:
        task: The task.
        run: Runs a command line.
        which: Finds a program.
    """

    def __init__(self, task: EcsTask, run: Run | None = None, which: Callable[[str], object] = shutil.which) -> None:
        self._task = task
        self._run = run or _run
        self._which = which

    def ask(self, method: str, body: Mapping[str, Any] | None = None, path: str = "") -> tuple[int, dict[str, Any]]:
        """Run the command in the container."""
        inside = ["starlette-drain", *INSIDE[path][method], "--json"]
        for name, value in (body or {}).items():
            inside.append(f"--{name.replace('_', '-')}")
            inside += [] if value is True else [str(value)]
        words = _exec_words(self._task, inside)
        line = shlex.join(words)
        if missing := [each for each in TOOLS if not self._which(each)]:
            msg = f"there is no route to it from here, and {' and '.join(missing)} is not installed; run: {line}"
            raise Unreachable(msg)
        try:
            written = self._run(words)
        except (OSError, subprocess.SubprocessError) as error:
            msg = f"ECS Exec did not work ({error}); run: {line}"
            raise Unreachable(msg) from None
        # The output of the session itself surrounds the answer.
        for each in written.splitlines():
            if each.startswith("{"):
                try:
                    answer = json.loads(each)
                except ValueError:
                    break
                return 200, shown_in(answer["tasks"][0]["shown"] if "tasks" in answer else answer, path)
            if each.startswith("Error: "):
                raise Refused(409 if method == "DELETE" else 500, each.removeprefix("Error: "))
        msg = f"ECS Exec returned no answer; run: {line}"
        raise Unreachable(msg)


class ServiceTasks:
    """
    The tasks of a service, or one task of a cluster.

    Args:
        cluster: The name or ARN of the cluster.
        service: The name or ARN of the service; ``None`` if *task* is given.
        task: The id or ARN of a single task.
        token: The admin token; without one ECS Exec is used.
        port: The port of the tasks; by default that of the target group.
        clients: Creates the AWS clients.
        by_exec: Returns the channel to a task to which there is no route.
    """

    def __init__(
        self,
        cluster: str,
        service: str | None,
        *,
        task: str | None = None,
        token: str | None = None,
        port: int | None = None,
        clients: AwsClients | None = None,
        by_exec: Callable[[EcsTask], Channel] = ExecChannel,
    ) -> None:
        self._cluster, self._service, self._task = cluster, service, task
        self._token = token
        self._port = port
        self._by_exec = by_exec
        region = next(filter(None, map(region_of, (service or "", cluster, task or ""))), None)
        self._runner = asyncio.Runner()
        self._calls = AwsCalls(clients or Aioboto3Clients.patient(), region)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._tasks: dict[str, EcsTask] = {}
        self._seen: dict[str, Seen] = {}
        self._listed = 0.0
        self._is_steady = True
        self._names: dict[str, str] = {}
        self._routes: dict[str, bool] = {}
        """Whether there is a route to a task, by ARN, if that was tried."""
        self._execs: dict[str, float] = {}

    def close(self) -> None:
        """Close the clients."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._runner.run(self._calls.close())
        self._runner.close()

    def channels(self) -> dict[str, Channel]:
        """
        Return the channel to each task, by name.

        Raises:
            Unreachable: If ECS does not answer.
        """
        self._list()
        return {each.name: _Route(self, each) for each in self._tasks.values()}

    def look(self) -> Sequence[Seen]:
        """
        Return the current state of all tasks, including those that are gone.

        Raises:
            Unreachable: If ECS does not answer and never has.
        """
        if not self._tasks or time.monotonic() - self._listed >= LIST_EVERY:
            self._list()
        found = self._pool.map(self._look_at, self._tasks.values())
        self._seen |= {each.task: each for each in found}
        return list(self._seen.values())

    def is_over(self, tasks: Sequence[Seen]) -> bool:
        """Return whether no deployment is in progress and no task is leaving."""
        is_leaving = any(each.is_stopping for each in self._tasks.values())
        return self._is_steady and not is_leaving and all(each.state != "draining" for each in tasks)

    def ask(
        self, task: EcsTask, method: str, body: Mapping[str, Any] | None = None, path: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Ask a task, directly if there is a route."""
        reason = "DRAIN_ADMIN_TOKEN is not set here"
        if self._token and task.address and self._routes.get(task.arn, True):
            host = f"[{task.address}]" if ":" in task.address else task.address
            try:
                answer = HttpChannel(f"http://{host}:{self._port or PORT}/drain", self._token).ask(method, body, path)
            except Unreachable as error:
                if self._routes.get(task.arn):  # there was a route, so the task itself does not answer
                    raise
                reason = str(error)
                self._routes[task.arn] = False
            else:
                self._routes[task.arn] = True
                return answer
        try:
            return self._by_exec(task).ask(method, body, path)
        except Unreachable as error:
            msg = f"{reason}; {error}"
            raise Unreachable(msg) from None

    def _look_at(self, task: EcsTask) -> Seen:
        last = self._seen.get(task.name, Seen(task.name))
        is_by_exec = not (self._token and task.address and self._routes.get(task.arn, True))
        if is_by_exec and time.monotonic() < self._execs.get(task.arn, 0.0):
            return last
        try:
            return Seen(task.name, self.ask(task, "GET")[1])
        except (Unreachable, Refused) as error:
            if task.is_stopping and last.state == "drained":  # ECS will say so in a moment
                return replace(last, is_gone=True)
            return replace(last, why_not=str(error), remedy=exec_line(task, ["starlette-drain", "status"]))
        finally:
            if is_by_exec:
                self._execs[task.arn] = time.monotonic() + EXEC_EVERY

    def _list(self) -> None:
        """List the tasks; if ECS does not answer, keep the known ones."""
        try:
            found = {each.arn: each for each in self._runner.run(self._ask_ecs())}
        except AwsCallFailed as failed:
            if not self._tasks:
                msg = f"{failed.trouble.problem}. Remedy: {failed.trouble.remedy}"
                raise Unreachable(msg) from None
            return
        self._listed = time.monotonic()
        for arn, task in self._tasks.items():
            if arn not in found and task.name in self._seen:
                self._seen[task.name] = replace(self._seen[task.name], is_gone=True, why_not="")
        self._tasks = found
        if not found and not self._seen:
            msg = f"ECS has no task of {self._service or self._task} in {self._cluster}"
            raise Unreachable(msg)

    async def _ask_ecs(self) -> list[EcsTask]:
        where, container = {"cluster": self._cluster}, None
        if self._service is None:
            arns = [str(self._task)]
        else:
            record = await self._describe_service()
            container = next((each.get("containerName") for each in record.get("loadBalancers") or ()), None)
            arns = []
            for status in ("RUNNING", "STOPPED"):  # leaving tasks have the latter
                token: dict[str, str] = {}
                while True:
                    asked = {**where, **token, "serviceName": self._service, "desiredStatus": status}
                    answer = await self._calls.call("ecs", "ListTasks", **asked)
                    arns += answer.get("taskArns") or ()
                    if not answer.get("nextToken"):
                        break
                    token = {"nextToken": answer["nextToken"]}
        if self._task is not None:
            arns = [each for each in arns if self._task in (each, each.rpartition("/")[2])]
        records: list[Mapping[str, Any]] = []
        for first in range(0, len(arns), MOST_NAMED):
            named = arns[first : first + MOST_NAMED]
            records += (await self._calls.call("ecs", "DescribeTasks", tasks=named, **where)).get("tasks") or ()
        records = [each for each in records if each.get("lastStatus") not in ENDED]
        self._name([str(each.get("taskArn")) for each in records])
        return [self._read(each, container) for each in records]

    def _name(self, arns: Sequence[str]) -> None:
        """Give each new task of *arns* its short name, or its whole id if the short name is not unique."""
        ids = {arn: arn.rpartition("/")[2] for arn in arns}
        taken = Counter([*(each[:SHORT] for each in ids.values()), *self._names.values()])
        for arn, task_id in ids.items():
            if arn not in self._names:
                self._names[arn] = task_id[:SHORT] if taken[task_id[:SHORT]] == 1 else task_id

    def _read(self, record: Mapping[str, Any], container: str | None) -> EcsTask:
        arn, containers = str(record.get("taskArn")), record.get("containers") or ()
        serving: Mapping[str, Any] = next(
            (each for each in containers if each.get("name") == container), next(iter(containers), {})
        )
        interface: Mapping[str, Any] = next(iter(serving.get("networkInterfaces") or ()), {})
        return EcsTask(
            arn=arn,
            name=self._names[arn],
            cluster=self._cluster,
            container=str(serving.get("name") or ""),
            address=interface.get("privateIpv4Address") or interface.get("ipv6Address"),
            is_stopping=record.get("desiredStatus") == "STOPPED",
        )

    async def _describe_service(self) -> Mapping[str, Any]:
        answer = await self._calls.call("ecs", "DescribeServices", cluster=self._cluster, services=[self._service])
        record: Mapping[str, Any] = next(iter(answer.get("services") or ()), {})
        deployments = record.get("deployments") or ()
        self._is_steady = len(deployments) <= 1 and all(
            each.get("rolloutState") in (None, "COMPLETED") for each in deployments
        )
        ports = [each.get("containerPort") for each in record.get("loadBalancers") or ()]
        self._port = self._port or next(filter(None, ports), None)
        return record


class _Route:
    """A channel to a task of a service."""

    def __init__(self, service: ServiceTasks, task: EcsTask) -> None:
        self._service, self._task = service, task

    def ask(self, method: str, body: Mapping[str, Any] | None = None, path: str = "") -> tuple[int, dict[str, Any]]:
        """Ask the task."""
        return self._service.ask(self._task, method, body, path)


def place_of(cluster: str | None, service: str | None, task: str | None) -> str | None:
    """Return the cluster as given, or from the ARN of a service or task."""
    for arn in (service, task):
        kind, _, path = (arn or "").partition("/")
        if kind.startswith("arn:") and path.count("/") == 1:
            return cluster or path.partition("/")[0]
    return cluster


def exec_line(task: EcsTask, inside: Sequence[str]) -> str:
    """Return the command line, for copying, that runs *inside* in the task."""
    return shlex.join(_exec_words(task, inside))


def _exec_words(task: EcsTask, inside: Sequence[str]) -> list[str]:
    words = ["aws", "ecs", "execute-command", "--cluster", task.cluster, "--task", task.arn]
    words += ["--container", task.container] if task.container else []
    return [*words, "--interactive", "--command", shlex.join(inside)]


def _run(words: Sequence[str]) -> str:
    # Keep the input open: the plugin ends the session when its input ends.
    with subprocess.Popen(  # noqa: S603 - no shell, and the words are ours
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            code = process.wait(EXEC_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out = process.stdout.read()
        if code and process.stderr is not None:
            raise OSError(process.stderr.read().strip() or f"it ended with {code}")
    return out
