"""What a recording knows of how each WebSocket was closed."""

import json
import logging
from random import Random

import pytest
from hand_server import ACCEPT, GONE, HandServer, settle, text

from starlette_drain import Drain, DrainMiddleware
from starlette_drain.telemetry.recorder import Recorder

pytestmark = pytest.mark.anyio


async def application(_scope, receive, send):
    """Close with 4001 when told to."""
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["text"] == "close":
            await send({"type": "websocket.close", "code": 4001})
            return


async def test_a_recording_tells_a_cut_from_a_close(caplog):
    """Each WebSocket that ends in a drain is written with its close code: the client's, the application's, or ours."""
    caplog.set_level(logging.INFO, logger="starlette_drain.record")
    drain = Drain(triggers=[], observers=[Recorder()], rng=Random(7), window=60, start_delay=0)
    app = DrainMiddleware(application, drain=drain)
    async with drain.run():
        cut, gone, closed, _shed = (HandServer(app) for _ in range(4))
        await settle()
        await drain.start(window=60)
        await settle()
        cut.deliver(GONE)
        gone.deliver({**GONE, "code": 1001})
        closed.deliver(text("close"))
        await settle()
        await drain.wait_drained()
    written = [json.loads(each.getMessage()) for each in caplog.records if each.name == "starlette_drain.record"]
    codes = [(each["how"], each["code"]) for each in written if each["what"] == "closed"]
    assert codes == [("left", 1006), ("left", 1001), ("left", 4001), ("shed", 1012)]
