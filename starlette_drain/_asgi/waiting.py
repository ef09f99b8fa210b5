"""Waiting for the first of several things."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

__all__ = ["first", "wait_gone"]


async def first(*works: Coroutine[Any, Any, Any], timeout: float) -> list[Any]:  # noqa: ASYNC109 - raises nothing
    """Return the results of *works* when the first is over or the time is up; None for each that is not over."""
    tasks = [asyncio.create_task(each) for each in works]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return [each.result() if each.done() else None for each in tasks]
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def wait_gone(receive: Receive) -> bool:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    return True
