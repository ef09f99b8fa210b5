"""The admin route: look at a drain, start it, cancel it. It refuses by default."""

import asyncio
import dataclasses
import hmac
import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.state import DrainState
from starlette_drain._engine.drain import Drain
from starlette_drain.exceptions import IllegalTransition

__all__ = ["AdminRoute", "bearer_token", "is_for"]

MAX_BODY = 16 * 1024
"""Bytes; a request to drain is a few dozen."""

MAX_WAIT = 3600.0
"""Seconds; the longest deregistration delay there is."""


PROXY_HEADERS = ("x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "forwarded")
"""What tells that a request did not come straight. An ALB can be set to leave the first one out, but not the others."""


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

    Args:
        drain: The drain.
        token: The secret that every request must carry (RFC 6750).
    """

    def __init__(self, drain: Drain, token: str) -> None:
        self._drain = drain
        self._token = token.encode()

    def matches(self, scope: Scope) -> bool:
        """Tell whether a request is for this route."""
        return is_for(self._drain.settings.admin_path, scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except _Refusal as refusal:
            response = refusal.response
        except ClientDisconnect:
            return
        response.headers["cache-control"] = "no-store"
        if self._drain.state is not DrainState.SERVING and scope.get("http_version", "1.1").startswith("1"):
            response.headers["connection"] = "close"  # like every other response while draining
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        self._authorize(request)
        match request.method:
            case "GET" | "HEAD":
                await self._wait(_seconds_to_wait(request), request)
                return JSONResponse(describe(self._drain))
            case "POST":
                return await self._start(request)
            case "DELETE":
                return await self._cancel()
        raise _Refusal(405, f"{request.method} means nothing here", allow="GET, HEAD, POST, DELETE")

    def _authorize(self, request: Request) -> None:
        token = bearer_token(request)
        if token is None:
            raise _Refusal(401, "send 'Authorization: Bearer <admin token>'", www_authenticate="Bearer")
        if not hmac.compare_digest(token, self._token):
            challenge = 'Bearer error="invalid_token"'  # RFC 6750 section 3.1
            raise _Refusal(401, "that is not the admin token", www_authenticate=challenge)
        if not self._drain.settings.admin_proxied and any(name in request.headers for name in PROXY_HEADERS):
            remedy = (
                "this request came through a proxy or balancer and would drain a task of the balancer's choice; "
                "send it to the task's own address, or set admin_proxied=True"
            )
            raise _Refusal(403, remedy)

    async def _start(self, request: Request) -> Response:
        wait = _seconds_to_wait(request)
        order = _read_order(await _read_body(request))
        self._drain.look()
        was_serving = self._drain.state is DrainState.SERVING
        await self._drain.start(**order)
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
        Wait until drained, for *seconds* at the most; a server waits for a request when it ends, so not for nobody.

        Raises:
            ClientDisconnect: If the client has gone.
        """
        if not seconds:
            return
        drained = asyncio.create_task(self._drain.wait_all_drained())
        gone = asyncio.create_task(_wait_gone(request.receive))
        try:
            await asyncio.wait({drained, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ClientDisconnect
            if drained.done():
                drained.result()
        finally:
            for task in (drained, gone):
                task.cancel()
            await asyncio.gather(drained, gone, return_exceptions=True)


def is_for(path: str, scope: Scope) -> bool:
    """Tell whether a request is for *path*."""
    # Servers put their root_path in front of the path, or not: the ASGI specification changed its mind.
    return scope["path"] in (path, scope.get("root_path", "").rstrip("/") + path)


def bearer_token(request: Request) -> bytes | None:
    """Return the token that a request carries; None if it carries none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip().encode() if scheme.lower() == "bearer" else None


def describe(drain: Drain) -> dict[str, Any]:
    """Return all that is known of *drain*, in JSON values."""
    now = drain.time()
    answer: dict[str, Any] = {"state": drain.state.value, "sessions": dataclasses.asdict(drain.statistics())}
    answer["transfers"] = len(drain.transfers)
    if drain.state is DrainState.DRAINING and (progress := drain.progress()):
        answer["drain"] = _plain(progress, now)
    if drain.report and drain.state is not DrainState.DRAINING:
        answer["report"] = _plain(drain.report, now)
    answer["triggers"] = {name: _status(dict(status)) for name, status in drain.trigger_status().items()}
    return answer


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a trigger says of itself, unless it would spoil the whole answer: JSON knows no infinity."""
    try:
        json.dumps(status, allow_nan=False)
    except (TypeError, ValueError) as error:
        return {"error": f"its status is no JSON: {error}"}
    return status


def _plain(value: Any, now: float) -> Any:
    """Make JSON values: no moments on the event loop's clock, which mean nothing outside, and no long fractions."""
    match value:
        case DrainCause():
            return {
                "trigger": value.trigger,
                "reason": value.reason,
                "seconds_ago": round(now - value.at, 3),
                "revocable": value.revocable,
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
    """Return the window, the age and the reason that a body gives."""
    try:
        order = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise _Refusal(400, 'the body is not JSON; send an object such as {"window": 60}') from None
    if not isinstance(order, dict):
        raise _Refusal(400, 'the body is not a JSON object; send one such as {"window": 60}')
    for name in order.keys() - {"window", "age", "reason"}:
        remedy = f"{name!r:.80} means nothing here: give 'window', 'age' or 'reason'"
        raise _Refusal(400, remedy, field=f"{name!r:.80}"[1:-1])
    for name in ("window", "age"):
        seconds = order.get(name)
        if seconds is not None and not (_is_number(seconds) and 0 <= seconds <= MAX_WAIT):
            raise _Refusal(400, f"{name}={seconds!r:.80} cannot work: give seconds from 0 to {MAX_WAIT:g}", field=name)
    reason = order.get("reason", "asked for on the admin route")
    if not (isinstance(reason, str) and 0 < len(reason) <= 200 and reason.isprintable()):
        raise _Refusal(400, f"reason={reason!r:.80} cannot work: give 1 to 200 printable characters", field="reason")
    return {"window": order.get("window"), "age": order.get("age") or 0.0, "reason": reason}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
