"""NiceGUI: a page that the server changes, followed over its Socket.IO as the browser does."""

import ast
import asyncio
import html
import re
from typing import Any

import httpx
import socketio
from common import answering, say, wrapped


def app() -> Any:
    """Serve a page with a clock."""
    from fastapi import FastAPI  # noqa: PLC0415 - the client does without
    from nicegui import ui  # noqa: PLC0415

    site = FastAPI()

    @ui.page("/")
    def clock() -> None:
        label = ui.label("0")
        ui.timer(0.1, lambda: label.set_text(str(int(label.text) + 1)))

    ui.run_with(site, reconnect_timeout=10)
    return answering(wrapped(site))


async def client(url: str) -> None:
    """Load the page, follow it, and come back as the same visitor when the connection is lost."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        page = (await browser.get(url)).text
    found = re.search(r"query: (\{.*?\})", html.unescape(page))
    assert found, page
    visit = {**ast.literal_eval(found[1]), "document_id": "document", "tab_id": "tab"}
    visitor = socketio.AsyncClient(reconnection_delay=0.2, randomization_factor=0)
    connected: asyncio.Queue[bool] = asyncio.Queue()
    lost: asyncio.Queue[str] = asyncio.Queue()
    changed = asyncio.Event()

    async def connect() -> None:
        connected.put_nowait(await visitor.call("handshake", visit))

    visitor.on("connect", connect)
    visitor.on("disconnect", lost.put_nowait)
    visitor.on("update", lambda _: changed.set())
    await visitor.connect(url, socketio_path="/_nicegui_ws/socket.io", transports=["websocket"])
    say("greeted", await connected.get())
    await changed.wait()
    say("ready")
    say("lost", await lost.get())
    say("back", await connected.get())
    changed.clear()
    await changed.wait()
    say("changed again")
