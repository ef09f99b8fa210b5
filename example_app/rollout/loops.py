"""What the lab's own child processes share: the fastest loop there is, and orders on standard input."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["listen_to_orders", "run", "say"]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* on uvloop where it is installed: it halves the price of a connection."""
    try:
        import uvloop  # noqa: PLC0415 - not every platform has it
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def say(**message: Any) -> None:
    """Say something to the lab."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def listen_to_orders(obey: Callable[[dict[str, Any]], None]) -> None:
    """Call *obey* with each order of the lab's, until the lab hangs up."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        obey(json.loads(line))
