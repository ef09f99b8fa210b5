"""Farewells that misbehave: the session is closed all the same, and in time."""

import asyncio
import logging

import pytest

from starlette_drain import DrainMiddleware
from starlette_drain._core.session import Session
from starlette_drain._engine.close_hooks import LAST_WORD, CloseHooks
from starlette_drain.exceptions import SettingsError

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
    await close_hooks.run(Session("/ws", began))
    assert asyncio.get_running_loop().time() - began == pytest.approx(seconds)
    assert [record.levelno for record in caplog.records] == levels
    await asyncio.sleep(100)
    assert said == []


async def test_a_path_forges_no_line(caplog):
    """A client chooses its path: the lines about a hook that fails show its line breaks escaped."""
    hooks = CloseHooks(TIMEOUT)
    hooks.add(fails_when_cut)
    await hooks.run(Session("/ws\nCRITICAL forged\x1b[31m", 0.0))
    assert len(caplog.records) == 2
    assert all(r" on /ws\nCRITICAL forged\x1b[31m " in each.getMessage() for each in caplog.records)


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
    middleware = DrainMiddleware(app)
    middleware.drain.before_close(farewell)
    serving = asyncio.create_task(middleware({"type": "websocket", "path": "/ws"}, inbox.get, send))
    await asyncio.sleep(1)
    await middleware.drain.start(window=0)
    assert await middleware.drain.wait_drained()
    await serving
    assert sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "server draining"}
    assert [(message["type"], message["code"]) for message in heard] == [("websocket.disconnect", 1012)]
    assert middleware.drain.report.still_open == 0
    await middleware.drain.host.end()
    await asyncio.sleep(100)


async def test_without_a_hook_there_is_nothing_to_wait_for():
    """No task is made for a session to which nothing is said."""
    before = asyncio.all_tasks()
    running = CloseHooks(TIMEOUT).run(Session("/", 0.0))
    with pytest.raises(StopIteration):
        running.send(None)
    assert asyncio.all_tasks() == before


class Callable:
    """An object that is called like an async function."""

    async def __call__(self, session):
        """Say nothing."""


@pytest.mark.parametrize("hook", [lambda _: None, print, "bye", None, Callable])
async def test_what_is_no_async_function_is_refused_or_counted(hook, caplog):
    """A mistake is found where it is made, or said once, and never once for each session."""
    hooks = CloseHooks(TIMEOUT)
    if getattr(hook, "__name__", "") == "<lambda>":
        hooks.add(hook)
        for _ in range(3):
            await hooks.run(Session("/", 0.0))
        assert hooks.failures == 3
        assert len(caplog.records) == 1
    else:
        with pytest.raises(SettingsError, match="give an async function"):
            hooks.add(hook)
    hooks.add(Callable())
    hooks.add(lambda session: asyncio.sleep(0, session))
    await hooks.run(Session("/", 0.0))


async def test_a_hook_whose_loop_is_closed_ends():
    """A coroutine that is thrown away is neither a failure nor held up."""
    said = []

    async def waits(_session):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            said.append("end")

    hooks = CloseHooks(TIMEOUT)
    hooks.add(waits)
    running = hooks._run_all(Session("/", 0.0))
    running.send(None)
    running.close()
    assert (said, hooks.failures) == (["end"], 0)
