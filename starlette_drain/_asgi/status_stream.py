"""The admin route as an event stream, once a second. It is not tracked as a session."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from starlette_drain._asgi.waiting import first, wait_gone

__all__ = ["StatusStreams"]

INTERVAL = 1.0
"""Seconds between two events."""

LIMIT = 8
"""The most streams at one time."""

MAX_AGE = 30.0
"""Seconds after which a stream ends and its client reconnects: not every server tells us that it is stopping."""

LAST_SEND_TIMEOUT = 1.0
"""Seconds for the last event of a stream: a client that does not read must not delay a server that is stopping."""


class StatusStreams:
    """
    The streams of one admin route.

    Args:
        describe: Returns the status to send.
        wait_stopping: Returns when the server is stopping.
    """

    def __init__(
        self, describe: Callable[[], Mapping[str, Any]], wait_stopping: Callable[[], Coroutine[Any, Any, bool]]
    ) -> None:
        self.describe = describe
        self.wait_stopping = wait_stopping
        self.open = 0

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.open >= LIMIT

    def make(self) -> StreamingResponse:
        """Return a new stream."""
        return _StatusStream(self)


class _StatusStream(StreamingResponse):
    media_type = "text/event-stream"

    def __init__(self, streams: StatusStreams) -> None:
        super().__init__((), headers={"x-accel-buffering": "no"})
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        self._streams.open += 1
        try:
            with suppress(OSError):  # some servers raise it when the client has gone
                await self._stream(receive, send)
        finally:
            self._streams.open -= 1

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        works = self._send_events(send), wait_gone(receive), self._streams.wait_stopping()
        _, is_gone, _ = await first(*works, timeout=MAX_AGE)
        if not is_gone:
            await first(self._send_event(send, more=False), timeout=LAST_SEND_TIMEOUT)

    async def _send_events(self, send: Send) -> None:
        while True:
            await self._send_event(send, more=True)
            await asyncio.sleep(INTERVAL)

    async def _send_event(self, send: Send, *, more: bool) -> None:
        data = json.dumps(self._streams.describe(), separators=(",", ":"))
        await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": more})
