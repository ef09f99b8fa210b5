"""
What each server makes of a drain, and of SIGTERM: seen, and compared with the table in ``docs/servers.md``.

When a server has changed its ways, look at what differs; then write the table anew:
``python tests/ecosystem/make_table.py``.
"""

import asyncio
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product

import httpx
import make_table
import pytest
from server_process import REASON, ServerProcess, eventually
from streams import StreamEnd, read_stream
from websocket_clients import listeners
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.anyio

SESSIONS = 6
PATIENCE_WITH_SIGTERM = 15.0
"""Seconds until a server that has been told to stop, with sessions open, counts as one that does not."""


@dataclass(frozen=True)
class Server:
    """A server as it is started. The distributions are those whose versions the table tells."""

    name: str
    distributions: tuple[str, ...]
    command: tuple[str, ...]
    workers: int = 1

    def versions(self) -> str:
        """Return the versions of what makes it up."""
        return ", ".join(f"{name} {version(name)}" for name in self.distributions)


UVICORN = ("-m", "uvicorn", "contract:app", "--port", "{port}")
BIND = ("--bind", "127.0.0.1:{port}", "contract:app")
GUNICORN = ("-m", "gunicorn", *BIND, "--graceful-timeout", "4", "--worker-class")
PACKAGES = {"websockets-sansio": "websockets", "wsproto": "wsproto", "websockets": "websockets"}

SERVERS = [
    *(
        Server(
            f"uvicorn --ws {implementation} --loop {loop}",
            ("uvicorn", package),
            (*UVICORN, "--ws", implementation, "--loop", loop),
        )
        for (implementation, package), loop in product(PACKAGES.items(), ("asyncio", "uvloop"))
    ),
    Server("uvicorn --workers 2", ("uvicorn",), (*UVICORN, "--workers", "2"), workers=2),
    Server("uvicorn --reload", ("uvicorn",), (*UVICORN, "--reload")),
    Server(
        "gunicorn -k uvicorn_worker.UvicornWorker",
        ("gunicorn", "uvicorn-worker"),
        (*GUNICORN, "uvicorn_worker.UvicornWorker"),
    ),
    Server("gunicorn -k asgi", ("gunicorn",), (*GUNICORN, "asgi")),
    Server("hypercorn", ("hypercorn",), ("-m", "hypercorn", *BIND)),
    Server("hypercorn --workers 2", ("hypercorn",), ("-m", "hypercorn", "--workers", "2", *BIND), workers=2),
    Server(
        "granian",
        ("granian",),
        ("-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "contract:app"),
    ),
    Server("daphne", ("daphne",), ("-m", "daphne", "--bind", "127.0.0.1", "--port", "{port}", "contract:app")),
]


@dataclass
class Seen:
    """What was seen of one server: a row of the table."""

    server: str
    versions: str
    client: str = ""
    endpoint: str = ""
    stream: str = ""
    late: str = ""
    sigterm: str = ""
    sigterm_stream: str = ""
    exit: str = ""


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_every_server_does_what_the_table_says(serve, server, request):
    """
    A drain by hand, a late arrival, a cancel, a return, and SIGTERM: what was seen is what the documentation says.

    What must hold everywhere: before the drain nothing differs from the same application without us; endpoints see 1012
    and the reason, streams end cleanly, and no error is logged.
    """
    process = serve("", command=server.command, workers=server.workers)
    async with asyncio.timeout(30):
        assert await converse(process, "") == await converse(process, "/bare")
    seen = Seen(server.name, server.versions())
    async with asyncio.timeout(60):
        await drain_by_hand(process, server, seen)
    assert process.trouble == []
    async with asyncio.timeout(60):
        await stop(process, seen)
    if not server.name.startswith("hypercorn"):  # which logs each connection that it cuts, with us or without
        assert process.trouble == []
    request.config.cache.set(f"servers/{SERVERS.index(server):02}", asdict(seen))

    assert seen.endpoint == "1012, reason"
    assert seen.stream == "clean end, retry; cleaned up"
    assert make_table.documented_rows().get(server.name) == make_table.row(asdict(seen)), "see this module's docstring"


def test_the_table_of_servers_has_no_row_that_is_not_tried():
    """A server that is no longer tried leaves the documentation."""
    assert list(make_table.documented_rows()) == [server.name for server in SERVERS]


async def converse(process: ServerProcess, prefix: str) -> list[object]:
    """Talk to the application about everything, and return all that a client or an endpoint noticed."""
    async with httpx.AsyncClient(base_url=process.url, trust_env=False) as client:
        answers = [await client.get(f"{prefix}/greeting"), await client.post(f"{prefix}/greeting", content=b"x" * 9)]
        noticed: list[object] = [(each.status_code, untimed(each.headers.multi_items()), each.text) for each in answers]
        async with client.stream("GET", f"{prefix}/stream") as stream:
            noticed += [untimed(stream.headers.multi_items()), await anext(stream.aiter_text())]
    url = process.websocket(f"{prefix}/talk")
    async with connect(url, subprotocols=["b", "a"], proxy=None) as connection:
        assert connection.response
        noticed += [untimed(connection.response.headers.raw_items()), connection.subprotocol]
        for message in ("text", b"bytes", "x" * 100_000):
            await connection.send(message)
            noticed.append(await connection.recv())
        await connection.close(4001, "enough")
    async with connect(url, subprotocols=["a"], proxy=None) as connection:
        await connection.send("close")
        await connection.wait_closed()
        noticed += [connection.close_code, connection.close_reason]
    with pytest.raises(InvalidStatus) as refusal:
        await connect(process.websocket(f"{prefix}/forbidden"), proxy=None)
    noticed.append((refusal.value.response.status_code, untimed(refusal.value.response.headers.raw_items())))
    with pytest.raises(InvalidStatus) as refusal:
        await connect(process.websocket(f"{prefix}/nowhere"), proxy=None)
    noticed.append(refusal.value.response.status_code)
    heard = f"talk on '{prefix}' ended with "
    await asyncio.to_thread(eventually, lambda: heard in process.log, "the endpoint hears nothing of the end")
    noticed.append(next(line.partition(heard)[2] for line in process.log.splitlines() if heard in line))
    return noticed


def untimed(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out what differs from one answer to the next."""
    return sorted((name, value) for name, value in headers if name.lower() not in ("date", "sec-websocket-accept"))


async def drain_by_hand(process: ServerProcess, server: Server, seen: Seen) -> None:
    """Start a drain with sessions open, knock while it lasts, cancel it, and come back."""
    async with listeners([process.websocket("/ws")] * SESSIONS) as clients:
        stream = await opened_stream(process)
        await asyncio.to_thread(process.drain, "POST", window=0.5)
        seen.client = say_goodbyes([(await each.close_policy()).words for each in clients])
        seen.stream = say_stream(await stream)
    seen.late = await knock(process)
    await asyncio.to_thread(eventually, lambda: process.log.count("endpoint saw") >= SESSIONS, "an endpoint goes on")
    await asyncio.to_thread(eventually, lambda: "stream of a session cleaned up" in process.log, "the stream goes on")
    seen.endpoint = say_endpoints(process.log)
    seen.stream += "; cleaned up"
    await asyncio.to_thread(process.drain, "DELETE")
    async with asyncio.timeout(20):
        while not await is_open_again(process, server):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def stop(process: ServerProcess, seen: Seen) -> None:
    """Send SIGTERM with sessions open."""
    async with listeners([process.websocket("/ws")] * SESSIONS) as clients:
        stream = await opened_stream(process)
        process.signal()
        goodbyes = [await each.close_policy() for each in clients]
        seen.sigterm_stream = say_stream(await stream)
    moments = [each.at for each in goodbyes]
    pace = "one by one" if max(moments) - min(moments) > 0.3 else "all at once"
    seen.sigterm = f"{say_goodbyes([each.words for each in goodbyes])}; {pace}"
    try:
        status = await asyncio.to_thread(process.wait, PATIENCE_WITH_SIGTERM)
    except subprocess.TimeoutExpired:
        seen.exit = "never"
    else:
        seen.exit = "by SIGTERM" if status == -signal.SIGTERM else f"with {status}"


async def opened_stream(process: ServerProcess) -> asyncio.Task[StreamEnd]:
    """Open an event stream, and return what will be its end."""
    begun = asyncio.Event()
    stream = asyncio.create_task(read_stream(f"{process.url}/stream?session", begun))
    await begun.wait()
    return stream


async def knock(process: ServerProcess) -> str:
    """Ask to come in; return the answer."""
    try:
        async with connect(process.websocket("/ws"), proxy=None):
            return "let in"
    except InvalidStatus as refusal:
        answer = refusal.response
        return f"{answer.status_code}{', Retry-After' if 'Retry-After' in answer.headers else ''}"


async def is_open_again(process: ServerProcess, server: Server) -> bool:
    """Tell whether so many clients are let in that every worker must be serving again."""
    return {await knock(process) for _ in range(6 * server.workers)} == {"let in"}


def say_goodbyes(goodbyes: list[tuple[int | None, str | None]]) -> str:
    """Say what clients saw, as the table does."""
    words = {REASON: "reason", "": "no reason"}
    return " or ".join(sorted({f"{code}, {words.get(reason or '', reason)}" for code, reason in goodbyes}))


def say_endpoints(log: str) -> str:
    """Say what endpoints saw, as the table does."""
    seen = {line.partition("endpoint saw ")[2] for line in log.splitlines() if "endpoint saw " in line}
    return " or ".join(sorted("1012, reason" if words == f"1012 {REASON!r}" else words for words in seen))


def say_stream(end: StreamEnd) -> str:
    """Say how a stream ended, as the table does."""
    return ("clean end" if end.clean else "cut") + (", retry" if end.says_retry else "")
