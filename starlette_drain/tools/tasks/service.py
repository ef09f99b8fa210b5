# ECS knows the tasks and their private addresses. From the service's network they are asked at those addresses, with
# the admin token; from elsewhere by ECS Exec, where the command in the container needs no token.
"""Shows and controls all tasks of an ECS service."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls, region_of
from starlette_drain.aws.api.client import Aioboto3Clients, AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed, Trouble, TroubleKind
from starlette_drain.aws.identity.balancers import Registration
from starlette_drain.tools.tasks.channel import (
    Channel,
    HttpChannel,
    NotListening,
    Refused,
    Stuck,
    Unreachable,
    check_token,
)
from starlette_drain.tools.tasks.ecs_exec import UNKNOWN, EcsTask, ExecChannel
from starlette_drain.tools.tasks.registered import Registrations, address_of
from starlette_drain.tools.tasks.seen import Seen

__all__ = ["ServiceTasks", "place_of"]

LIST_EVERY = 5.0
"""Seconds between two listings of the tasks."""

EXEC_EVERY = 10.0
"""Seconds between two requests to a task by ECS Exec, which takes a few seconds."""

ROUTE_EVERY = 60.0
"""Seconds until a task to which there was no route is asked directly again."""

AT_ONCE = 16
"""The most tasks that are asked at the same time."""

MOST_NAMED = 100
"""The most tasks in one call of DescribeTasks."""

SHORT = 12
"""The length of a task's short name."""

NOT_FOUND = 404
"""The HTTP status where there is no admin route."""

STARTING = ("PROVISIONING", "PENDING")
"""The last statuses of a task whose containers have not started."""

ENDED = ("STOPPED", "DELETED")
"""The last statuses of a task that is gone."""

TROUBLES = {
    TroubleKind.DENIED: ("{action} is denied ({code})", "allow it to the role or user that runs this command"),
    TroubleKind.NO_CREDENTIALS: (
        "",
        "check AWS_PROFILE, or log in again: the command uses the credentials of this shell",
    ),
    TroubleKind.NOT_FOUND: ("", "check --cluster and --service, and the Region ({region})"),
    TroubleKind.THROTTLED: ("", "try again in a minute"),
}
"""Problem and remedy of failed calls, where those for a task do not fit; an empty problem fits."""


class ServiceTasks:
    """
    The tasks of a service, or one task of a cluster.

    Args:
        cluster: The name or ARN of the cluster.
        service: The name or ARN of the service; ``None`` if *task* is given.
        task: The id or ARN of a single task.
        token: The admin token; without one ECS Exec is used.
        port: The port of the tasks; by default that with which the service registers each of them.
        clients: Creates the AWS clients.
        by_exec: Returns the channel to a task to which there is no route.

    Raises:
        Unreachable: If *token* is not valid.
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
        check_token(token or "")
        self._token = token
        self._port = port
        self._by_exec = by_exec
        region = next(filter(None, map(region_of, (service or "", cluster, task or ""))), None)
        self._runner = asyncio.Runner()
        self._calls = AwsCalls(clients or Aioboto3Clients.patient(), region)
        self._registrations = Registrations(self._calls)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._tasks: dict[str, EcsTask] = {}
        self._seen: dict[str, Seen] = {}
        self._listed = 0.0
        self._is_steady = True
        self._names: dict[str, str] = {}
        self._reached: set[str] = set()
        """The ARNs of the tasks to which there is a route."""
        self._routes: dict[str, tuple[float, str]] = {}
        """When a task without a route is asked directly again, by ARN, and why there was none."""
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
        try:
            return self._ask_directly(task, method, body, path)
        except Unreachable as error:
            if task.arn in self._reached:  # ECS Exec would find the same
                raise
            return self._ask_by_exec(task, str(error), method, body, path)

    def _ask_directly(
        self, task: EcsTask, method: str, body: Mapping[str, Any] | None = None, path: str = ""
    ) -> tuple[int, dict[str, Any]]:
        if why := self._why_not_directly(task):
            raise Unreachable(why)
        host = f"[{task.address}]" if ":" in str(task.address) else task.address
        try:
            answer = HttpChannel(f"http://{host}:{task.port}/drain", self._token or "").ask(method, body, path)
        except NotListening:
            raise  # its server may be starting, so it is asked again at the next look
        except Stuck as error:
            was_reached = task.arn in self._reached
            self._reached.add(task.arn)
            msg = f"{error}: its process is stuck{'' if was_reached else ', or starting'}"
            remedy = f"if it stays so, stop the task: aws ecs stop-task --cluster {task.cluster} --task {task.arn}"
            raise Stuck(msg, remedy) from None
        except Unreachable as error:
            if task.arn not in self._reached:
                self._routes[task.arn] = time.monotonic() + ROUTE_EVERY, str(error)
            raise
        except Refused as error:
            if error.status != NOT_FOUND:
                raise
            self._routes[task.arn] = time.monotonic() + ROUTE_EVERY, str(error)
            raise Unreachable(str(error)) from None
        self._reached.add(task.arn)
        return answer

    def _why_not_directly(self, task: EcsTask) -> str:
        """Return why a task is not asked directly; empty if it is."""
        if not self._token:
            return "DRAIN_ADMIN_TOKEN is not set here"
        if not task.address:
            return "the task has no address of its own"
        if not task.port:
            return "ECS does not tell the port of its server (--port)"
        again, why = self._routes.get(task.arn, (0.0, ""))
        return why if time.monotonic() < again else ""

    def _ask_by_exec(
        self, task: EcsTask, why: str, method: str, body: Mapping[str, Any] | None = None, path: str = ""
    ) -> tuple[int, dict[str, Any]]:
        self._execs[task.arn] = time.monotonic() + EXEC_EVERY
        try:
            return self._by_exec(task).ask(method, body, path)
        except Unreachable as error:
            msg = f"{why}; {error.problem}"
            raise Unreachable(msg, error.remedy) from None

    def _look_at(self, task: EcsTask) -> Seen:
        last = self._seen.get(task.name, Seen(task.name))
        if task.is_starting:
            return replace(last, why_not="ECS is starting it", is_starting=True)
        try:
            try:
                shown = self._ask_directly(task, "GET")[1]
            except Unreachable as error:
                if task.arn in self._reached:
                    raise
                if time.monotonic() < self._execs.get(task.arn, 0.0):
                    return last
                shown = self._ask_by_exec(task, str(error), "GET")[1]
        except (Unreachable, Refused) as error:
            if task.is_stopping and last.state == "drained":  # ECS will say so in a moment
                return replace(last, is_gone=True)
            return replace(last, why_not=error.problem, remedy=error.remedy, is_starting=False)
        return Seen(task.name, shown)

    def _list(self) -> None:
        """List the tasks; if ECS does not answer, keep the known ones."""
        try:
            found = {each.arn: each for each in self._runner.run(self._ask_ecs())}
        except AwsCallFailed as failed:
            if not self._tasks:
                raise Unreachable(self._explain(failed.trouble)) from None
            return
        self._listed = time.monotonic()
        for arn, task in self._tasks.items():
            if arn not in found and task.name in self._seen:
                self._seen[task.name] = replace(self._seen[task.name], is_gone=True, why_not="")
        self._tasks = found
        if not found and not self._seen:
            of = f" of the service {self._service}" if self._service else ""
            msg = f"the cluster {self._cluster} has no task{f' {self._task}' if self._task else ''}{of}"
            raise Unreachable(msg)

    def _explain(self, trouble: Trouble) -> str:
        problem, remedy = TROUBLES.get(trouble.kind, ("", ""))
        code = f"{trouble.code}: {trouble.message}" if trouble.message else trouble.code
        problem = problem.format(action=trouble.action, code=code) or trouble.problem
        remedy = remedy.format(region=self._calls.region or "that of this shell") or trouble.remedy
        return f"{problem}. Remedy: {remedy}"

    async def _ask_ecs(self) -> list[EcsTask]:
        where = {"cluster": self._cluster}
        service: Mapping[str, Any] = {}
        if self._service is None:
            arns = [str(self._task)]
        else:
            service = await self._describe_service(self._service)
            if not (service or self._tasks):
                msg = f"the cluster {self._cluster} has no service {self._service}"
                raise Unreachable(msg)
            self._is_steady = bool(service) and _is_steady(service)
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
        if not service:
            kind, _, name = str(next((each.get("group") for each in records), None) or "").partition(":")
            with suppress(AwsCallFailed):
                service = await self._describe_service(name) if kind == "service" else {}
        registrations = await self._registrations.find(service, records)
        return [self._read(each, registrations.get(str(each.get("taskArn")))) for each in records]

    def _name(self, arns: Sequence[str]) -> None:
        """Give each new task of *arns* its short name, or its whole id if the short name is not unique."""
        ids = {arn: arn.rpartition("/")[2] for arn in arns}
        taken = Counter([*(each[:SHORT] for each in ids.values()), *self._names.values()])
        for arn, task_id in ids.items():
            if arn not in self._names:
                self._names[arn] = task_id[:SHORT] if taken[task_id[:SHORT]] == 1 else task_id

    def _read(self, record: Mapping[str, Any], registration: Registration | None) -> EcsTask:
        arn = str(record.get("taskArn"))
        names = [str(each.get("name")) for each in record.get("containers") or ()]
        container = registration.container if registration else None
        return EcsTask(
            arn=arn,
            name=self._names[arn],
            cluster=self._cluster,
            container=container or (names[0] if len(names) == 1 else UNKNOWN),
            address=address_of(record),
            port=self._port or (registration.port if registration else None),
            is_stopping=record.get("desiredStatus") == "STOPPED",
            is_starting=record.get("lastStatus") in STARTING,
        )

    async def _describe_service(self, name: str) -> Mapping[str, Any]:
        answer = await self._calls.call("ecs", "DescribeServices", cluster=self._cluster, services=[name])
        return next(iter(answer.get("services") or ()), {})


def _is_steady(service: Mapping[str, Any]) -> bool:
    """Return whether no deployment of a service is in progress."""
    deployments = service.get("deployments") or ()
    return len(deployments) <= 1 and all(each.get("rolloutState") in (None, "COMPLETED") for each in deployments)


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
