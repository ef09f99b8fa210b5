"""Who comes while the process is leaving is told so in HTTP, and goes elsewhere."""

import asyncio

import pytest
from server_process import REASON, TOKEN, ServerProcess, eventually
from websocket_clients import RawPeer, listeners
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.anyio

IMPLEMENTATIONS = ("websockets-sansio", "wsproto", "websockets")
ENVIRONMENT = {
    "DRAIN_ADMIN_TOKEN": TOKEN,
    "DRAIN_GRACE": "1",
    "DRAIN_RETRY_AFTER": "7",
    "DRAIN_LATE_ARRIVALS": "refuse",
}


async def knock(server: ServerProcess) -> tuple[int, int]:
    """Ask for a WebSocket; return the status and the Retry-After of the refusal."""
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(server.websocket("/uncaught"), proxy=None):
            pass
    response = refusal.value.response
    return response.status_code, int(response.headers["Retry-After"])


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_late_arrivals_are_refused_with_503_and_retry_after(serve, implementation, http):
    """Thirty that come while a drain runs, and ten after it, get 503 and Retry-After, and no error is logged."""
    server = serve("endpoint_shapes:starlette_app", "--ws", implementation, "--http", http, env=ENVIRONMENT)
    async with listeners([server.websocket("/receive_only")]) as [last]:
        await asyncio.to_thread(server.drain, "POST", window=1000)
        refusals = await asyncio.gather(*(knock(server) for _ in range(30)))
        assert last.is_open
        await asyncio.to_thread(server.drain, "POST", window=0)
        assert (await last.close_policy()).words == (1012, REASON)
    refusals += await asyncio.gather(*(knock(server) for _ in range(10)))

    assert {status for status, _ in refusals} == {503}
    assert all(7 <= retry_after <= 14 for _, retry_after in refusals)
    assert len({retry_after for _, retry_after in refusals}) > 1, "all were told to come back in the same second"
    assert server.drain()[1]["report"]["refused"] >= 30
    assert server.trouble == []


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_a_session_still_in_its_handshake_is_refused_too(serve, implementation):
    """An endpoint that has not accepted yet is cancelled after its grace, and its client gets 503."""
    server = serve("endpoint_shapes:starlette_app", "--ws", implementation, env=ENVIRONMENT)
    undecided = await RawPeer.connect(server.port, "/undecided", shake=False)
    await asyncio.to_thread(eventually, lambda: "handshake begun" in server.log, "the endpoint was not called")
    _, answer = await asyncio.to_thread(server.drain, "POST", "?wait=30", window=0.1)
    response = await undecided.read_response()
    await undecided.close()

    assert response.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: " in response.lower()
    assert answer["state"] == "drained"
    assert server.trouble == []


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_late_arrivals_may_be_accepted_and_are_shed_in_the_same_window(serve, implementation):
    """With late_arrivals='accept' newcomers are served until the deadline, which holds for them as well."""
    environment = {**ENVIRONMENT, "DRAIN_LATE_ARRIVALS": "accept"}
    server = serve("endpoint_shapes:starlette_app", "--ws", implementation, env=environment)
    async with listeners([server.websocket("/receive_only")] * 5) as early:
        await asyncio.to_thread(server.drain, "POST", window=3)
        async with listeners([server.websocket("/receive_only")] * 5) as late:
            goodbyes = [(await each.close_policy()).words for each in early + late]
    _, answer = await asyncio.to_thread(server.drain, "GET", "?wait=30")

    assert goodbyes == [(1012, REASON)] * 10
    assert answer["report"]["arrived"] == 5
    assert answer["report"]["refused"] == 0
    assert server.trouble == []
