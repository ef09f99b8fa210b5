"""The model against what it models: the same applications and clients, on real sockets and in real time."""

import asyncio
import itertools
import logging
import math
import re
import socket
import time
from contextvars import ContextVar

import pytest
from drawn_app import (
    Echo,
    Gather,
    Limit,
    Performance,
    Raise,
    Receive,
    Repeat,
    Return,
    Send,
    Sleep,
    Spawn,
    Try,
    described,
)
from model_client import Action, HttpClient, WebSocketClient, make_client
from model_server import HTTP, WEBSOCKETS, make_config
from twin import Played, Scene, Stop, play
from uvicorn import Server

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:websockets", "ignore:remove second argument"),
    pytest.mark.slow,
]

UNIT = 0.4
"""Seconds between two things that happen: plenty, for the machine may be busy."""

END = 6 * UNIT

STEP = 0.02
"""Seconds that a pass of the real event loop may take by its own clock, apart from what it has to wait."""

BIG = 8_000_000
"""Bytes that no buffer of the kernel takes."""

ACCEPT = Send("websocket.accept")
TEXT = Send("websocket.send", text="news")
CLOSE = Send("websocket.close", code=4000, reason="enough")
EVENTS = Send("http.response.start", status=200, headers=((b"content-type", b"text/event-stream"),))
HALF = Send("http.response.body", body=b"data: 1\n\n", more_body=True)
END_OF_BODY = Send("http.response.body", body=b"")
ALL = Try((Receive(),), "Exception"), Try((TEXT,), "Exception"), Try((Receive(),), "Exception")


def head(status, **headers):
    """Return the start of a response."""
    pairs = tuple((name.replace("_", "-").encode(), value) for name, value in headers.items())
    return Send("http.response.start", status=status, headers=pairs)


def client(*actions, **more):
    """Return a WebSocket client; its moments are in units."""
    return WebSocketClient(tuple(Action(UNIT * at, does, what) for at, does, what in actions), **more)


def asks(*actions, **more):
    """Return an HTTP client, likewise."""
    return HttpClient(actions=tuple(Action(UNIT * at, does, what) for at, does, what in actions), **more)


WEBSOCKET_SCENES = {
    "echo": ((Receive(), ACCEPT, Echo((TEXT,))), client((1, "text", "a"), (2, "bytes", b"b"), (3, "close", 4001))),
    "drop": ((Receive(), ACCEPT, Echo((TEXT,)), *ALL), client((1, "text", "a"), (2, "drop", None))),
    "reset": ((Receive(), ACCEPT, Echo((TEXT,)), *ALL), client((1, "text", "a"), (2, "reset", None))),
    "drop unseen": ((Receive(), ACCEPT, Sleep(2 * UNIT), *ALL, *ALL), client((1, "drop", None))),
    "close unseen": ((Receive(), ACCEPT, Sleep(2 * UNIT), *ALL, *ALL), client((1, "close", 1001))),
    "ignores the disconnect": ((Receive(), ACCEPT, Repeat(3, (Receive(),))), client((1, "close", 1000))),
    "closes": ((Receive(), ACCEPT, TEXT, CLOSE, *ALL, *ALL), client()),
    "closes on a silent one": ((Receive(), ACCEPT, CLOSE, *ALL), client(is_silent=True)),
    "both close": ((Receive(), ACCEPT, Sleep(2 * UNIT), Try((CLOSE,), "Exception"), *ALL), client((1, "close", 4001))),
    "closes at once": ((Receive(), Send("websocket.close"), *ALL), client()),
    "denies": (
        (
            Receive(),
            Send("websocket.http.response.start", status=403, headers=((b"x-why", b"no"),)),
            Send("websocket.http.response.body", body=b"not today"),
            *ALL,
        ),
        client(),
    ),
    "denies by half": (
        (Receive(), Send("websocket.http.response.start", status=403, headers=()), *ALL),
        client((2, "drop", None)),
    ),
    "does not answer": ((Receive(),), client()),
    "answers too late": ((Receive(), Sleep(2 * UNIT), Try((ACCEPT,), "Exception"), *ALL), client((1, "drop", None))),
    "fails before": ((Receive(), Raise("OwnError")), client()),
    "fails after": ((Receive(), ACCEPT, Raise("OSError")), client()),
    "says what it must not": ((Receive(), Try((TEXT,), "Exception"), ACCEPT, ACCEPT), client()),
    "receives twice at once": ((Receive(), ACCEPT, Gather(((Receive(),), (Receive(),)))), client((1, "text", "a"))),
    "gives up": ((Receive(), ACCEPT, Limit("wait_for", UNIT, (Receive(),)), Receive()), client((2, "text", "a"))),
    "leaves a task": ((Receive(), ACCEPT, Spawn((Sleep(UNIT), *ALL))), client()),
    "returns a value": ((Receive(), ACCEPT, Return("a value")), client()),
    "is told to stop": ((Receive(), ACCEPT, Echo((TEXT,)), *ALL), client((1, "text", "a")), Stop(2 * UNIT, 1)),
    "is told in vain": ((Receive(), ACCEPT, Sleep(60)), client(), Stop(UNIT, 1)),
    "is told in its handshake": ((Receive(), Sleep(2 * UNIT), Try((ACCEPT,), "Exception")), client(), Stop(UNIT, 1)),
    "speaks to the deaf": (
        (Receive(), Sleep(UNIT), ACCEPT, Sleep(UNIT), Send("websocket.send", bytes=b"b" * BIG), TEXT, Receive()),
        client((1.5, "deaf", None), (4, "hear", None)),
    ),
}

HTTP_SCENES = {
    "answers": ((head(200, content_length=b"2"), Send("http.response.body", body=b"ok"), Receive(), Receive()), asks()),
    "answers twice": ((EVENTS, HALF, END_OF_BODY, Try((END_OF_BODY,), "Exception"), EVENTS), asks()),
    "without a body": ((head(204), END_OF_BODY), asks()),
    "reads": (
        (Receive(), Receive(), EVENTS, END_OF_BODY),
        asks((1, "body", b"more"), method="POST", body=b"some"),
    ),
    "streams": ((EVENTS, HALF, Sleep(UNIT), HALF, Sleep(UNIT), END_OF_BODY), asks(accept="text/event-stream")),
    "drop": ((Receive(), EVENTS, HALF, Repeat(3, (Receive(),)), HALF, END_OF_BODY, HALF), asks((1, "drop", None))),
    "reset": ((Receive(), EVENTS, HALF, Repeat(3, (Receive(),)), HALF, END_OF_BODY), asks((1, "reset", None))),
    "drop unseen": ((Receive(), EVENTS, Sleep(2 * UNIT), HALF, END_OF_BODY, Receive()), asks((1, "drop", None))),
    "does not answer": ((Receive(),), asks()),
    "answers by half": ((Receive(), EVENTS, HALF), asks()),
    "fails before": ((Receive(), Raise("OwnError")), asks()),
    "fails after": ((EVENTS, HALF, Raise("OwnError")), asks()),
    "body first": ((Try((HALF,), "Exception"), EVENTS, END_OF_BODY), asks()),
    "too short": ((head(200, content_length=b"9"), END_OF_BODY), asks()),
    "too long": ((head(200, content_length=b"2"), HALF, END_OF_BODY), asks()),
    "asks to close": ((head(200, content_length=b"0", connection=b"close"), END_OF_BODY, Receive()), asks()),
    "receives twice at once": ((EVENTS, Gather(((Receive(), Receive()), (Receive(),)))), asks((1, "drop", None))),
    "gives up": ((Receive(), EVENTS, Limit("wait_for", UNIT, (Receive(),)), END_OF_BODY), asks()),
    "goes on": ((EVENTS, END_OF_BODY, Sleep(UNIT), Receive()), asks()),
    "returns a value": ((EVENTS, END_OF_BODY, Return("a value")), asks()),
    "is told to stop": ((Receive(), EVENTS, HALF, Sleep(2 * UNIT), END_OF_BODY, Receive()), asks(), Stop(UNIT, 4)),
    "is told in vain": ((Receive(), EVENTS, HALF, Receive()), asks(), Stop(UNIT, 1)),
    "speaks to the deaf": (
        (EVENTS, Sleep(2 * UNIT), Send("http.response.body", body=b"b" * BIG, more_body=True), END_OF_BODY, Receive()),
        asks((1, "deaf", None), (4, "hear", None)),
    ),
}

SCENES = {
    **{
        f"{websockets}: {name}": Scene(program, client, http, websockets, *stop)
        for http, websockets in zip(itertools.cycle(HTTP), WEBSOCKETS, strict=False)
        for name, (program, client, *stop) in WEBSOCKET_SCENES.items()
    },
    **{
        f"{http}: {name}": Scene(program, client, http, "wsproto", *stop)
        for http in HTTP
        for name, (program, client, *stop) in HTTP_SCENES.items()
    },
}

NOTE = ContextVar("NOTE")
"""Whose scene it is: all of them are played at once, and uvicorn has one log."""


class SharedLog(logging.Handler):
    """Notes what uvicorn logs in the scene that it belongs to."""

    def emit(self, record):
        """Note one record."""
        note = NOTE.get(None)
        if note and not record.getMessage().startswith("Uvicorn running"):
            error = record.exc_info[1] if record.exc_info else None
            who = "lifespan" if "pplication s" in record.getMessage() else "server"
            note(who, record.levelname, record.getMessage().strip(), described(error))


class PatientLoop(asyncio.SelectorEventLoop):
    """
    A loop with real sockets, whose clock stands still while a busy machine holds it up.

    Two timers that ring a unit apart are then never due in one pass, with nothing that sockets say between them.
    """

    def __init__(self):
        super().__init__()
        self._now = self._looked = time.monotonic()
        self._wait, self._selector.select = self._selector.select, self._select

    def time(self):
        """Return the clock as it was when this pass began."""
        return self._now

    def _select(self, timeout=None):
        self._tick(0.0)
        result = self._wait(timeout)
        self._tick(math.inf if timeout is None else timeout)
        return result

    def _tick(self, waited):
        now = time.monotonic()
        self._now, self._looked = self._now + min(now - self._looked, waited + STEP), now


async def play_really(scene, ready):
    """Play *scene* as `play` does, on real sockets, once all are *ready*."""
    played = Played()
    loop = asyncio.get_running_loop()
    began = loop.time()

    def note(who, *what):
        if not played.is_over:
            played.trace.append((loop.time() - began, who, what))

    NOTE.set(note)
    app = Performance(scene.program, note, itertools.count().__next__)
    server = Server(make_config(app, scene.http, scene.websockets, scene.stop.patience if scene.stop else None))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await server.startup(sockets=[sock])
        await ready.wait()
        tasks = [loop.create_task(stop(server, scene.stop, note))] if scene.stop else []
        transport, client = await loop.create_connection(
            lambda: make_client(scene.client, lambda *what: note("client", *what)), *sock.getsockname()
        )
        await asyncio.sleep(END)
        note("client", "is gone" if client.is_over.is_set() else "is still there")
        note("server", "waits for", len(server.server_state.tasks), "tasks", len(server.server_state.connections))
        if tasks:
            note("server", "has stopped" if tasks[0].done() else "has not stopped")
        played.is_over = True
        transport.abort()
        for each in (*tasks, *server.server_state.tasks, *app.tasks):
            each.cancel()
        await asyncio.sleep(0.1)
        server.force_exit = True
        for each in server.servers:
            each.close()
    return played


async def stop(server, how, note):
    """Let *server* end as SIGTERM would."""
    await asyncio.sleep(how.at)
    note("server", "is told to stop")
    await server.shutdown()


async def play_all_really(scenes):
    """Play all *scenes* at once."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    log = logging.getLogger("uvicorn.error")
    handler, before = SharedLog(), (log.level, log.propagate)
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    try:
        ready = asyncio.Barrier(len(scenes))
        tasks = [asyncio.create_task(play_really(scene, ready)) for scene in scenes.values()]
        return dict(zip(scenes, await asyncio.gather(*tasks), strict=True))
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


@pytest.fixture(scope="module")
def really():
    """Play all scenes on real sockets, side by side."""
    play(SCENES["websockets: echo"], wrapped=False)  # import what is imported late
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        return runner.run(play_all_really(SCENES))


def seen(played):
    """Return what was seen of each actor, without the moments, and without what a real socket decides by luck."""
    result = {}
    for actor, trace in played.by_actor().items():
        result[actor] = lines = []
        for _, who, what in trace:
            if what[0] == "gets data" and lines and lines[-1][1][0] == "gets data":
                what = ("gets data", lines.pop()[1][1] + what[1])  # noqa: PLW2901
            elif what[0] == "gets data":
                what = what[:2]  # noqa: PLW2901
            elif what[0] in ("gets the end", "loses the connection") and "gets close" in [each[0] for _, each in lines]:
                what = ("is let go",)  # noqa: PLW2901 - its echo may come before the server has closed, or after
            lines.append((who, what))
        result[actor] = [re.sub(r"127\.0\.0\.1:\d+", "address", repr(each)) for each in lines]
    del result["loop"]
    return result


@pytest.mark.xdist_group("the twin's model")
@pytest.mark.parametrize("name", SCENES)
def test_model_is_true(really, name):
    """What the application and the client see, and what the server logs, is the same on the model as on sockets."""
    model, real = seen(play(SCENES[name], wrapped=False, until=END)), seen(really[name])
    assert model == real
