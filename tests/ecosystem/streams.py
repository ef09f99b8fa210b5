"""A client of event streams that notices how they end."""

import asyncio
from dataclasses import dataclass

import httpx

__all__ = ["StreamEnd", "read_stream"]


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How a stream ended: whether by a complete body, and what was said in it."""

    clean: bool
    text: str

    @property
    def says_retry(self) -> bool:
        """Whether its last line tells when to come back."""
        return self.text.endswith("\n") and self.text.splitlines()[-1].startswith("retry: ")


async def read_stream(url: str, begun: asyncio.Event | None = None) -> StreamEnd:
    """Read a stream to its end; set *begun* when the first event is there."""
    text = ""
    try:
        async with (
            httpx.AsyncClient(timeout=30, trust_env=False) as client,
            client.stream("GET", url, headers={"Accept": "text/event-stream"}) as response,
        ):
            async for piece in response.aiter_text():
                text += piece
                if begun:
                    begun.set()
    except httpx.TransportError:
        return StreamEnd(clean=False, text=text)
    return StreamEnd(clean=True, text=text)
