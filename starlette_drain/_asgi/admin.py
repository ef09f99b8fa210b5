"""The admin route: show a drain, start it, cancel it. Without a valid token it refuses."""

import asyncio
import dataclasses
import hmac
import json
import math
import signal
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from starlette_drain._asgi.announcement import Announcement
from starlette_drain._asgi.http import asks_for_events
from starlette_drain._asgi.page import make_page, wants_page
from starlette_drain._asgi.process import ProcessCheck
from starlette_drain._asgi.rotation import ROTATION_PATH, answer_rotation, describe_rotation
from starlette_drain._asgi.status_stream import StatusStreams
from starlette_drain._asgi.waiting import first, wait_gone
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.state import DrainState
from starlette_drain._engine.drain import Drain
from starlette_drain.exceptions import DrainEnded, IllegalTransition

__all__ = ["AdminRoute", "bearer_token", "is_for"]

MAX_BODY = 16 * 1024
"""The most bytes in a request body. Usual ones have a few dozen."""

BODY_TIMEOUT = 10.0
"""Seconds in which the body of a request must arrive."""

CHECK_INTERVAL = 0.5
"""Seconds between two checks whether the server is stopping, while a request waits."""

SCHEMA = 1
"""The version of the answer: raised when a field is removed or changes its meaning, not when one is added."""

DRAIN = ("rate", "eta", "shed", "left", "refused", "forced", "return_rate")
"""The fields that are sums over the workers of a task during a drain."""

COMMAND = "command"
"""The name under which the command socket shows its status, like a trigger."""

MAX_WAIT = 3600.0
"""The longest wait in seconds: the longest deregistration delay of ELBv2."""


STILL_IN_SERVICE = (
    "no source shows that the balancer has taken this task's target out: it is still in service, and new clients still "
    "arrive. Take it out with 'aws elbv2 deregister-targets', or stop the task with 'aws ecs stop-task'; {late}"
)
NO_SOURCE = (
    "a drain by hand stops no balancer or proxy from sending new clients here. If there is one, take this process out "
    "of it; {late}"
)
LATE = {True: "until then new clients are accepted up to the deadline", False: "until then new clients are refused"}

PROXY_HEADERS = (
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "forwarded",
    "via",
    "cdn-loop",
)
"""
Headers that show that a request came through a proxy. An ALB can omit the first one, but not X-Forwarded-Port.

X-Amzn-Trace-Id is none: clients that trace their requests send it themselves.
"""

OWN_PROXY_HEADERS = ("x-request-id", "x-envoy-")
"""Headers that the task's own Envoy (Service Connect) adds to X-Forwarded-Proto: it forwards only to this task."""


def _came_through_a_balancer(headers: Mapping[str, str]) -> bool:
    """Return whether a request was forwarded by something that chooses among tasks."""
    if any(name in headers for name in PROXY_HEADERS):
        return True
    return "x-forwarded-proto" in headers and not any(name.startswith(OWN_PROXY_HEADERS) for name in headers)


class _Refusal(Exception):
    def __init__(self, status: int, remedy: str, *, field: str | None = None, **headers: str) -> None:
        super().__init__(status, remedy)
        self.response = JSONResponse(
            {"error": remedy} if field is None else {"error": remedy, "field": field},
            status,
            {name.replace("_", "-"): value for name, value in headers.items()},
        )


class AdminRoute:
    """
    ``GET`` shows the drain, ``POST`` starts it, ``DELETE`` cancels it; each with ``Authorization: Bearer <token>``.

    A browser gets a page that asks for the token.

    Args:
        drain: The drain.
        token: The bearer token that every request must have (RFC 6750).
        path: The path of the route.
    """

    def __init__(self, drain: Drain, token: str, path: str) -> None:
        self._drain = drain
        self._token = token.encode()
        self._path = path
        self._streams = StatusStreams(lambda: describe(drain), self._wait_ending)

    def matches(self, scope: Scope) -> bool:
        """Return whether a request is for this route."""
        return is_for(self._path, scope) or is_for(self._path + ROTATION_PATH, scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except _Refusal as refusal:
            response = refusal.response
        except ClientDisconnect:
            return
        response.headers["cache-control"] = "no-store"
        engine = self._drain.host.engine
        if engine and engine.sends_away and scope.get("http_version", "1.1").startswith("1"):
            response.headers["connection"] = "close"  # like every other response while draining
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        is_proxied = _came_through_a_balancer(request.headers)
        is_rotation = is_for(self._path + ROTATION_PATH, request.scope)
        if not is_proxied and not is_rotation and wants_page(request):
            return make_page()
        self._authorize(request, is_proxied=is_proxied)
        if is_rotation:
            return await answer_rotation(self._drain, request.method, lambda: self._read_rotation(request))
        match request.method:
            case "GET" if asks_for_events(request.scope):
                if self._streams.is_full:
                    remedy = "too many event streams are open; close one, or send no Accept: text/event-stream"
                    raise _Refusal(429, remedy, retry_after="10")
                return self._streams.make()
            case "GET" | "HEAD":
                await self._wait(_seconds_to_wait(request), request)
                return JSONResponse(describe(self._drain))
            case "POST":
                return await self._start(request)
            case "DELETE":
                return await self._cancel()
        raise _Refusal(405, f"{request.method} is not supported here", allow="GET, HEAD, POST, DELETE")

    def _authorize(self, request: Request, *, is_proxied: bool) -> None:
        token = bearer_token(request)
        if token is None:
            raise _Refusal(401, "send 'Authorization: Bearer <admin token>'", www_authenticate="Bearer")
        if not hmac.compare_digest(token, self._token):
            challenge = 'Bearer error="invalid_token"'  # RFC 6750 section 3.1
            raise _Refusal(401, "that is not the admin token", www_authenticate=challenge)
        if is_proxied:
            remedy = (
                "this request came through a proxy or balancer, which may choose any task; send it to the task's own "
                "address"
            )
            raise _Refusal(403, remedy)

    async def _start(self, request: Request) -> Response:
        wait = _seconds_to_wait(request)
        order = _read_order(await self._read(request))
        try:
            was_serving = await self._drain.start(**order)
        except DrainEnded as error:
            raise _Refusal(503, str(error)) from None
        await self._wait(wait, request)
        return JSONResponse(describe(self._drain), 202 if was_serving else 200)

    async def _cancel(self) -> Response:
        try:
            await self._drain.cancel()
        except IllegalTransition as error:
            raise _Refusal(409, str(error)) from None
        return JSONResponse(describe(self._drain))

    async def _wait(self, seconds: float, request: Request) -> None:
        """
        Wait until drained, for at most *seconds*, or until the server is stopping: it waits for its requests.

        Raises:
            ClientDisconnect: If the client has gone.
        """
        if seconds:
            drained = self._drain.host.wait_all_drained()
            _, is_gone, _ = await first(drained, wait_gone(request.receive), self._wait_stopping(), timeout=seconds)
            if is_gone:
                raise ClientDisconnect

    async def _read(self, request: Request) -> bytes:
        body: bytes | None
        body, is_stopping = await first(_read_body(request), self._wait_stopping(), timeout=BODY_TIMEOUT)
        if body is not None:
            return body
        if is_stopping:
            raise _Refusal(503, "the server is stopping, and the body has not arrived", connection="close")
        raise _Refusal(408, f"the body has not arrived within {BODY_TIMEOUT:g} s", connection="close")

    async def _wait_ending(self) -> bool:
        """Wait until the server is stopping, or will be: most servers do not show it, and wait for their responses."""
        while not self._will_stop and self._drain.host.is_running and not _is_server_stopping():  # noqa: ASYNC110
            await asyncio.sleep(CHECK_INTERVAL)
        return True

    @property
    def _will_stop(self) -> bool:
        """Whether the process was told to stop and has drained."""
        engine = self._drain.host.engine
        return engine is not None and engine.state is DrainState.DRAINED and not engine.is_revocable

    async def _read_rotation(self, request: Request) -> dict[str, Any]:
        order = _read_object(await self._read(request), "window", "share", "age", "reason")
        return {**order, "reason": _read_reason(order)}

    async def _wait_stopping(self) -> bool:
        while self._drain.host.is_running and not _is_server_stopping():  # noqa: ASYNC110 - the server sends no event
            await asyncio.sleep(CHECK_INTERVAL)
        return True


def is_for(path: str, scope: Scope) -> bool:
    """Return whether a request is for *path*."""
    # Some servers prepend root_path to the path and some do not: the ASGI specification has changed.
    return scope["path"] in (path, scope.get("root_path", "").rstrip("/") + path)


def bearer_token(request: Request) -> bytes | None:
    """Return the bearer token of a request, or ``None``."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip().encode() if scheme.lower() == "bearer" else None


def describe(drain: Drain) -> dict[str, Any]:
    """Return the status of the whole task, of which *drain* is one worker, in JSON values."""
    engine = drain.host.engine
    now = engine.time() if engine else 0.0
    statuses = drain.host.statuses()
    task, off = dict(statuses.pop("workers")), statuses.pop(Announcement.name, {}).get("off", {})
    process = {**statuses.pop(ProcessCheck.name, {}), **statuses.pop(COMMAND, {})}
    progress, report = _plain(drain.progress(), now) or {}, _plain(drain.report, now) or {}
    if engine and engine.workers > 1 and "pacing" in progress:
        progress["pacing"] += f" (in one of {engine.workers} workers)"
    answer = {
        "schema": SCHEMA,
        "mode": drain.settings.mode,
        **{name: task[name] for name in ("scope", "state", "sessions", "answers", "working", "failed_hooks")},
    }
    has_source = any(name not in off and {"watch", "watched_by"} & each.keys() for name, each in statuses.items())
    answer["watch"] = task["watch"] or ("not yet" if has_source else None)
    if task["admission"]:
        observes_only = bool(engine and engine.admission and engine.admission.policy.observes)
        answer["admission"] = {**task["admission"], "observes_only": observes_only}
    if engine and engine.state is not DrainState.SERVING and not engine.is_taken_out:
        answer["note"] = (STILL_IN_SERVICE if has_source else NO_SOURCE).format(late=LATE[engine.admits()])
    if task["state"] == DrainState.DRAINING.value:
        answer["drain"] = {**progress, **{name: task[name] for name in DRAIN}}
    elif task["report"]:
        answer["report"] = {**report, **task["report"]}
    if process:
        answer["process"] = process
    if rotation := describe_rotation(drain, task):
        answer["rotation"] = rotation
    answer["workers"] = task["workers"]
    answer["triggers"] = {
        name: _status({**status, "why": off[name]} if name in off else dict(status))
        for name, status in statuses.items()
    }
    # The other workers can start a drain here too, so they are shown as a trigger.
    others = {"scope": task["scope"], "workers": task["workers"]}
    answer["triggers"]["workers"] = others if len(task["workers"]) > 1 else {"scope": task["scope"]}
    return answer


def _is_server_stopping() -> bool:
    """
    Return whether the server has begun to stop, if it is uvicorn, which shows that.

    It waits for its requests before it sends the lifespan's shutdown, so nothing else tells us in time.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        server: Any = getattr(signal.getsignal(number), "__self__", None)
        if hasattr(server, "should_exit"):
            # It may stop without should_exit, as with --limit-max-requests; then its sockets are closed.
            return bool(server.should_exit) or not all(each.is_serving() for each in getattr(server, "servers", ()))
    return False


def _status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the *status* of a trigger, or an error if it is not valid JSON, which would break the whole answer."""
    try:
        json.dumps(status, allow_nan=False)
    except (TypeError, ValueError) as error:
        return {"error": f"its status is not JSON: {error}"}
    return status


def _plain(value: Any, now: float) -> Any:
    """Convert to JSON values: no times of the event loop's clock, which mean nothing outside, and rounded numbers."""
    match value:
        case DrainCause():
            return {
                "trigger": value.trigger,
                "reason": value.reason,
                "seconds_ago": round(now - value.at, 3),
                "revocable": value.revocable,
                "taken_out": value.taken_out,
                "detection_lag": round(value.lag, 3),
            }
        case float():
            return round(value, 3)
        case tuple():
            return [_plain(each, now) for each in value]
        case _ if dataclasses.is_dataclass(value):
            return {each.name: _plain(getattr(value, each.name), now) for each in dataclasses.fields(value)}
    return value


def _seconds_to_wait(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_WAIT:
        raise _Refusal(400, f"wait={text!r:.80} cannot work: give seconds from 0 to {MAX_WAIT:g}", field="wait")
    return seconds


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise _Refusal(
                413, f"the body has more than {MAX_BODY} bytes; send a small JSON object", connection="close"
            )
    if body and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Refusal(415, "send the body as Content-Type: application/json", accept="application/json")
    return body


def _read_order(body: bytes) -> dict[str, Any]:
    """Parse and validate the arguments of `Drain.start` in *body*."""
    order = _read_object(body, "window", "age", "reason", "taken_out")
    for name in ("window", "age"):
        seconds = order.get(name)
        if seconds is not None and not (_is_number(seconds) and 0 <= seconds <= MAX_WAIT):
            raise _Refusal(400, f"{name}={seconds!r:.80} cannot work: give seconds from 0 to {MAX_WAIT:g}", field=name)
    reason = _read_reason(order)
    taken_out = order.get("taken_out", False)
    if not isinstance(taken_out, bool):
        remedy = f"taken_out={taken_out!r:.80} cannot work: give true if the balancer has taken the target out"
        raise _Refusal(400, remedy, field="taken_out")
    return {"window": order.get("window"), "age": order.get("age") or 0.0, "reason": reason, "taken_out": taken_out}


def _read_object(body: bytes, *names: str) -> dict[str, Any]:
    """Parse *body* as a JSON object with no fields other than *names*."""
    try:
        order = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise _Refusal(400, 'the body is not JSON; send an object such as {"window": 60}') from None
    if not isinstance(order, dict):
        raise _Refusal(400, 'the body is not a JSON object; send one such as {"window": 60}')
    for name in order.keys() - set(names):
        known = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        raise _Refusal(400, f"{name!r:.80} is not supported here: give {known}", field=f"{name!r:.80}"[1:-1])
    return order


def _read_reason(order: dict[str, Any]) -> str:
    reason = order.get("reason", "requested on the admin route")
    if not (isinstance(reason, str) and 0 < len(reason) <= 200 and reason.isprintable()):
        raise _Refusal(400, f"reason={reason!r:.80} cannot work: give 1 to 200 printable characters", field="reason")
    return reason


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
