"""Event streams on a real uvicorn, to a real client: clean ends, and no uvicorn that hangs."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from server_process import TOKEN, eventually

pytestmark = pytest.mark.anyio

STREAMS = ("streaming", "sync", "sse", "half")
EVENT_SOURCE = {"Accept": "text/event-stream"}


@pytest.fixture(params=["httptools", "h11"])
def server(request, serve):
    """Start a server on either implementation of HTTP."""
    pytest.importorskip("sse_starlette")
    environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_SIGTERM": "true", "DRAIN_SIGTERM_WINDOW": "2"}
    return serve("event_streams:app", "--http", request.param, env=environment)


@asynccontextmanager
async def reading(server, *paths, method="GET", headers=EVENT_SOURCE):
    """Read the bodies at *paths*; yield tasks that end with status, headers and body."""

    async def read(path, has_begun):
        async with client.stream(method, f"{server.url}/{path}", headers=headers) as response:
            body = b""
            async for part in response.aiter_raw():
                body += part
                has_begun.set()
            return response.status_code, response.headers, body

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        tasks = []
        for path in paths:
            has_begun = asyncio.Event()
            tasks.append(asyncio.create_task(read(path, has_begun)))
            await asyncio.wait([asyncio.create_task(has_begun.wait()), tasks[-1]], return_when="FIRST_COMPLETED")
        yield tasks


async def test_streams_end_cleanly_and_a_download_is_finished(server):
    """Every body is complete, ``retry:`` stands only after whole events, and the generators have cleaned up."""
    async with reading(server, *STREAMS, "download") as tasks:
        _, shown = await asyncio.to_thread(server.drain, "GET")
        assert (shown["sessions"]["open"], shown["answers"]) == (4, 1)
        await asyncio.to_thread(server.drain, "POST", window=2)
        *streams, download = await asyncio.gather(*tasks)
    for name, (status, headers, body) in zip(STREAMS, streams, strict=True):
        assert status == 200
        assert headers["transfer-encoding"] == "chunked"
        last = body.replace(b"\r\n", b"\n").split(b"\n\n")
        if name == "half":
            assert body == b"data: one\n\nid: 2\ndata: tw"
        else:
            assert last[-1].startswith(b"retry: ")
            assert last[-1].endswith(b"\n")
    assert download[2] == b"{}\n" * 60
    # A generator that blocks ends with its last reference, which Starlette leaves to the garbage collector.
    for name in ("streaming", "sse"):
        await asyncio.to_thread(eventually, lambda name=name: f"{name} cleaned up" in server.log, f"{name} did not end")
    server.signal()
    server.wait()
    assert server.trouble == []


async def test_a_late_event_source_is_never_refused(server):
    """200, the type, ``retry:`` and the end; a second request does not reuse the connection."""
    server.drain("POST", window=0)
    async with httpx.AsyncClient(headers=EVENT_SOURCE) as client:
        for name in STREAMS:
            response = await client.get(f"{server.url}/{name}")
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers.get_list("connection") == ["close"]
            assert response.text.startswith("retry: ")
        assert (await client.get(f"{server.url}/pid")).headers.get_list("connection") == ["close"]
    assert server.drain()[1]["sessions"]["opened"] == 0
    assert server.trouble == []


async def test_sigterm_ends_a_server_that_streams(server):
    """Without us uvicorn waits for its streams for ever; with us every client has a clean end, and it exits."""
    async with reading(server, *STREAMS) as tasks:
        server.signal()
        ends = await asyncio.gather(*tasks)
        assert [status for status, _, _ in ends] == [200] * 4
        await asyncio.to_thread(server.wait)
    assert server.trouble == []


@pytest.mark.parametrize(("method", "headers"), [("POST", EVENT_SOURCE), ("GET", {"Accept": "*/*"})])
async def test_an_answer_is_complete_or_seen_to_be_cut(serve, method, headers):
    """A drain and SIGTERM wait for it as long as uvicorn does; what uvicorn cancels then is an error to the client."""
    environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_SIGTERM": "true", "DRAIN_SIGTERM_WINDOW": "1"}
    server = serve("event_streams:app", "--timeout-graceful-shutdown", "4", env=environment)
    async with reading(server, "answer?seconds=3", "answer?seconds=60", method=method, headers=headers) as tasks:
        await asyncio.to_thread(server.drain, "POST", window=0)
        _, shown = await asyncio.to_thread(server.drain, "GET")
        assert (shown["sessions"]["open"], shown["answers"]) == (0, 2)
        server.signal()
        _, _, whole = await tasks[0]
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            await tasks[1]
        await asyncio.to_thread(server.wait)
    assert whole.endswith(b"data: 29\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_what_is_declared_leaves_as_declared(serve, http):
    """An NDJSON watch ends cleanly, a stream that is to be cut is an error to its client, and a job is let finish."""
    declared = "/watch=session, /streaming=session:cut, /answer=answer"
    environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_STREAMS": declared}
    server = serve("event_streams:app", "--http", http, env=environment)
    async with reading(server, "watch", "streaming", "answer?seconds=4") as (watch, cut, answer):
        _, shown = await asyncio.to_thread(server.drain, "GET")
        assert (shown["sessions"]["open"], shown["answers"]) == (2, 1)
        await asyncio.to_thread(server.drain, "POST", window=1)
        _, headers, lines = await watch
        assert set(lines.splitlines()) == {b"{}"}
        assert headers.get_list("connection") == ["close"]
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            await cut
        _, _, whole = await answer
        assert whole.endswith(b"data: 39\n\ndata: [DONE]\n\n")
    async with httpx.AsyncClient() as client:
        late = await client.get(f"{server.url}/watch")
        assert (late.status_code, late.headers.get_list("connection")) == (503, ["close"])
        assert int(late.headers["retry-after"]) >= 5
    (trouble,) = server.trouble
    assert "ASGI callable returned without completing response." in trouble


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_no_answer_looks_complete_that_is_not(serve, method):
    """Answers that begin at any moment of a drain and of a stop that cuts: each is whole, or an error at its client."""
    environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_SIGTERM": "true", "DRAIN_SIGTERM_WINDOW": "1"}
    environment["DRAIN_STREAMS"] = "/answer=answer"
    server = serve("event_streams:app", "--timeout-graceful-shutdown", "2", env=environment)

    async def ask(client, delay):
        await asyncio.sleep(delay)
        body = b""
        try:
            async with client.stream(method, f"{server.url}/answer?seconds=2", headers=EVENT_SOURCE) as response:
                async for part in response.aiter_raw():
                    body += part
        except httpx.HTTPError:
            return "error"
        return "whole" if body.endswith(b"data: 19\n\ndata: [DONE]\n\n") else "truncated"

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        asking = [asyncio.create_task(ask(client, number * 0.1)) for number in range(80)]
        await asyncio.sleep(1)
        await asyncio.to_thread(server.drain, "POST", window=2)
        await asyncio.sleep(4)
        server.signal()
        seen = Counter(await asyncio.gather(*asking))
        await asyncio.to_thread(server.wait)
    assert seen["truncated"] == 0
    assert seen["whole"] > 30
