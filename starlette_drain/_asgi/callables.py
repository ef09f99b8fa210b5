"""Marks functions that return an awaitable, which is faster than a coroutine function, as coroutine functions."""

import asyncio.coroutines
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

__all__ = ["marked_as_coroutine_function"]

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])


def marked_as_coroutine_function(function: Function) -> Function:
    """Mark *function* as a coroutine function: asgiref, which sends from threads, checks for that."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    marked = cast("Any", function)
    marked._is_coroutine = cast("Any", asyncio.coroutines)._is_coroutine
    return function
