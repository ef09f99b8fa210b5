"""The admin route over real HTTP, as an operator or a deployment script uses it."""

import asyncio
import urllib.error

import pytest
from server_process import REASON, TOKEN
from websocket_clients import listeners

pytestmark = pytest.mark.anyio


async def test_an_operator_looks_starts_waits_and_cancels(serve):
    """GET shows, POST starts with 202 and then 200, DELETE cancels, ?wait answers when all have gone."""
    server = serve("one_line:app", env={"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_GRACE": "1"})

    async def drain(*args, **kwargs):
        return await asyncio.to_thread(server.drain, *args, **kwargs)

    async with listeners([server.websocket("/ws")] * 8) as clients:
        status, shown = await drain()
        assert (status, shown["state"], shown["sessions"]["open"]) == (200, "serving", 8)

        status, shown = await drain("POST", window=1000, reason="a rehearsal")
        assert (status, shown["state"]) == (202, "draining")
        assert shown["drain"]["causes"][0]["reason"] == "a rehearsal"
        status, shown = await drain("POST")
        assert (status, shown["state"]) == (200, "draining")

        status, shown = await drain("DELETE")
        assert (status, shown["state"]) == (200, "serving")
        assert (await drain("DELETE"))[0] == 409
        still_open = [each for each in clients if each.is_open]

        waiting = asyncio.create_task(drain("GET", "?wait=60"))
        status, shown = await drain("POST", "?wait=60", window=1)
        assert (status, shown["state"]) == (202, "drained")
        assert shown["report"]["shed"] == len(still_open)
        assert (await waiting)[1]["state"] in ("serving", "drained")
        goodbyes = [(await each.close_policy()).words for each in clients]

    assert goodbyes == [(1012, REASON)] * 8
    assert server.trouble == []


async def test_nobody_drains_a_server_without_its_token(serve):
    """A wrong token, none, an absurd order: refused as HTTP means it, and the sessions stay."""
    server = serve("one_line:app", env={"DRAIN_ADMIN_TOKEN": TOKEN})
    async with listeners([server.websocket("/ws")] * 2) as clients:
        for token in ("wrong-horse-battery-staple", "", "ä"):
            assert (await asyncio.to_thread(server.drain, "POST", token=token))[0] == 401
        status, answer = await asyncio.to_thread(server.drain, "POST", window=-1)
        assert (status, answer["field"]) == (400, "window")
        assert (await asyncio.to_thread(server.drain))[1]["state"] == "serving"
        assert all(each.is_open for each in clients)
    assert TOKEN not in server.log


async def test_without_a_token_there_is_no_route(serve):
    """Nothing is configured: the path is the application's own, which has none."""
    server = serve("one_line:app")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        server.get("/drain")
    refusal.value.close()
    assert refusal.value.code == 404
