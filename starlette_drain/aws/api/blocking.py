"""A client whose calls block, such as boto3's, in the shape of one whose calls are coroutines."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

__all__ = ["BlockingClient"]

AT_ONCE = 8
"""Calls under way at the most. One that its caller has given up counts until it ends."""


class BlockingClient:
    """
    Makes each call of a blocking *client* in a thread of its own.

    The caller limits the time. A call that is given up goes on in its thread, a daemon: a server that answers a byte at
    a time holds up neither the event loop nor the exit, as the executors of the standard library would.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._free = asyncio.Semaphore(AT_ONCE)

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, operation)
        return lambda **parameters: self._run(partial(method, **parameters))

    async def _run(self, call: Callable[[], Any]) -> Any:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def done(result: Any, error: BaseException | None) -> None:
            self._free.release()
            if outcome.done():  # given up
                return
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = context.run(call)
            except BaseException as failure:  # noqa: BLE001 - it is raised where the outcome is awaited
                error = failure
            if not loop.is_closed():
                loop.call_soon_threadsafe(done, result, error)

        threading.Thread(target=run, name="starlette_drain call", daemon=True).start()
        return await outcome
