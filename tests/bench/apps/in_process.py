"""
Measures sessions without sockets: ``python -m in_process <what> <options as JSON>``; prints its figures as JSON.

Each is a coroutine function below. *watched* says whether the application stands behind the middleware.
"""

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from crowd import Crowd, idle, settle
from harness.evenness import busiest, deviation
from harness.process import resident_bytes
from pulse import Pulse
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def memory(
    number: int, window: float, *, watched: bool, traced: bool = False, starlette: bool = False, frozen: bool = False
) -> dict[str, float]:
    """
    Return bytes per session: with all open, half way of a drain, at the most during it, and after it.

    Args:
        number: Sessions.
        window: Seconds of the drain; without the middleware, of a simple loop of closes.
        watched: Whether the middleware is there.
        traced: Whether to ask tracemalloc, instead of the kernel what is resident.
        starlette: Whether the application is an endpoint of Starlette's, instead of a plain function.
        frozen: Whether clients do not read, so that whoever is asked to leave stays.
    """
    crowd = Crowd(_application(watched=watched, starlette=starlette))
    await crowd.open(200)
    await crowd.close(crowd.lines)
    gc.collect()
    if traced:
        tracemalloc.start()
    size: Callable[[], int] = (lambda: tracemalloc.get_traced_memory()[0]) if traced else resident_bytes
    empty = size()

    def each() -> float:
        return (size() - empty) / number

    await crowd.open(number)
    gc.collect()
    figures = {"before": each()}
    if frozen:
        crowd.thaw = asyncio.Event()
    leaving = asyncio.create_task(_drain(crowd.app, window) if watched else crowd.close_evenly(window))
    began = time.monotonic()
    figures["most"] = figures["half way"] = 0.0
    while not leaving.done() and time.monotonic() - began < window:
        await asyncio.sleep(0.02)
        now = each()
        figures["most"] = max(figures["most"], now)
        if time.monotonic() - began < window / 2:
            figures["half way"] = now
    if crowd.thaw:
        crowd.thaw.set()
    await leaving
    crowd.check(number)
    gc.collect()
    return figures | {"after": each()}


async def imported() -> dict[str, int]:
    """Return the bytes that importing the package adds to a server with an application of Starlette's."""
    from uvicorn import Config  # noqa: PLC0415

    Config(Starlette(), loop="none").load()
    before = resident_bytes()
    _application(watched=True)
    return {"resident": resident_bytes() - before}


async def parts(number: int) -> dict[str, Any]:
    """Return what one watched session is made of, in bytes: its coroutines, and who allocated what for it."""
    crowd = Crowd(_application(watched=True))
    await crowd.open(200)
    tracemalloc.start()
    await crowd.open(number)
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    tracemalloc.stop()
    lines = {}
    for found in snapshot.statistics("lineno"):
        if found.size >= 8 * number and "starlette_drain" in found.traceback[0].filename:
            frame = found.traceback[0]
            lines["/".join(frame.filename.split("/")[-3:]) + f":{frame.lineno}"] = found.size / number
    coroutines = {}
    task = max(asyncio.all_tasks() - {asyncio.current_task()}, key=lambda task: _depth(task.get_coro()))
    coroutine = task.get_coro()
    while hasattr(coroutine, "cr_await"):
        coroutines[coroutine.__qualname__] = sys.getsizeof(coroutine)
        coroutine = coroutine.cr_await
    return {"coroutines": coroutines, "allocated": lines}


async def shed(number: int, window: float, idle_for: float) -> dict[str, Any]:
    """Drain *number* sessions; return how even it was, how long the loop was held up, what a close cost."""
    crowd = Crowd(_application(watched=True))
    drain = crowd.app.drain
    await crowd.open(number)
    gc.collect()
    pulse = Pulse()
    pulse.start()
    await asyncio.sleep(idle_for)
    before = await pulse.stop()
    await asyncio.sleep(0.1)
    pulse.start()
    used, start = time.process_time(), time.monotonic()
    await drain.start(window=window)
    end = start + drain.progress().eta
    await drain.wait_drained()
    await settle()
    used, took = time.process_time() - used, time.monotonic() - start
    during = await pulse.stop()
    moments = crowd.closed_at
    crowd.check(number)
    return {
        "deviation": deviation(moments, start, end),
        "busiest 100 ms": busiest(moments, 0.1, start, end),
        "busiest second": busiest(moments, 1.0, start, end),
        "last close": moments[-1] - start,
        "took": took,
        "cpu": used / number,
        "idle": before,
        "during": during,
    }


async def closes(number: int, window: float, rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of a close: in a drain, and in a simple loop of closes, by turns."""
    used: dict[str, list[float]] = {"watched": [], "bare": []}
    crowds = {"watched": Crowd(_application(watched=True)), "bare": Crowd(_application(watched=False))}
    for place in range(rounds + 1):
        for name in ("watched", "bare") if place % 2 else ("bare", "watched"):
            crowd = crowds[name]
            await crowd.open(number)
            gc.collect()
            before = time.process_time()
            await (_drain(crowd.app, window) if name == "watched" else crowd.close_evenly(window))
            if place:
                used[name].append((time.process_time() - before) / number)
            crowd.check(number)
            if name == "watched":
                await crowd.app.drain.cancel()
    return used


async def growth_by_drains(number: int, window: float, rounds: int) -> dict[str, Any]:
    """Drain and cancel *rounds* times: half of the drains are cancelled half way, the others when they are over."""
    crowd = Crowd(_application(watched=True))
    drain = crowd.app.drain

    async def once(place: int) -> None:
        await crowd.open(number - len(crowd.lines))
        await drain.start(window=window)
        if place % 2:
            await asyncio.sleep(window / 2)
        else:
            await drain.wait_drained()
        await drain.cancel()
        await settle()
        shed = len(crowd.codes) if place % 2 else number
        crowd.check(shed, left=number - shed)

    async def all_gone() -> None:
        await crowd.close(crowd.lines)

    return await _grown(once, rounds, all_gone)


async def growth_by_sessions(number: int, at_once: int, *, watched: bool) -> dict[str, Any]:
    """Open and close *number* sessions, *at_once* open at a time."""
    crowd = Crowd(_application(watched=watched))

    async def once(_place: int) -> None:
        await crowd.open(at_once)
        await crowd.close(crowd.lines)
        assert not crowd.lines

    return await _grown(once, number // at_once, settle)


async def _grown(once: Callable[[int], Any], rounds: int, settled: Callable[[], Any]) -> dict[str, Any]:
    """Return what has been added from a tenth of the rounds to their end."""
    first = None
    for place in range(1, rounds + 1):
        await once(place)
        if place in (rounds // 10, rounds):
            await settled()
            await asyncio.sleep(0.05)  # asyncio keeps up to a hundred cancelled timers until they are due
            gc.collect()
            now = {
                "resident": resident_bytes(),
                "blocks": sys.getallocatedblocks(),
                "objects": len(gc.get_objects()),
                "tasks": len(asyncio.all_tasks()),
            }
            first = first or now
    return {name: now[name] - first[name] for name in now} | {"resident at the end": now["resident"]}


async def _drain(app: Any, window: float) -> None:
    await app.drain.start(window=window)
    await app.drain.wait_drained()
    await settle()


def _application(*, watched: bool, starlette: bool = False) -> Any:
    app: Any = idle
    if starlette:
        app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    if watched:
        # Not before: `imported` looks at what it adds.
        from starlette_drain import DrainMiddleware  # noqa: PLC0415

        app = DrainMiddleware(app)
    return app


async def endpoint(websocket: WebSocket) -> None:
    """Be idle as an endpoint of Starlette's."""
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        await websocket.receive_text()


def _depth(coroutine: Any) -> int:
    return 1 + _depth(coroutine.cr_await) if hasattr(coroutine, "cr_await") else 0


def main() -> None:
    """Measure, on the loop that is asked for."""
    what, options = globals()[sys.argv[1]], json.loads(sys.argv[2])
    if options.pop("loop", "asyncio") == "uvloop":
        import uvloop  # noqa: PLC0415 - its memory is not asyncio's

        run = uvloop.run
    else:
        run = asyncio.run
    print(json.dumps(run(what(**options))))  # noqa: T201


if __name__ == "__main__":
    main()
