"""The page of the admin route in a real browser: Chromium, driven by Playwright, examined by axe-core."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack

import pytest
from server_process import TOKEN
from test_real_clients import NODE, kill, programs
from websockets.asyncio.client import connect

__all__ = ["programs"]

pytestmark = pytest.mark.anyio

SESSIONS = 40


async def drive(scenario, server, programs, folder, **steps):
    """Play one scenario of page.mjs; do the steps that it asks for."""
    command = [programs.node, "page.mjs", scenario, programs.chromium, f"{server.url}/drain", TOKEN, str(folder)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=NODE, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as reading:
            errors = reading.create_task(process.stderr.read())
            async for line in process.stdout:
                step, _, words = line.decode().strip().partition(" ")
                outcome = await asyncio.to_thread(steps[step], *([words] if words else []))
                process.stdin.write(f"{outcome}\n".encode())
        assert await process.wait() == 0, errors.result().decode()
    finally:
        await kill(process)


async def come(server, stack):
    """Open sessions, which last until they are asked to leave."""
    for _ in range(SESSIONS):
        await stack.enter_async_context(connect(server.websocket("/ws/page"), proxy=None))


def drain(server, window):
    """Return a step that drains."""
    return lambda: server.drain("POST", window=window)[0]


async def test_a_drain_is_started_and_followed_on_the_page(serve, tmp_path, programs):
    """
    Sign in, start, watch the curve fall beside its plan, read the end.

    Every request goes to the one path, without a cookie; nothing is kept; a reason that holds HTML stays text.
    """
    server = serve("clients:app")
    async with AsyncExitStack() as stack:
        await come(server, stack)
        await drive("drain", server, programs, tmp_path)
    _, answer = await asyncio.to_thread(server.drain)
    assert answer["report"]["sessions_at_start"] == SESSIONS
    assert server.trouble == []


async def test_a_drain_is_cancelled_on_the_page(serve, tmp_path, programs):
    """After a confirmation, and not before."""
    server = serve("clients:app")
    async with AsyncExitStack() as stack:
        await come(server, stack)
        state = lambda: json.dumps(server.drain()[1]["state"])  # noqa: E731
        await drive("cancel", server, programs, tmp_path, drain=drain(server, 300), state=state)


async def test_problems_stand_first_and_stay_text(serve, tmp_path, programs):
    """What is wrong is said with its reason, the worst first, and no word from outside becomes HTML."""
    server = serve("clients:app")
    await drive("problems", server, programs, tmp_path, status=lambda: json.dumps(server.drain()[1]))


async def test_a_wrong_token_is_refused(serve, tmp_path, programs):
    """The page says so and shows nothing, and after signing out it has nothing left."""
    await drive("refused", serve("clients:app"), programs, tmp_path)


async def test_the_page_does_not_hold_up_a_server_that_stops(serve, tmp_path, programs):
    """The server ends although a page follows it, and the page says that it has no news."""
    server = serve("clients:app")

    def stop():
        server.signal(signal.SIGTERM)
        return server.wait(15)

    await drive("stop", server, programs, tmp_path, stop=stop)
    assert server.trouble == []


async def test_a_stuck_worker_is_named_first(serve, tmp_path, programs):
    """On a phone, with three workers of which one hangs: the page says which, and what to do, above all else."""
    server = serve("clients:app", "--workers", "3", "--timeout-worker-healthcheck", "600", workers=3)
    victim = max(server.pids)

    def stick():
        os.kill(victim, signal.SIGSTOP)
        return victim

    async with AsyncExitStack() as stack:
        await come(server, stack)
        try:
            await drive("stuck", server, programs, tmp_path, stick=stick, drain=drain(server, 60))
        finally:
            os.kill(victim, signal.SIGCONT)
