"""Reads from a service's events when its targets were deregistered."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from starlette_drain.aws.session import OpenSession

__all__ = ["deregistrations"]


async def deregistrations(aws: OpenSession, arn: str, wall_clock: Callable[[], float]) -> list[float]:
    """
    Return how many seconds ago the task's service deregistered targets from the group *arn*, as far back as ECS tells.

    The events contain the group and the number of targets, but not which ones:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html.

    Raises:
        Incomplete: If the events cannot be read.
    """
    service = await aws.service.get()
    if service is None:
        return []
    task = await aws.task.get()
    answer = await aws.calls.call("ecs", "DescribeServices", cluster=task.cluster, services=[service])
    records = answer.get("services") or [{}]
    events: list[Mapping[str, Any]] = records[0].get("events") or []
    found = [each for each in events if _is_about(str(each.get("message") or ""), arn)]
    now = wall_clock()
    return [now - moment for each in found if (moment := _seconds(each.get("createdAt"))) is not None]


def _is_about(message: str, arn: str) -> bool:
    return "deregistered " in message and arn in message


def _seconds(moment: object) -> float | None:
    if isinstance(moment, datetime):
        return moment.timestamp()
    return float(moment) if isinstance(moment, int | float) else None
