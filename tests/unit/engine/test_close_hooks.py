"""Farewells that misbehave: the session is closed all the same, and in time."""

import asyncio
import logging

import pytest

from starlette_drain import DrainMiddleware
from starlette_drain._core.session import Session
from starlette_drain._engine.close_hooks import LAST_WORD, CloseHooks

pytestmark = pytest.mark.anyio

TIMEOUT = 2.0


async def fails_when_cut(_session):
    """Take too long, and fail while tidying up."""
    try:
        await asyncio.sleep(100)
    finally:
        msg = "the connection to the pool is lost"
        raise RuntimeError(msg)


async def goes_on_when_cut(_session):
    """Take too long, and not hear that the time is up."""
    for _ in range(5):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            continue


async def ends_when_cut(_session):
    """Take too long, and swallow the cancellation."""
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        return


async def hurries_when_cut(_session):
    """Take too long, and need a moment to tidy up."""
    try:
        await asyncio.sleep(100)
    finally:
        await asyncio.sleep(LAST_WORD / 2)


@pytest.mark.parametrize(
    ("farewell", "levels", "seconds"),
    [
        (fails_when_cut, [logging.WARNING, logging.ERROR], TIMEOUT),
        (goes_on_when_cut, [logging.WARNING], TIMEOUT + LAST_WORD),
        (ends_when_cut, [logging.WARNING], TIMEOUT),
        (hurries_when_cut, [logging.WARNING], TIMEOUT + LAST_WORD / 2),
    ],
)
async def test_time_that_is_up_is_up(farewell, levels, seconds, caplog):
    """However a farewell takes its end, nothing more is said, it is logged, and whoever waits goes on."""
    said = []

    async def next_one(session):
        said.append(session)

    close_hooks = CloseHooks(TIMEOUT)
    close_hooks.add(farewell)
    close_hooks.add(next_one)
    began = asyncio.get_running_loop().time()
    await close_hooks.bid(Session("/ws", began))
    assert asyncio.get_running_loop().time() - began == pytest.approx(seconds)
    assert [record.levelno for record in caplog.records] == levels
    await asyncio.sleep(100)
    assert said == []


@pytest.mark.parametrize("farewell", [fails_when_cut, goes_on_when_cut])
async def test_session_gets_its_close_whatever_its_farewell_does(farewell):
    """After a farewell that fails or goes on at its end there is still the 1012, and the application its disconnect."""
    sent, heard = [], []

    async def app(_scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        heard.append(await receive())

    async def send(message):
        sent.append(message)

    inbox = asyncio.Queue()
    inbox.put_nowait({"type": "websocket.connect"})
    middleware = DrainMiddleware(app, farewell_timeout=TIMEOUT)
    middleware.drain.before_close(farewell)
    serving = asyncio.create_task(middleware({"type": "websocket", "path": "/ws"}, inbox.get, send))
    await asyncio.sleep(1)
    await middleware.drain.start(window=0)
    assert await middleware.drain.wait_drained()
    await serving
    assert sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "server draining"}
    assert [(message["type"], message["code"]) for message in heard] == [("websocket.disconnect", 1012)]
    assert middleware.drain.report.still_open == 0
    await middleware.drain.end()
    await asyncio.sleep(100)
