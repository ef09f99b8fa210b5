# botocore and aiobotocore read whole answers of any size, and parse them with the GIL held: 300 MB block the loop that
# serves for seconds. Neither has a setting for that. But their HTTP sessions do not read the body of a request with
# streaming output, so every request is made one here, and its body is read with a limit.
"""Limits the size of AWS's answers."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["AnswerTooLarge", "limit_answers"]

LARGEST = 8 * 1024 * 1024
"""The most bytes in an answer: a target takes about 500, and a target group has at most a few thousand targets."""

CHUNK = 65536


class AnswerTooLarge(Exception):
    """An answer is larger than `LARGEST`."""

    def __init__(self) -> None:
        super().__init__(f"more than {LARGEST} bytes")


def limit_answers(client: Any) -> None:
    """Make *client* raise `AnswerTooLarge` for answers above `LARGEST`; clients of unknown kinds are not changed."""
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
