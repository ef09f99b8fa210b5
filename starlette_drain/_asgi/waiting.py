"""Waits for the first of several coroutines."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

__all__ = ["first", "wait_gone"]


async def first(*coroutines: Coroutine[Any, Any, Any], timeout: float) -> list[Any]:  # noqa: ASYNC109 - raises nothing
    """
    Run *coroutines* until one of them returns or *timeout* seconds have passed, then cancel the others.

    Returns:
        The result of each; ``None`` for those that have not returned.

    Raises:
        Exception: What one of them raised.
    """
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return [each.result() if each.done() else None for each in tasks]
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def wait_gone(receive: Receive) -> bool:
    """Return True when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    return True
