"""
An AWS Lambda function that tells a task to leave, as soon as ECS has decided so.

EventBridge hands it each "ECS Task State Change" of a service. It asks ECS whether that is still so, finds the task's
address and posts to its ``/drain``. Standard library only, but for the two reads from AWS (DescribeTasks and
GetSecretValue): those take boto3, which every Python runtime of Lambda has.

An event is a hint, and the answer of DescribeTasks is what counts. So events that are repeated, late or out of order do
no harm: a task that is asked twice answers 200, and one that is gone is left alone, also when another task has its
address by now. What may be over soon (throttling, a task that does not answer) raises, and Lambda tries again.

Environment: ``TOKEN_SECRET`` (name or ARN; the token as it is, or ``{"token": ...}``), ``DRAIN_PORT`` (8000),
``DRAIN_PATH`` (/drain), ``DRAIN_WINDOW`` (seconds that are left when ECS decides; by default the task's own). The task
is told how long ago that was, and takes it off.
"""

import http.client
import importlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

__all__ = ["handler"]

SPOT_CODES = ("SpotInterruption", "TerminationNotice")
SPOT_WINDOW = 105.0
"""Seconds of the two minutes that Fargate Spot gives, less 15 for the last farewells."""
KEEP_TOKEN = 300.0
"""Seconds for which the token is kept, so that a rotated one is soon found."""
TIME_LIMIT = 5.0
"""Seconds that a task may take to answer."""

_clients: dict[str, Any] = {}
_token: tuple[float, str] | None = None


class NotAskedYet(Exception):
    """The task could not be asked to leave; Lambda tries again, and in the end keeps the event in the dead letters."""


def handler(event: Mapping[str, Any], _context: object = None) -> dict[str, Any]:
    """Handle one event; return what became of it."""
    detail: Mapping[str, Any] = event.get("detail") or {}
    arn, cluster = str(detail.get("taskArn") or ""), str(detail.get("clusterArn") or "")
    if event.get("detail-type") != "ECS Task State Change" or not arn or not _is_leaving(detail):
        return _told(arn, "ignored")
    if (task := _find_leaving(cluster, arn)) is None:
        return _told(arn, "gone")
    if (address := _address(task) or _address(detail)) is None:
        return _told(arn, "no address of its own: only tasks in awsvpc mode can be asked")
    try:
        return _told(arn, "asked", _post(address, _order(event, task)))
    except (OSError, ValueError, http.client.HTTPException) as error:
        if _find_leaving(cluster, arn) is None:  # it has ended between the look and the question
            return _told(arn, "gone")
        message = f"{arn} at {address} was not asked to leave: {error}"
        raise NotAskedYet(message) from error


def _is_leaving(task: Mapping[str, Any]) -> bool:
    """Tell whether ECS wants the end of a task that still runs: the same record in events and in DescribeTasks."""
    last, desired = task.get("lastStatus"), task.get("desiredStatus")
    return last == "DEACTIVATING" or (last in ("ACTIVATING", "RUNNING") and desired == "STOPPED")


def _find_leaving(cluster: str, arn: str) -> Mapping[str, Any] | None:
    """Return the task, if ECS knows it and wants its end."""
    tasks = _client("ecs").describe_tasks(cluster=cluster, tasks=[arn]).get("tasks") or []
    return next(filter(_is_leaving, tasks), None)


def _address(task: Mapping[str, Any]) -> str | None:
    """Return the address of the task's network interface: containers name it, attachments too in other words."""
    named: dict[str, str] = {}
    for container in task.get("containers") or ():
        for interface in container.get("networkInterfaces") or ():
            named |= {key.lower(): value for key, value in interface.items() if value}
    for attachment in task.get("attachments") or ():
        for each in attachment.get("details") or ():
            named.setdefault(str(each.get("name")).lower(), str(each.get("value")))
    ipv6 = named.get("ipv6address")
    return named.get("privateipv4address") or (f"[{ipv6}]" if ipv6 else None)


def _order(event: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the task is told: why, how long ago, and how many seconds it had then where that is known here."""
    windows = [float(text)] if (text := os.environ.get("DRAIN_WINDOW")) else []
    if task.get("stopCode") in SPOT_CODES:
        windows.append(SPOT_WINDOW)
    why = str(task.get("stopCode") or "no stop code")
    order = {"reason": f"ECS wants the task to end ({task.get('lastStatus')}, {why})", "age": _age(event)}
    return order | {"taken_out": True} | ({"window": min(windows)} if windows else {})


def _age(event: Mapping[str, Any]) -> float:
    """Return how many seconds ago it happened, as far as the event tells; the task takes 3600 at the most."""
    try:
        at = datetime.fromisoformat(str(event["time"]))
    except (KeyError, ValueError):
        return 0.0
    return min(max(0.0, round((datetime.now(UTC) - at).total_seconds(), 1)), 3600.0)


def _post(address: str, order: Mapping[str, Any]) -> int:
    """Post to ``/drain`` and return the status; with a fresh token once more where the one at hand is refused."""
    port, path, status = int(os.environ.get("DRAIN_PORT", "8000")), os.environ.get("DRAIN_PATH", "/drain"), 401
    for fresh in (False, True):
        headers = {"Authorization": f"Bearer {_read_token(fresh=fresh)}", "Content-Type": "application/json"}
        # Not urllib: that follows redirects, with the token, to any host. No proxy either: the task is in the same VPC.
        with closing(http.client.HTTPConnection(address, port, timeout=TIME_LIMIT)) as connection:
            connection.request("POST", path, json.dumps(order).encode(), headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        told = json.loads(text) if status in (200, 202) else None
        if isinstance(told, dict) and told.get("state") in ("draining", "drained"):
            return status
        if status != 401:
            break
    message = f"the answer is {status}, and none of a task that drains"
    raise OSError(message)


def _read_token(*, fresh: bool) -> str:
    global _token  # noqa: PLW0603 - what outlives one call of a function in Lambda is global
    if _token is None or fresh or time.monotonic() - _token[0] > KEEP_TOKEN:
        text = _client("secretsmanager").get_secret_value(SecretId=os.environ["TOKEN_SECRET"])["SecretString"].strip()
        token = str(json.loads(text)["token"]).strip() if text.startswith("{") else text
        if not (token and all("!" <= each <= "~" for each in token)):
            message = "the secret holds no token that a header can carry"  # whose error would show it in the log
            raise NotAskedYet(message)
        _token = time.monotonic(), token
    return _token[1]


def _client(service: str) -> Any:
    if service not in _clients:
        limits = importlib.import_module("botocore.config").Config(connect_timeout=3, read_timeout=5)
        _clients[service] = importlib.import_module("boto3").client(service, config=limits)
    return _clients[service]


def _told(arn: str, outcome: str, status: int | None = None) -> dict[str, Any]:
    told = {"task": arn, "outcome": outcome, "status": status}
    print(json.dumps(told))
    return told
