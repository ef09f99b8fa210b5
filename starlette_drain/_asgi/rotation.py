"""The part of the admin route for rotations: show one, start it, cancel it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from starlette_drain._engine.drain import Drain
from starlette_drain.exceptions import DrainEnded, IllegalTransition, SettingsError

__all__ = ["ROTATION_PATH", "answer_rotation", "describe_rotation"]

ROTATION_PATH = "/rotation"

NONE = {"state": "none"}


async def answer_rotation(drain: Drain, method: str, read: Callable[[], Awaitable[Mapping[str, Any]]]) -> Response:
    """Answer a request with *method*; *read* returns its parsed body."""
    status = 200
    try:
        match method:
            case "GET" | "HEAD":
                pass
            case "POST":
                await drain.rotate(**await read())
                status = 202
            case "DELETE":
                await drain.stop_rotating()
            case _:
                headers = {"allow": "GET, HEAD, POST, DELETE"}
                return JSONResponse({"error": f"{method} is not supported here"}, 405, headers)
    except SettingsError as error:
        problem = f"{error.option}={error.value!r:.80} cannot work: {error.remedy}"
        return JSONResponse({"error": problem, "field": error.option}, 400)
    except IllegalTransition as error:
        return JSONResponse({"error": str(error)}, 409)
    except DrainEnded as error:
        return JSONResponse({"error": str(error)}, 503)
    return JSONResponse(describe_rotation(drain, drain.host.statuses()["workers"]) or NONE, status)


def describe_rotation(drain: Drain, task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the progress of the rotation of the whole *task*, in JSON values; ``None`` if none runs."""
    engine, remaining = drain.host.engine, int(task["rotating"])
    if engine is None or engine.turnover.order is None or not remaining:
        return None
    order, progress = engine.turnover.order, engine.rotation()
    # A worker that has asked all of its own sessions computes the time left from the order.
    time_left = progress.time_left if progress else max(0.0, order["at"] + order["window"] - engine.time())
    is_paused = progress is not None and progress.state == "paused"
    return {
        "state": "paused" if is_paused else "rotating",
        **{name: order[name] for name in ("trigger", "reason", "window", "share")},
        "time_left": round(time_left, 3),
        "rate": round(remaining / time_left, 3) if time_left and not is_paused else 0.0,
        "asked": int(task["rotated"]),
        "remaining": remaining,
    }
