"""The calls to Elastic Load Balancing (ELBv2: ALB, NLB, GWLB). All raise `AwsCallFailed`."""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls

__all__ = ["deregister", "describe_attributes", "describe_groups", "describe_health", "register"]


async def describe_health(calls: AwsCalls, arn: str) -> list[Mapping[str, Any]]:
    """
    Return the ``TargetHealthDescriptions`` of a whole group.

    The call names no targets, so that its answer also shows how many of the group are healthy and draining.
    """
    answer = await calls.call("elbv2", "DescribeTargetHealth", TargetGroupArn=arn)
    return answer.get("TargetHealthDescriptions") or []


async def describe_groups(calls: AwsCalls, arns: list[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the records of groups by ARN. The call fails if one of them does not exist."""
    answer = await calls.call("elbv2", "DescribeTargetGroups", TargetGroupArns=arns)
    return {each["TargetGroupArn"]: each for each in answer["TargetGroups"]}


async def describe_attributes(calls: AwsCalls, arn: str) -> Mapping[str, Any]:
    """Return the attributes of a group, such as ``deregistration_delay.timeout_seconds``."""
    answer = await calls.call("elbv2", "DescribeTargetGroupAttributes", TargetGroupArn=arn)
    return {each["Key"]: each.get("Value") for each in answer["Attributes"]}


async def register(calls: AwsCalls, arn: str, targets: Iterable[Mapping[str, Any]]) -> None:
    """Register *targets* with a group."""
    await calls.call("elbv2", "RegisterTargets", TargetGroupArn=arn, Targets=list(targets))


async def deregister(calls: AwsCalls, arn: str, targets: Iterable[Mapping[str, Any]]) -> None:
    """Deregister *targets* from a group; AWS ignores those that are not registered."""
    await calls.call("elbv2", "DeregisterTargets", TargetGroupArn=arn, Targets=list(targets))
