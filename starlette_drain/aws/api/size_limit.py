# botocore and aiobotocore read an answer whole, whatever its size, and parse it with the GIL held: 300 MB stop the loop
# that serves for seconds. Neither has a setting for that. Their HTTP sessions leave the reading to others where a
# request asks for a stream, so that is what every request does here.
"""No answer of AWS is read beyond a size."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["AnswerTooLarge", "limit_answers"]

LARGEST = 8 * 1024 * 1024
"""Bytes; a target takes 500 of an answer, and a target group has at most some thousand."""

CHUNK = 65536


class AnswerTooLarge(Exception):
    """An answer is larger than any that is right."""

    def __init__(self) -> None:
        super().__init__(f"more than {LARGEST} bytes")


def limit_answers(client: Any) -> None:
    """Let no answer that *client* gets be larger than `LARGEST`; of a client of an unknown make nothing is changed."""
    session = getattr(getattr(client, "_endpoint", None), "http_session", None)
    send = getattr(session, "send", None)
    if session is not None and send is not None:
        session.send = _limited(send) if inspect.iscoroutinefunction(send) else _limited_in_thread(send)


def _limited(send: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    async def limited(request: Any) -> Any:
        request.stream_output = True
        response = await send(request)
        body = bytearray()
        try:
            async for chunk in response.raw.content.iter_chunked(CHUNK):
                _add(body, chunk)
        except BaseException:
            response.raw.close()
            raise
        response._content = bytes(body)
        return response

    return limited


def _limited_in_thread(send: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def limited(request: Any) -> Any:
        request.stream_output = True
        response = send(request)
        body = bytearray()
        try:
            for chunk in response.raw.stream(CHUNK):
                _add(body, chunk)
        except BaseException:
            response.raw.close()
            raise
        response._content = bytes(body)
        return response

    return limited


def _add(body: bytearray, chunk: bytes) -> None:
    if len(body) + len(chunk) > LARGEST:
        raise AnswerTooLarge
    body += chunk
