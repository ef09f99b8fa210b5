"""The metadata endpoint may drip, flood or lie: `fetch_json` is over in bounded time, and leaves no thread behind."""

import contextlib
import socket
import threading
import time

import pytest

from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.identity import metadata
from starlette_drain.aws.identity.metadata import fetch_json, read_task

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def answering(*pieces, forever=b"", pause=0.02):
    """Serve *pieces*, then *forever* again and again; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve():
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                for piece in pieces:
                    peer.sendall(piece)
                while forever and not over.wait(pause):
                    peer.sendall(forever)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.close()
        thread.join(5)


def left_over():
    """Return the threads that still read."""
    return [each for each in threading.enumerate() if each.name == "starlette_drain metadata"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pieces", "forever", "why"),
    [
        ((HEAD + b"\r\n",), b" ", "TimeoutError"),
        ((HEAD,), b"X-Drip: 1\r\n", "Error"),
        ((b"HTTP/1.1 ",), b"2", "Error"),
        ((HEAD + b"\r\n",), b"[" * 65536, "more than"),
        ((HEAD + b"\r\n{",), b"", "JSONDecodeError"),
        ((b"HTTP/1.1 503 Busy\r\n\r\n",), b"", "status 503"),
        ((b"nothing of HTTP\r\n\r\n",), b"", "BadStatusLine"),
    ],
)
async def test_an_answer_that_is_none_is_given_up(monkeypatch, pieces, forever, why):
    """Whether its head or its body drips, is too long or makes no sense: one error in bounded time, and no thread."""
    monkeypatch.setattr(metadata, "OVERALL_LIMIT", 0.3)
    monkeypatch.setattr(metadata, "SIZE_LIMIT", 200_000)
    with answering(*pieces, forever=forever, pause=0.001 if len(forever) > 100 else 0.02) as address:
        began = time.monotonic()
        with pytest.raises(Incomplete, match=why):
            await read_task(address, fetch_json)
        assert time.monotonic() - began < 2
        for each in left_over():
            each.join(2)
        assert left_over() == []


@pytest.mark.anyio
async def test_an_ordinary_answer():
    """What ends in time is read."""
    with answering(HEAD + b"Content-Length: 9\r\n\r\n", b'{"a": 1}\n') as address:
        assert await fetch_json(address) == {"a": 1}


@pytest.mark.anyio
@pytest.mark.parametrize("address", ["file:///etc/passwd", "nonsense"])
async def test_only_http(address):
    """No other kind of address is opened."""
    with pytest.raises(Incomplete, match="ValueError"):
        await read_task(address, fetch_json)
