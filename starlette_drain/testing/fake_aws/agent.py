"""The endpoints of the ECS agent: task metadata version 4, and scale-in protection."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette_drain.testing.fake_aws.cluster import FakeTask

__all__ = ["metadata", "protection"]

LONGEST_PROTECTION = 2880
"""In minutes. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html"""


def metadata(task: FakeTask, rest: str) -> Any:
    """Return the answer of ``${ECS_CONTAINER_METADATA_URI_V4}<rest>``, or ``None`` if there is no such path."""
    match rest:
        case "":
            return task.container_metadata(next(iter(task.containers)))
        case "/task":
            return task.metadata()
    return None


def protection(task: FakeTask, request: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
    """
    Answer ``${ECS_AGENT_URI}/task-protection/v1/state``: apply *request*, or only show the state if it is ``None``.

    Returns:
        The HTTP status and the answer.
    """
    if task.service is None:
        failure = {"Arn": task.arn, "Detail": None, "Reason": "TASK_NOT_VALID"}
        return 200, {"failure": failure}
    now = time.time()
    if request is not None:
        wanted = request.get("ProtectionEnabled")
        minutes = request.get("ExpiresInMinutes", 120)
        if not isinstance(wanted, bool) or not isinstance(minutes, int) or not 1 <= minutes <= LONGEST_PROTECTION:
            message = "Invalid request: fields ProtectionEnabled and ExpiresInMinutes (1 to 2880)"
            return 400, {"error": {"Arn": task.arn, "Code": "InvalidParameterException", "Message": message}}
        task.protected_until = now + minutes * 60 if wanted else None
    if task.protected_until is not None and task.protected_until <= now:
        task.protected_until = None
    shown: dict[str, Any] = {"ProtectionEnabled": task.protected_until is not None, "TaskArn": task.arn}
    if task.protected_until is not None:
        shown["ExpirationDate"] = datetime.fromtimestamp(task.protected_until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return 200, {"protection": shown}
