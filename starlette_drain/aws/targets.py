"""This task's own entries in one target group: look, put in, take out."""

from collections.abc import Mapping
from typing import Any

from starlette_drain.aws.calls import AwsCalls
from starlette_drain.aws.errors import AwsCallFailed
from starlette_drain.aws.identity import OwnTarget
from starlette_drain.aws.verdict import canonical_id

__all__ = ["TargetEntries", "find_own", "is_out"]


def find_own(descriptions: list[Mapping[str, Any]], target: OwnTarget) -> list[Mapping[str, Any]]:
    """Return the ``TargetHealthDescriptions`` that are *target*'s."""
    return [
        each
        for each in descriptions
        if canonical_id(str((each.get("Target") or {}).get("Id", ""))) in target.ids
        and (not target.ports or each["Target"].get("Port") in target.ports)
    ]


def is_out(description: Mapping[str, Any]) -> bool:
    """Tell whether the balancer sends nothing new to a target, because it was deregistered."""
    health = description.get("TargetHealth") or {}
    match health.get("State"), health.get("Reason"):
        case ("draining", _) | ("unused", "Target.NotRegistered"):
            return True
    return False


class TargetEntries:
    """
    This task's own entries in one target group.

    Args:
        calls: The way to AWS.
        target: What this task is in the group.
    """

    def __init__(self, calls: AwsCalls, target: OwnTarget) -> None:
        self._calls = calls
        self.target = target

    @property
    def arn(self) -> str:
        """ARN of the group."""
        return self.target.target_group_arn

    async def register(self) -> bool:
        """
        Put the task in; return whether it was out.

        Raises:
            AwsCallFailed: If that does not work.
        """
        try:
            if await self._find_registered():
                return False
        except AwsCallFailed:
            pass  # to register twice does no harm
        await self._calls.call("elbv2", "RegisterTargets", TargetGroupArn=self.arn, Targets=self._as_registered())
        return True

    async def deregister(self) -> bool:
        """
        Take the task out; return whether it was in, as far as can be seen.

        Raises:
            AwsCallFailed: If that does not work.
        """
        try:
            entries = await self._find_registered()
        except AwsCallFailed:
            # "If the specified target does not exist, the action returns successfully", says the API reference.
            entries = self._as_registered()
        if entries:
            await self._calls.call("elbv2", "DeregisterTargets", TargetGroupArn=self.arn, Targets=entries)
        return bool(entries)

    async def is_out(self) -> bool:
        """
        Tell whether the balancer sends nothing new to the task.

        Raises:
            AwsCallFailed: If nobody tells.
        """
        return not await self._find_registered()

    async def _find_registered(self) -> list[Mapping[str, Any]]:
        answer = await self._calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn=self.arn)
        own = find_own(answer.get("TargetHealthDescriptions") or [], self.target)
        return [_named(each["Target"]) for each in own if not is_out(each)]

    def _as_registered(self) -> list[Mapping[str, Any]]:
        # A task with addresses of both families is registered with one of them; DRAIN_TARGET_ID chooses another.
        target_id = min(self.target.ids, key=lambda each: (":" in each, each))
        if not self.target.ports:
            return [{"Id": target_id}]  # with the port of the group
        return [{"Id": target_id, "Port": port} for port in sorted(self.target.ports)]


def _named(target: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: target[key] for key in ("Id", "Port") if key in target}
