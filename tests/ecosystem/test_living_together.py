"""Other people's middleware around us and within us: sessions are tracked once and shed, and nobody complains."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from server_process import REASON, ServerProcess
from streams import read_stream
from websocket_clients import Listener
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio

EACH = 2


async def drained(server: ServerProcess, prefix: str = "", *, websockets=("/echo", "/ticks")) -> None:
    """Open sessions of every kind, drain, and see that each was tracked once and told goodbye."""
    streams = []
    async with AsyncExitStack() as stack:
        clients = []
        for path in websockets * EACH:
            url = server.websocket(f"{prefix}{path}")
            connection = await stack.enter_async_context(connect(url, compression=None, proxy=None))
            clients.append(Listener(connection))
        for path in ("/stream", "/sse") * EACH:
            begun = asyncio.Event()
            streams.append(asyncio.create_task(read_stream(f"{server.url}{prefix}{path}", begun)))
            await asyncio.wait_for(begun.wait(), 10)
        _, before = await asyncio.to_thread(server.drain)
        await asyncio.to_thread(server.drain, "POST", window=0.5)
        goodbyes = [(await each.close_policy()).words for each in clients]
        ends = [await each for each in streams]
    assert before["sessions"]["open"] == len(clients) + len(streams)
    assert goodbyes == [(1012, REASON)] * len(clients)
    assert [end for end in ends if not (end.clean and end.says_retry)] == []
    assert ends[0].text.startswith("data: tick\n\n")


async def ended(server: ServerProcess) -> None:
    """Stop the server, and see that nobody complained."""
    server.signal()
    await asyncio.to_thread(server.wait)
    assert server.trouble == []


def spans(server: ServerProcess) -> dict[str, set[str]]:
    """Return the status of the spans by name, our own left out."""
    seen: dict[str, set[str]] = {}
    for line in server.log.splitlines():
        name, _, status = line.partition("span ")[2].rpartition(": ")
        if name and not name.startswith("drain"):
            seen.setdefault(name, set()).add(status)
    return seen


@pytest.mark.parametrize(
    "neighbour",
    ["base_http_outside", "base_http_inside", "proxy_headers_outside", "proxy_headers_inside"],
)
async def test_ordinary_middleware_may_stand_on_either_side(serve, neighbour):
    """BaseHTTPMiddleware and ProxyHeadersMiddleware, and event streams of Starlette and of sse-starlette."""
    server = serve(f"neighbours:{neighbour}", "--factory")
    await drained(server)
    await ended(server)


async def test_opentelemetry_outside_sees_sessions_that_end_well(serve):
    """Around us its spans stay clean, for an endpoint too that lets the disconnect escape."""
    server = serve("neighbours:otel_outside", "--factory")
    await drained(server)
    await ended(server)
    seen = spans(server)
    assert {status for statuses in seen.values() for status in statuses} == {"unset"}
    assert len(seen) > 3


async def test_opentelemetry_inside_marks_what_escapes_as_it_always_does(serve):
    """Within us it takes an escaped disconnect for an error, as it does when a client leaves; all else stays clean."""
    server = serve("neighbours:otel_inside", "--factory")
    await drained(server)
    await ended(server)
    assert {name for name, statuses in spans(server).items() if "error" in statuses} == {"HTTP /ticks"}


async def test_fastapis_own_telemetry_sees_sessions_that_end_well(serve):
    """The span of a session stays clean; that of an endpoint that lets the disconnect escape counts as an error."""
    server = serve("neighbours:fastapi_telemetry", "--factory")
    await drained(server, websockets=("/echo", "/ticks", "/native"))
    await ended(server)
    seen = spans(server)
    assert seen["WS /echo"] == seen["WS /ticks"] == seen["WS /native"] == {"unset"}
    assert {name for name, statuses in seen.items() if "error" in statuses} == {"fastapi.endpoint"}


@pytest.mark.parametrize("neighbour", ["mounted", "mounted_twice"])
async def test_sessions_of_a_mounted_application_are_tracked_once(serve, neighbour):
    """Also where the mounted application brings the middleware a second time."""
    server = serve(f"neighbours:{neighbour}", "--factory")
    await drained(server, "/sub")
    await ended(server)
    assert server.log.count("target-health (this is not an ECS task") == 1
    assert ("another DrainMiddleware around this one" in server.log) == (neighbour == "mounted_twice")
