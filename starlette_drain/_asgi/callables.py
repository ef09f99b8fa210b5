"""Functions that return an awaitable instead of being coroutine functions, for speed, and must pass for them."""

import asyncio.coroutines
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

__all__ = ["marked_as_coroutine_function"]

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])


def marked_as_coroutine_function(function: Function) -> Function:
    """Let *function* pass for a coroutine function; asgiref, which sends from threads, looks whether it is one."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    marked = cast("Any", function)
    marked._is_coroutine = cast("Any", asyncio.coroutines)._is_coroutine
    return function
