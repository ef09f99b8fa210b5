"""Clients that are not ours, all at once: each sees the code and the reason that we claim, and comes back."""

import asyncio
import json
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from server_process import REASON, ServerProcess
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio

NODE = Path(__file__).parent / "node"
REMEDY = "run tests/ecosystem/install.sh, as root where something is missing (Debian or Ubuntu)"
CHROMIUM = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",  # without it a headless browser ends when the page is loaded
)

WEBSOCKETS = ("Chromium's WebSocket", "ws", "reconnecting-websocket", "websockets", "aiohttp")
EVENT_SOURCES = ("Chromium's EventSource", "eventsource")

Diary = dict[str, list[list[object]]]
"""
What each client saw, in order: ``["heard"]``, ``["closed", code, reason]``, ``["comes back"]``, ``["gives up"]``.

The server writes ``["refused"]`` where it has turned the client away.
"""


class Programs(NamedTuple):
    """Where the programs are that are no Python packages."""

    node: str
    chromium: str


@pytest.fixture
def programs() -> Programs:
    """Find Node and Chromium. A machine that lacks them skips the test; in CI they must be there."""
    return find_programs(NODE / "node_modules")


def find_programs(node_modules: Path) -> Programs:
    """Return where Node and Chromium are; skip where something is missing, or fail where ``CI`` is set."""
    node, chromium = shutil.which("node"), shutil.which("chromium") or shutil.which("chromium-browser")
    needed = {"Node.js": node, "Node's clients": node_modules.is_dir(), "Chromium": chromium}
    if missing := [name for name, found in needed.items() if not found]:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"not installed: {', '.join(missing)}; {REMEDY}")
    return Programs(str(node), str(chromium))


@pytest.mark.parametrize(("ci", "end"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_programs_skip_the_test_but_not_in_ci(monkeypatch, tmp_path, ci, end):
    """A fresh clone passes its tests without Chromium and Node; in CI nobody overlooks that they are missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(end, match=r"not installed: Node\.js, Node's clients, Chromium; run .*install\.sh"):
        find_programs(tmp_path / "node_modules")


async def test_every_real_client_sees_why_and_comes_back(serve, tmp_path, programs):
    """
    WebSockets see 1012 and the reason, event streams end without an error that is final, and all return after a cancel.

    While the drain lasts each of them knocks and is turned away; no EventSource takes that for final.
    """
    server = serve("clients:app")
    diary: Diary = {name: [] for name in (*WEBSOCKETS, *EVENT_SOURCES)}
    async with (
        asyncio.timeout(90),
        in_background(read_reports(server, diary)),
        in_background(listen_with_websockets(server, diary)),
        in_background(listen_with_aiohttp(server, diary)),
        listen_with_node(server, diary, programs.node),
        listen_with_chromium(server, tmp_path, programs.chromium),
    ):
        await until(lambda: all(["heard"] in seen for seen in diary.values()), diary)
        _, before = await asyncio.to_thread(server.drain)
        await asyncio.to_thread(server.drain, "POST", "?wait=20", window=1)
        await until(lambda: all(["refused"] in seen for seen in diary.values()), diary)
        await asyncio.to_thread(server.drain, "DELETE")
        await until(lambda: all(seen[-1] == ["heard"] for seen in diary.values()), diary)

    assert before["sessions"]["open"] == len(diary)
    for name in diary:
        diary[name] = [each for each in diary[name] if each != ["refused"]]
    for name in WEBSOCKETS:
        assert diary[name][:2] == [["heard"], ["closed", 1012, REASON]], name
    for name in EVENT_SOURCES:
        assert diary[name][:2] == [["heard"], ["comes back"]], name
        assert ["gives up"] not in diary[name], name
    assert server.trouble == []


async def until(true: Callable[[], bool], diary: Diary) -> None:
    """Wait until *true* returns true; tell what the clients saw where it never does."""
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(diary)


@asynccontextmanager
async def in_background(work) -> AsyncIterator[None]:
    """Do *work* until the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def listen_with_websockets(server: ServerProcess, diary: Diary) -> None:
    """Reconnect for ever, as the documentation of ``websockets`` has it."""
    async for connection in connect(server.websocket("/ws/websockets"), proxy=None):
        await connection.send("hello")
        try:
            async for _ in connection:
                diary["websockets"].append(["heard"])
        except ConnectionClosed:
            diary["websockets"].append(["closed", connection.close_code, connection.close_reason])
        finally:
            await connection.close()


async def listen_with_aiohttp(server: ServerProcess, diary: Diary) -> None:
    """Reconnect for ever; the reason of a close comes with its message."""
    async with aiohttp.ClientSession() as client:
        while True:
            with suppress(aiohttp.WSServerHandshakeError):
                async with client.ws_connect(server.websocket("/ws/aiohttp"), autoclose=False) as connection:
                    await connection.send_str("hello")
                    while (message := await connection.receive()).type is aiohttp.WSMsgType.TEXT:
                        diary["aiohttp"].append(["heard"])
                    diary["aiohttp"].append(["closed", message.data, message.extra])
            await asyncio.sleep(0.3)


async def read_reports(server: ServerProcess, diary: Diary) -> None:
    """Read what the page in the browser reports, and who was refused."""
    known = 0
    while True:
        reports = json.loads(await asyncio.to_thread(server.get, "/reports"))
        for name, *seen in reports[known:]:
            diary[name].append(seen)
        known = len(reports)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def listen_with_node(server: ServerProcess, diary: Diary, node: str) -> AsyncIterator[None]:
    """Run Node's clients."""
    process = await asyncio.create_subprocess_exec(
        node, "clients.mjs", server.url, cwd=NODE, stdin=PIPE, stdout=PIPE, start_new_session=True
    )

    async def read() -> None:
        assert process.stdout
        async for line in process.stdout:
            name, *seen = json.loads(line)
            diary[name].append(seen)

    async with in_background(read()):
        try:
            yield
        finally:
            await kill(process)


@asynccontextmanager
async def listen_with_chromium(server: ServerProcess, directory: Path, chromium: str) -> AsyncIterator[None]:
    """Open the page in a browser without a window."""
    process = await asyncio.create_subprocess_exec(
        chromium,
        *CHROMIUM,
        f"--user-data-dir={directory / 'profile'}",
        server.url,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        await kill(process)


async def kill(process: asyncio.subprocess.Process) -> None:
    """End a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
