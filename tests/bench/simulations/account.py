"""One account's target groups, ECS service and API budget, as far as a polling fleet asks about them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette_drain.testing.fake_aws.faults import TokenBucket

__all__ = ["GROUPS", "Account"]

GROUPS = {
    "one": 1,
    "pair": 2,
    "shifting pair": 2,
    "both": 2,
}
"""How many target groups each task asks about: one; a blue/green pair of which all tasks are in one half, or half of
them in each as during a deployment; two that all tasks are in."""

PREFIX = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup"
CLUSTER = "arn:aws:ecs:eu-central-1:123456789012:cluster/main"


class _Throttled(Exception):
    response: Mapping[str, Any] = {"Error": {"Code": "ThrottlingException"}}


class _Denied(Exception):
    response: Mapping[str, Any] = {"Error": {"Code": "AccessDeniedException"}}


class Shared:
    """What the services of one account share: the buckets of its API calls, and a cluster."""

    def __init__(self) -> None:
        clock = asyncio.get_running_loop().time
        self.balancers = TokenBucket(clock)
        self.tasks = TokenBucket(clock, 100.0, 20.0)
        self.services: list[Account] = []


class Account:
    """
    Answers as the clients of ELBv2, behind the real token bucket, and of ECS do.

    Args:
        tasks: How many the service is to have.
        layout: Which groups list them, a key of `GROUPS`.
        shared: The buckets and the cluster that it shares with other services of the account; its own by default.
        may_count: Whether the tasks may ask how many the cluster has.
        may_ask_ecs: Whether they may ask ECS about themselves.
        delay: Seconds, of its target groups.
    """

    def __init__(
        self,
        tasks: int,
        layout: str,
        shared: "Shared | None" = None,
        *,
        may_count: bool = True,
        may_ask_ecs: bool = True,
        delay: float = 3600.0,
    ) -> None:
        self.shared = shared or Shared()
        self.shared.services.append(self)
        self._may_count = may_count
        self._may_ask_ecs = may_ask_ecs
        self._delay = delay
        self.arns = tuple(f"{PREFIX}/group{number}/0123456789abcdef" for number in range(GROUPS[layout]))
        self.registered = 0
        self.asked: list[float] = []
        self.polled: list[float] = []
        self.throttled: list[float] = []
        self.asked_ecs: list[float] = []
        self.tasks = tasks
        self._layout = layout
        self._targets = [_target(number) for number in range(tasks)]

    def metadata(self, number: int) -> Mapping[str, Any]:
        """Return what the metadata endpoint tells the task."""
        network = {"NetworkMode": "awsvpc", "IPv4Addresses": [_address(number)]}
        return {
            "Cluster": CLUSTER,
            "TaskARN": f"arn:aws:ecs:eu-central-1:123456789012:task/main/{number:032x}",
            "ServiceName": "web",
            "Containers": [{"Name": "app", "Networks": [network]}],
        }

    def deregister(self, number: int) -> None:
        """Take a task out."""
        self._targets[number] = _target(number, "draining")

    def part_throttled(self, begin: float, end: float) -> float:
        """Return which part of the calls in a stretch of time was throttled."""
        asked = sum(begin <= at < end for at in self.asked)
        return sum(begin <= at < end for at in self.throttled) / asked if asked else 0.0

    async def describe_services(self, **_: Any) -> Mapping[str, Any]:
        """Answer as ECS."""
        entries = [{"targetGroupArn": arn, "containerName": "app", "containerPort": 8000} for arn in self.arns]
        return {"services": [{"desiredCount": self.tasks, "runningCount": self.registered, "loadBalancers": entries}]}

    async def describe_clusters(self, **_: Any) -> Mapping[str, Any]:
        """Answer as ECS."""
        if not self._may_count:
            raise _Denied
        running = sum(each.registered for each in self.shared.services)
        wanted = sum(each.tasks for each in self.shared.services)
        return {"clusters": [{"runningTasksCount": running, "pendingTasksCount": wanted - running}]}

    async def describe_tasks(self, *, tasks: list[str], **_: Any) -> Mapping[str, Any]:
        """Answer as ECS."""
        if not self._may_ask_ecs:
            raise _Denied
        self.asked_ecs.append(asyncio.get_running_loop().time())
        if not self.shared.tasks.take():
            raise _Throttled
        state = self._targets[int(tasks[0].rpartition("/")[2], 16)]["TargetHealth"]["State"]
        leaves = {"lastStatus": "DEACTIVATING", "desiredStatus": "STOPPED"}
        return {"tasks": [leaves if state == "draining" else {"lastStatus": "RUNNING", "desiredStatus": "RUNNING"}]}

    async def describe_target_groups(self, **_: Any) -> Mapping[str, Any]:
        """Answer as ELBv2."""
        self._take()
        return {"TargetGroups": [{"TargetGroupArn": arn, "TargetType": "ip"} for arn in self.arns]}

    async def describe_target_group_attributes(self, **_: Any) -> Mapping[str, Any]:
        """Answer as ELBv2."""
        self._take()
        return {"Attributes": [{"Key": "deregistration_delay.timeout_seconds", "Value": f"{self._delay:g}"}]}

    async def describe_target_health(self, *, TargetGroupArn: str) -> Mapping[str, Any]:  # noqa: N803 - boto3's name
        """Answer as ELBv2."""
        self._take()
        self.polled.append(asyncio.get_running_loop().time())
        return {"TargetHealthDescriptions": self._listed(self.arns.index(TargetGroupArn))}

    def _listed(self, group: int) -> list[Mapping[str, Any]]:
        there = self._targets[: self.registered]
        match self._layout:
            case "pair":
                return [] if group else there
            case "shifting pair":
                return there[group::2]
        return there

    def _take(self) -> None:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if not self.shared.balancers.take():
            self.throttled.append(now)
            raise _Throttled


def _address(number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}"


def _target(number: int, state: str = "healthy") -> Mapping[str, Any]:
    return {"Target": {"Id": _address(number), "Port": 8000}, "TargetHealth": {"State": state}}
