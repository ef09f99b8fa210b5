"""Wraps a client with blocking calls, such as boto3's, so that its calls are coroutines."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

__all__ = ["BlockingClient"]

AT_ONCE = 8
"""The most calls at one time. A call that its caller has given up counts until it ends."""


class BlockingClient:
    """
    Makes each call of a blocking *client* in its own daemon thread.

    The caller limits the time. A call that is given up continues in its thread, but delays neither the event loop nor
    the exit, as it would with the executors of the standard library.
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
            except BaseException as failure:  # noqa: BLE001 - re-raised where the future is awaited
                error = failure
            if not loop.is_closed():
                loop.call_soon_threadsafe(done, result, error)

        threading.Thread(target=run, name="starlette_drain call", daemon=True).start()
        return await outcome
