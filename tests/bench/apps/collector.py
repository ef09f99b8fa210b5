"""The application of `echo`, bare and watched, which tells of each garbage collection how long it took."""

import gc
import time

from echo import bare, watched
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

__all__ = ["bare", "watched"]


class Pauses:
    """
    How long each collection has held up everything else, since it was last asked; one of `gc.callbacks`.

    In CPU time: other processes on a busy machine are no fault of the collector's.
    """

    def __init__(self) -> None:
        self.seconds: list[tuple[int, float]] = []
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Hear of a collection's begin or end."""
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.seconds.append((info["generation"], time.thread_time() - self._began))


pauses = Pauses()
gc.callbacks.append(pauses)


async def collections(_request: Request) -> JSONResponse:
    """Return generation and seconds of CPU of each collection since this was last asked."""
    since, pauses.seconds = pauses.seconds, []
    return JSONResponse(since)


async def freeze(_request: Request) -> JSONResponse:
    """Freeze everything."""
    gc.freeze()
    return JSONResponse(None)


async def thaw(_request: Request) -> JSONResponse:
    """Return how many objects were frozen, and thaw them."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    return JSONResponse(frozen)


for app in (bare, watched):
    app.router.routes += [Route("/collections", collections), Route("/freeze", freeze), Route("/thaw", thaw)]
