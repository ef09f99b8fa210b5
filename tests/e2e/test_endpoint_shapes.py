"""Whatever the endpoint is like, and whatever the server is made of: 1012 for the client, silence in the log."""

import asyncio
import signal

import pytest
from server_process import REASON, ServerProcess, eventually
from websocket_clients import RawPeer, listeners

pytestmark = pytest.mark.anyio

SHAPES = ("uncaught", "send_only", "receive_only", "finally_close", "parked", "caught", "in_children")
ENVIRONMENT = {"DRAIN_SIGTERM": "true", "DRAIN_SIGTERM_WINDOW": "1", "DRAIN_GRACE": "4"}
IMPLEMENTATIONS = ("websockets-sansio", "wsproto", "websockets")


async def goodbyes_of_all_shapes(server: ServerProcess) -> list[tuple[int | None, str | None]]:
    """Connect two clients to each shape, and one that never answers a close; stop the server; return what they saw."""
    reading = asyncio.Event()
    silent = await RawPeer.connect(server.port, "/uncaught")
    async with (
        listeners(server.websocket(f"/{shape}") for shape in SHAPES * 2) as ordinary,
        listeners([server.websocket("/mid_send")] * 2, reads_from=reading) as pressed,
    ):
        await under_pressure(server, 2)
        server.signal()
        seen = [(await each.close_policy()).words for each in ordinary]
        reading.set()
        seen += [(await each.close_policy()).words for each in pressed]
        seen.append(await silent.read_close())
        await asyncio.to_thread(server.wait)
    await silent.close()
    return seen


async def under_pressure(server: ServerProcess, sessions: int) -> None:
    """Wait until every buffer between so many sessions and their clients is full."""
    full = "under pressure"
    await asyncio.to_thread(eventually, lambda: server.log.count(full) >= sessions, "there is room in the buffers")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_every_client_sees_1012_and_no_endpoint_complains(serve, implementation, loop):
    """
    Every client sees 1012 and the reason, the endpoint sees the same, no error is logged, uvicorn exits by itself.

    Eight shapes of endpoint in Starlette and in FastAPI, clients that read late, and one that never answers a close.
    """
    arguments = ("--ws", implementation, "--loop", loop)
    apps = ("endpoint_shapes:starlette_app", "endpoint_shapes:fastapi_app")
    servers = [serve(app, *arguments, env=ENVIRONMENT) for app in apps]

    seen = await asyncio.gather(*(goodbyes_of_all_shapes(each) for each in servers))

    for server, goodbyes in zip(servers, seen, strict=True):
        assert goodbyes == [(1012, REASON)] * 17
        assert server.trouble == []
        assert server.log.count(f"endpoint saw 1012 {REASON}") == 2
        assert server.log.count("parked endpoint cleaned up") == 2
        assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_a_client_that_never_reads_holds_up_nobody_but_the_exit(serve, implementation):
    """
    A peer whose buffers are full gets no close frame; the drain gives it up after its time, and all others see 1012.

    uvicorn waits for its connection until --timeout-graceful-shutdown, says so, and exits.
    """
    environment = {**ENVIRONMENT, "DRAIN_GRACE": "1"}
    server = serve(
        "endpoint_shapes:starlette_app",
        "--ws",
        implementation,
        "--timeout-graceful-shutdown",
        "1",
        env=environment,
    )
    deaf = await RawPeer.connect(server.port, "/mid_send")
    async with listeners([server.websocket("/uncaught")] * 6) as ordinary:
        await under_pressure(server, 1)
        server.signal()
        goodbyes = [(await each.close_policy()).words for each in ordinary]
        status = await asyncio.to_thread(server.wait)
    await deaf.close()

    assert goodbyes == [(1012, REASON)] * 6
    assert status == -signal.SIGTERM
    assert "Traceback" not in server.log
    assert "timeout graceful shutdown exceeded" in server.log


async def test_without_a_time_limit_uvicorn_waits_for_a_client_that_never_reads(serve):
    """What the flag is for: the drain ends in its time all the same, but uvicorn stays until the peer has gone."""
    environment = {**ENVIRONMENT, "DRAIN_GRACE": "1"}
    server = serve("endpoint_shapes:starlette_app", env=environment)
    deaf = await RawPeer.connect(server.port, "/mid_send")
    await under_pressure(server, 1)
    server.signal()
    await asyncio.to_thread(eventually, lambda: "Shutting down" in server.log, "the signal was not passed on")
    await asyncio.sleep(2)
    assert server.is_running
    await deaf.close()
    assert await asyncio.to_thread(server.wait) == -signal.SIGTERM
    assert server.trouble == []
