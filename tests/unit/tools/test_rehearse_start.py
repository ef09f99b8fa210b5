"""How a rehearsal tells why an application does not answer, and how it shows its progress."""

import asyncio
import os
from types import SimpleNamespace

import pytest

from starlette_drain.tools.rehearse import run
from starlette_drain.tools.rehearse.clients import event_stream
from starlette_drain.tools.rehearse.command import _Screen
from starlette_drain.tools.rehearse.run import CannotRehearse, _Run
from starlette_drain.tools.tasks.channel import Unreachable
from starlette_drain.tools.tasks.seen import Seen

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("mode", "words"),
    [("drain", "no DrainMiddleware answers. Remedy: call add_middleware"), ("off", "DRAIN_MODE=off switches")],
)
async def test_an_application_without_the_middleware(mode, words, monkeypatch):
    """Once the application has started, it says so within seconds, with the remedy."""
    monkeypatch.setenv("DRAIN_MODE", mode)
    playing = _Run(None, None, None)
    playing._process = SimpleNamespace(pid=os.getpid())
    assert not await playing._is_up()
    playing._output.started = -run.ANSWERS_WITHIN - 1e9
    with pytest.raises(CannotRehearse, match=words):
        await playing._is_up()


async def test_an_application_that_blocks_its_event_loop():
    """It does not answer, and the remedy is not about the path."""
    playing = _Run(None, None, None)

    async def are_open():
        why = "process 31: no answer in time"
        raise Unreachable(why)

    with pytest.raises(CannotRehearse, match=r"process 31: no answer in time\. Remedy: look for a call that blocks"):
        await playing._until(are_open, 0.0, "/ws has no session")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}", "its content-type is application/json"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "it has no content-type"),
    ],
)
async def test_a_path_that_is_no_event_stream(head, words):
    """The client says what it got instead."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ValueError, match=words):
            await event_stream({})(f"http://127.0.0.1:{port}/x", 0)


async def test_the_same_line_is_not_shown_twice(monkeypatch, capsys):
    """Where nothing can be redrawn, a line comes only if something has changed."""
    monkeypatch.setattr("starlette_drain.tools.rehearse.command.EVERY", 0.0)
    screen = _Screen(is_silent=False)
    for open_ in (2, 0, 0):
        screen.show(Seen("rehearsal", {"state": "drained", "sessions": {"open": open_}}))
    assert capsys.readouterr().out == "rehearsal, drained, 2 open\nrehearsal, drained, 0 open\n"
