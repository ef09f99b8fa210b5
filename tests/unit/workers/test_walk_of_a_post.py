"""One of the four walks of docs/contributing.md, held to the code."""

import asyncio

import pytest
from walks import walking
from worker_crowd import soon, states

from starlette_drain import DrainMiddleware, DrainState

pytestmark = pytest.mark.anyio

TOKEN = "a-token-for-the-walk"


async def test_from_a_post_to_the_last_worker(crowd):
    """From POST in a worker that is not the leader to the start in the last worker there are at most 12 calls."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    with walking() as walk:
        for _ in range(3):
            crowd.hire(admin_token=TOKEN).seat(3)
            await soon()
        scope = {"type": "http", "method": "POST", "path": "/drain", "query_string": b"", "http_version": "1.1"}
        scope["headers"] = [(b"authorization", f"Bearer {TOKEN}".encode())]
        walk.entered.clear()
        await DrainMiddleware(None, drain=crowd.everyone[-1].drain)(scope, receive, send)
        await soon()
        assert states(crowd) == [DrainState.DRAINING] * 3
    assert sent[0]["status"] == 202
    walk.holds("From POST in a worker to the start in the last", 12)
    await asyncio.sleep(0)
