"""The application of ``echo``, which can also close all its WebSockets by itself: as one does without us."""

import asyncio

from echo import application
from pulse import Pulse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from starlette_drain import DrainMiddleware

TICK = 0.005

pulse = Pulse()
kept: set[WebSocket] = set()
closing: set[asyncio.Task[None]] = set()


async def keep(websocket: WebSocket) -> None:
    """Keep it until its end."""
    await websocket.accept()
    kept.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        kept.discard(websocket)


async def close(request: Request) -> JSONResponse:
    """``?seconds=20``: begin to close all, evenly."""
    task = asyncio.create_task(close_evenly(float(request.query_params["seconds"])))
    closing.add(task)
    task.add_done_callback(closing.discard)
    return JSONResponse(len(kept))


async def close_evenly(seconds: float) -> None:
    """Close the next when it is due, and those due within one tick together."""
    websockets = list(kept)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number, websocket in enumerate(websockets, 1):
        if (early := start + seconds * number / len(websockets) - loop.time()) > 0:
            await asyncio.sleep(max(early, TICK))
        await websocket.close(1012, "server draining")


async def feel(request: Request) -> JSONResponse:
    """``?start``: begin to beat; otherwise stop, and say what was felt."""
    if "start" in request.query_params:
        pulse.start()
        return JSONResponse({})
    return JSONResponse(await pulse.stop())


def closing_application() -> Starlette:
    """Return the application without us."""
    app = application()
    app.router.routes += [WebSocketRoute("/kept", keep), Route("/close", close), Route("/pulse", feel)]
    return app


bare = closing_application()
watched = closing_application()
watched.add_middleware(DrainMiddleware)
