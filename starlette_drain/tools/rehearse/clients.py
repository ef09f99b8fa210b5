"""The clients of a rehearsal, and how their connections ended."""

import asyncio
import importlib
import inspect
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CLEAN", "CUT", "Client", "Clients", "Ends", "event_stream", "given", "websocket"]

CUT = 1006
"""The code of a WebSocket that ended without a close frame; here also of other clients that were cut."""

CLEAN = 1000
"""The code of an event stream with a complete response."""

CONNECTING = 50
"""The number of clients that connect at a time."""

Client = Callable[[str, int], Awaitable[int | None]]
"""
A client: called with the address and its number, it connects, stays until the connection ends, and returns its code.

``None`` means a clean end; an exception means a cut, unless it has a close code, as those of websockets do.
"""


@dataclass(slots=True)
class Ends:
    """When and how the clients' connections ended; the times are those of `time.monotonic`."""

    moments: list[float] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    errors: dict[str, None] = field(default_factory=dict)


class Clients:
    """
    All clients of a rehearsal.

    Args:
        client: The client.
        base: The base URL, such as ``ws://127.0.0.1:1234`` or ``http://…``.
        path: The path that they connect to; ``{n}`` is the number of the client.
    """

    def __init__(self, client: Client, base: str, path: str) -> None:
        self.ends = Ends()
        self._client = client
        self._base = base
        self._path = path
        self._gate = asyncio.Semaphore(CONNECTING)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def open(self) -> int:
        """The number of clients whose connection has not ended."""
        return sum(not each.done() for each in self._tasks)

    async def connect(self, count: int, wait_open: Callable[[int], Awaitable[object]]) -> None:
        """Start *count* clients in groups; *wait_open* returns when the server has that many sessions."""
        for first in range(0, count, CONNECTING):
            upto = min(count, first + CONNECTING)
            self._tasks += [asyncio.create_task(self._live(number)) for number in range(first, upto)]
            await wait_open(upto)

    async def cut(self) -> int:
        """Cut the remaining connections, as a balancer does; return their number."""
        left = [each for each in self._tasks if not each.done()]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    async def _live(self, number: int) -> None:
        code: int | None
        try:
            code = await self._client(self._base + self._path.replace("{n}", str(number)), number)
        except asyncio.CancelledError:
            code = CUT
        except Exception as error:  # noqa: BLE001 - the user's client may raise anything
            code = _code_of(error)
            if code is None:
                code = CUT
                self.ends.errors[f"{type(error).__name__}: {error}"] = None
        self.ends.moments.append(time.monotonic())
        self.ends.codes.append(CLEAN if code is None else code)


def websocket(headers: Mapping[str, str]) -> Client:
    """Return a client that holds a WebSocket and reads its messages."""
    connect = importlib.import_module("websockets.asyncio.client").connect
    closed = importlib.import_module("websockets.exceptions").ConnectionClosed

    async def live(url: str, _number: int) -> int | None:
        connection = await connect(url, additional_headers=headers, compression=None, open_timeout=30, proxy=None)
        with suppress(closed):
            while True:
                await connection.recv()
        code: int | None = connection.close_code
        return CUT if code is None else code

    return live


def event_stream(headers: Mapping[str, str]) -> Client:
    """Return a client that holds an event stream."""

    async def live(url: str, _number: int) -> int | None:
        host, _, path = url.removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        reader, writer = await asyncio.open_connection(name, int(port))
        lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        last = b""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.splitlines()[0]:
                msg = f"{url} answers {head.splitlines()[0].decode(errors='replace')}"
                raise ValueError(msg)
            kinds = re.findall(rb"(?im)^content-type:\s*([^\s;]+)", head)
            if kinds != [b"text/event-stream"]:
                kind = b", ".join(kinds).decode(errors="replace")
                msg = f"{url} is no event stream: {f'its content-type is {kind}' if kind else 'it has no content-type'}"
                raise ValueError(msg)
            while data := await reader.read(65536):
                last = (last + data)[-5:]
        finally:
            writer.transport.abort()
        return None if last == b"0\r\n\r\n" else CUT  # without the last chunk the response was cut

    return live


def given(text: str) -> Client:
    """
    Import the coroutine function ``module:name``.

    Raises:
        ValueError: If there is no such function.
    """
    module, _, name = text.partition(":")
    if os.getcwd() not in sys.path:  # noqa: PTH109
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"{text!r} cannot be imported ({error}): give module:coroutine"
        raise ValueError(msg) from None
    if not inspect.iscoroutinefunction(found):
        msg = f"{text!r} is not a coroutine function: give one that takes the address and a number"
        raise ValueError(msg)
    client: Client = found
    return client


def _code_of(error: BaseException) -> int | None:
    """Return the close code of an error, as those of websockets, aiohttp and httpx-ws have it."""
    for each in (getattr(error, "rcvd", None), error):
        code = getattr(each, "code", None)
        if isinstance(code, int):
            return code
    return None
