"""
An AWS Lambda function that starts the drain of tasks when ECS decides to stop them.

EventBridge sends each "ECS Task State Change" of a service to a queue, from which Lambda gets batches. Events directly
from EventBridge work too. The function posts to ``/drain`` at the address of each task. It needs only the standard
library, and boto3 for the two reads from AWS (DescribeTasks and GetSecretValue); every Python runtime of Lambda has it.

Addresses come only from ECS. Only AWS can send an event with the source ``aws.ecs``, so a recent one is trusted. For
any other, DescribeTasks decides, with one call for up to 100 tasks. So duplicate, late and out-of-order events are
harmless: a task that is asked twice answers 200, and a stopped task is not asked, even if another task has its address
now. DescribeTasks may lag: if the event is newer than the record, it is retried. A failure that may pass (also
throttling, or a task that does not answer) raises, or is reported as a failed item of the batch, and is retried.

Environment variables:
    TOKEN_SECRET: Name or ARN of the secret: the token itself, or ``{"token": ...}``.
    DRAIN_PORT: 8000 by default.
    DRAIN_PATH: ``/drain`` by default.
    DRAIN_WINDOW: Seconds left when ECS decides; by default the task's own window. The task subtracts the event's age.
    DRAIN_SCHEME: ``http`` (default) or ``https``.
    DRAIN_TLS_NAME: With https, the name in the tasks' certificate; by default the address.
    DRAIN_CA: With https, a file with the certificates to trust.
"""

import http.client
import importlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

__all__ = ["handler"]

SPOT_CODES = ("SpotInterruption", "TerminationNotice")
SPOT_WINDOW = 105.0
"""Seconds: the two minutes of Fargate Spot, less 15 for the last closes."""
FRESH = 20.0
"""Seconds for which an event of ECS is trusted without DescribeTasks: an address is not reused so soon."""
KNOWN_AFTER = 300.0
"""Age in seconds from which a task unknown to DescribeTasks counts as gone; before, it may not be listed yet.

ECS lists a stopped task for about an hour.
"""
KEEP_TOKEN = 300.0
"""Seconds for which the token is cached; a rotated token is read after that."""
TIME_LIMIT = 5.0
"""Timeout of a request to a task, in seconds."""
AT_ONCE = 50
"""The most requests to tasks at the same time."""
A_CALL = 100
"""The most tasks in a call of DescribeTasks."""
RESERVED = 13.0
"""Seconds at the end of an invocation that are reserved for the last DescribeTasks and the report of failed items."""

Outcome = dict[str, Any] | Exception

_clients: dict[str, Any] = {}
_token: tuple[float, str] | None = None
_round = 0
_read_in = 0
_why_not = ""
_reading = threading.Lock()


class NotAskedYet(Exception):
    """The task could not be asked to leave; it is retried, and in the end the event goes to the dead-letter queue."""


def handler(event: Mapping[str, Any], context: Any = None) -> dict[str, Any]:
    """Handle one event and return its outcome, or a batch from a queue and return its failed items."""
    global _round  # noqa: PLW0603 - Lambda keeps only globals between invocations
    _round += 1
    left = None if context is None else context.get_remaining_time_in_millis() / 1000 - RESERVED
    ends = None if left is None else time.monotonic() + left
    if "Records" not in event:
        (outcome,) = _handle([event], ends)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
    readable, failed = [], []
    for message in event["Records"]:
        try:
            readable.append((message["messageId"], _read_event(message)))
        except Exception as error:  # noqa: BLE001 - a malformed message must not stop the others
            failed.append(_failed(message["messageId"], error))
    for (name, _), outcome in zip(readable, _handle([each for _, each in readable], ends), strict=True):
        if isinstance(outcome, Exception):
            failed.append(_failed(name, outcome))
    return {"batchItemFailures": failed}


def _read_event(message: Mapping[str, Any]) -> Mapping[str, Any]:
    event = json.loads(message["body"])
    if not isinstance(event, dict):
        text = "the message contains no event"
        raise ValueError(text)  # noqa: TRY004 - as for invalid JSON
    return event


def _failed(name: str, error: Exception) -> dict[str, str]:
    print(json.dumps({"message": name, "error": f"{type(error).__name__}: {error}"}))
    return {"itemIdentifier": name}


def _handle(events: Sequence[Mapping[str, Any]], ends: float | None) -> list[Outcome]:
    """Return the outcome of each event, or the error to retry; *ends* is the end of the invocation."""
    outcomes, leaving = _sort(events)
    failed: dict[int, Exception] = {}
    for number, done in _ask_all(events, leaving, ends).items():
        if isinstance(done, Exception):
            failed[number] = done
        else:
            outcomes[number] = _told(_arn(events[number]), "asked", done)
    for number, found in _look(events, list(failed)).items():  # some may have stopped since
        arn, error = _arn(events[number]), failed[number]
        outcomes[number] = _told(arn, "gone") if found is None else _not_asked(arn, leaving[number], error)
    return [outcomes[number] for number in range(len(events))]


def _sort(events: Sequence[Mapping[str, Any]]) -> tuple[dict[int, Outcome], dict[int, Mapping[str, Any]]]:
    """Return the outcomes of events that need no request, and the tasks to ask for the others."""
    outcomes: dict[int, Outcome] = {}
    leaving: dict[int, Mapping[str, Any]] = {}
    unsure: list[int] = []
    for number, event in enumerate(events):
        try:
            detail = _detail(event)
            if event.get("detail-type") != "ECS Task State Change" or not _arn(event) or not _is_leaving(detail):
                outcomes[number] = _told(_arn(event), "ignored")
            elif _is_certain(event) and _addresses(detail):
                leaving[number] = detail
            else:
                unsure.append(number)
        except Exception as error:  # noqa: BLE001 - a malformed event must not stop the others
            outcomes[number] = error
    for number, found in _look(events, unsure).items():
        arn = _arn(events[number])
        if isinstance(found, Exception):
            outcomes[number] = found
        elif found is None:
            outcomes[number] = _told(arn, "gone")
        elif _addresses(found):
            leaving[number] = found
        else:
            outcomes[number] = _told(arn, "no address of its own: only tasks in awsvpc mode can be asked")
    return outcomes, leaving


def _not_asked(arn: str, task: Mapping[str, Any], error: Exception) -> NotAskedYet:
    if isinstance(error, NotAskedYet):
        return error
    raised = NotAskedYet(f"{arn} at {' and '.join(_addresses(task))} was not asked to leave: {error}")
    raised.__cause__ = error
    return raised


def _detail(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return event.get("detail") or {}


def _arn(event: Mapping[str, Any]) -> str:
    return str(_detail(event).get("taskArn") or "")


def _is_leaving(task: Mapping[str, Any]) -> bool:
    """Return whether ECS stops a task that still runs; events and DescribeTasks have the same fields."""
    last, desired = task.get("lastStatus"), task.get("desiredStatus")
    return last == "DEACTIVATING" or (last in ("ACTIVATING", "RUNNING") and desired == "STOPPED")


def _is_certain(event: Mapping[str, Any]) -> bool:
    """Return whether an event is recent and from ECS: PutEvents rejects sources that begin with aws."""
    age = _seconds_since(event)
    return event.get("source") == "aws.ecs" and age is not None and abs(age) < FRESH


def _look(
    events: Sequence[Mapping[str, Any]], numbers: Sequence[int]
) -> dict[int, Mapping[str, Any] | Exception | None]:
    """Return the task of each of these events, ``None`` if ECS does not stop it, or the error if that is unknown."""
    found: dict[int, Mapping[str, Any] | Exception | None] = {}
    clusters: dict[str, dict[str, None]] = {}
    for number in numbers:
        clusters.setdefault(str(_detail(events[number]).get("clusterArn") or ""), {})[_arn(events[number])] = None
    records: dict[str, Mapping[str, Any]] = {}
    errors: dict[str, Exception] = {}
    for cluster, arns in clusters.items():
        for begin in range(0, len(arns), A_CALL):
            described, failed = _describe(cluster, list(arns)[begin : begin + A_CALL])
            records |= described
            errors |= failed
    for number in numbers:
        arn = _arn(events[number])
        found[number] = errors.get(arn) or _judge(events[number], records.get(arn))
    return found


def _describe(cluster: str, arns: list[str]) -> tuple[dict[str, Mapping[str, Any]], dict[str, Exception]]:
    """Return the records of these tasks, and the errors of those that could not be described."""
    try:
        answer = _client("ecs").describe_tasks(cluster=cluster, tasks=arns)
    except Exception as error:  # noqa: BLE001 - the tasks of other calls must not fail with these
        code = (getattr(error, "response", None) or {}).get("Error", {}).get("Code")
        if code != "InvalidParameterException" or len(arns) == 1:
            return {}, dict.fromkeys(arns, error)
        # If one ARN is invalid, ECS describes none of the tasks.
        records, errors = _describe(cluster, arns[: len(arns) // 2])
        more, failed = _describe(cluster, arns[len(arns) // 2 :])
        return records | more, errors | failed
    return {each["taskArn"]: each for each in answer.get("tasks") or () if "taskArn" in each}, {}


def _judge(event: Mapping[str, Any], record: Mapping[str, Any] | None) -> Mapping[str, Any] | Exception | None:
    """Return the *record* if ECS stops its task, ``None`` if not, or an error if the event is newer than the record."""
    if record is None:
        age = _seconds_since(event)
        if age is None or age < KNOWN_AFTER:  # without a time the queue ends the attempts
            return NotAskedYet(f"ECS does not know {_arn(event)} yet")
        return None
    if _is_leaving(record):
        return record
    has_begun_to_end = record.get("lastStatus") not in ("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING")
    if not has_begun_to_end and _version(_detail(event)) > _version(record):
        return NotAskedYet(f"the record of {_arn(event)} is older than the event")
    return None


def _version(task: Mapping[str, Any]) -> int:
    try:
        return int(task["version"])
    except (KeyError, TypeError, ValueError):
        return 0


def _addresses(task: Mapping[str, Any]) -> list[str]:
    """Return the addresses of the task's network interfaces, from its containers and attachments."""
    named = [
        each
        for container in task.get("containers") or ()
        for interface in container.get("networkInterfaces") or ()
        for each in interface.items()
    ]
    named += [
        (each.get("name"), each.get("value"))
        for attachment in task.get("attachments") or ()
        for each in attachment.get("details") or ()
    ]
    kinds = ("privateipv4address", "ipv6address")
    found = {kind: [value for name, value in named if value and str(name).lower() == kind] for kind in kinds}
    return list(dict.fromkeys(address for kind in kinds for address in found[kind]))


def _order(event: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the request: the reason, the age, and the window if it is known here."""
    windows = [float(text)] if (text := os.environ.get("DRAIN_WINDOW")) else []
    if task.get("stopCode") in SPOT_CODES:
        windows.append(SPOT_WINDOW)
    why = str(task.get("stopCode") or "no stop code")
    age = min(max(0.0, round(_seconds_since(event) or 0.0, 1)), 3600.0)  # the most that the route accepts
    order = {"reason": f"ECS wants the task to end ({task.get('lastStatus')}, {why})", "age": age}
    return order | {"taken_out": True} | ({"window": min(windows)} if windows else {})


def _seconds_since(event: Mapping[str, Any]) -> float | None:
    """Return the age of the event in seconds; ``None`` if it has no valid time."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(event["time"]))).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None


def _ask_all(
    events: Sequence[Mapping[str, Any]], leaving: Mapping[int, Mapping[str, Any]], ends: float | None
) -> dict[int, int | Exception]:
    """Ask all of these tasks concurrently; return the status or the error of each."""

    def ask(number: int) -> int | Exception:
        task, problem = leaving[number], OSError("it has no address")
        for address in _addresses(task):
            try:
                return _post(address, _order(events[number], task))
            except OSError as error:
                problem = error
            except Exception as error:  # noqa: BLE001 - an unexpected answer must not stop the others
                return error
        return problem

    if not leaving:
        return {}
    pool = ThreadPoolExecutor(min(AT_ONCE, len(leaving)))
    asked = {number: pool.submit(ask, number) for number in leaving}
    in_time, _ = wait(asked.values(), None if ends is None else max(0.0, ends - time.monotonic()))
    pool.shutdown(wait=False, cancel_futures=True)
    late = TimeoutError("there was no time left")
    return {number: each.result() if each in in_time else late for number, each in asked.items()}


def _post(address: str, order: Mapping[str, Any]) -> int:
    """Post to ``/drain`` and return the status; if the token is refused, retry once with a token that is read again."""
    path, status, token = os.environ.get("DRAIN_PATH", "/drain"), 401, ""
    for _ in range(2):
        token = _read_token(refused=token)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        with closing(_connection(address)) as connection:
            connection.request("POST", path, json.dumps(order).encode(), headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        told = json.loads(text) if status in (200, 202) else None
        if isinstance(told, dict) and told.get("state") in ("draining", "drained"):
            return status
        if status != 401:
            break
    message = f"the answer is {status}, not that of a task that drains"
    raise OSError(message)


def _connection(address: str) -> http.client.HTTPConnection:
    # Not urllib, which follows redirects to any host, with the token. No proxy: the task is in the same VPC.
    port = int(os.environ.get("DRAIN_PORT", "8000"))
    if os.environ.get("DRAIN_SCHEME", "http") == "http":
        return http.client.HTTPConnection(address, port, timeout=TIME_LIMIT)
    name = os.environ.get("DRAIN_TLS_NAME") or address
    context = ssl.create_default_context(cafile=os.environ.get("DRAIN_CA") or None)
    connection = http.client.HTTPSConnection(address, port, timeout=TIME_LIMIT, context=context)
    plain = socket.create_connection((address, port), TIME_LIMIT)
    try:
        connection.sock = context.wrap_socket(plain, server_hostname=name)
    except OSError:
        plain.close()
        raise
    return connection


def _read_token(*, refused: str) -> str:
    """Return the token, read again if it is old or was *refused*, but only once per invocation."""
    global _token, _read_in, _why_not  # noqa: PLW0603 - see above
    with _reading:
        is_known = _token is not None and _token[1] != refused and time.monotonic() - _token[0] <= KEEP_TOKEN
        if not is_known and _read_in != _round:
            _read_in, _why_not = _round, ""
            try:
                _token = time.monotonic(), _find_token()
            except Exception as error:  # noqa: BLE001 - raised for every task of the batch
                _token, _why_not = None, str(error)
        if _token is None:
            raise NotAskedYet(_why_not)
        return _token[1]


def _find_token() -> str:
    secret = _client("secretsmanager").get_secret_value(SecretId=os.environ["TOKEN_SECRET"])
    try:
        text = secret["SecretString"].strip()
        token = str(json.loads(text)["token"]).strip() if text.startswith("{") else text
    except (KeyError, TypeError, ValueError):
        token = ""
    if not (token and all("!" <= each <= "~" for each in token)):
        message = "the secret contains no token that is valid in a header"  # http.client's error would log the token
        raise NotAskedYet(message)
    return token


def _client(service: str) -> Any:
    if service not in _clients:
        limits = importlib.import_module("botocore.config").Config(
            connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 2, "mode": "standard"}
        )
        _clients[service] = importlib.import_module("boto3").client(service, config=limits)
    return _clients[service]


def _told(arn: str, outcome: str, status: int | None = None) -> dict[str, Any]:
    told = {"task": arn, "outcome": outcome, "status": status}
    print(json.dumps(told))
    return told
