"""The application of ``echo``; its pulse is felt from the startup of its lifespan on, before the drain begins."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from echo import application
from pulse import Pulse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from starlette_drain import DrainMiddleware

pulse = Pulse()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Begin to feel the pulse."""
    pulse.start()
    yield


async def feel(request: Request) -> JSONResponse:
    """``?start``: begin again; otherwise stop, and say what was felt."""
    if "start" in request.query_params:
        pulse.start()
        return JSONResponse({})
    return JSONResponse(await pulse.stop())


def beating() -> Starlette:
    """Return the application without us."""
    app = application()
    app.router.lifespan_context = lifespan
    app.router.routes.append(Route("/pulse", feel))
    return app


bare = beating()
watched = beating()
watched.add_middleware(DrainMiddleware)
