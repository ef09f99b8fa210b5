"""What an event stream, its client and an ordinary response see of a drain, message by message."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.util import find_spec
from random import Random

import pytest
from fastapi import FastAPI
from hand_server import HandServer, settle
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from starlette_drain import (
    Drain,
    DrainMiddleware,
    DrainState,
    EventStreamSession,
    NotTracked,
    SettingsError,
    session_of,
)
from starlette_drain._asgi.connection import SCOPE_KEY
from starlette_drain._core.events import SessionClosed, SessionOpened, SessionRefused
from starlette_drain._core.session import Outcome
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio

EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
START = {"type": "http.response.start", "status": 200, "headers": [EVENT_STREAM]}
HEAD = {**START, "headers": [EVENT_STREAM, (b"connection", b"close")]}
"""The head of a session, as its client sees it over HTTP/1."""
END = {"type": "http.response.body", "body": b"", "more_body": False}


STREAMS = "Open streams are treated as answers"


def chunk(body: bytes, *, more: bool = True):
    """Return a part of a body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def retry(milliseconds: int):
    """Return the end of a stream that tells when to come back."""
    return chunk(f"retry: {milliseconds}\n".encode(), more=False)


def http_scope(method="GET", path="/events", *, accept=(b"text/event-stream",), spec="2.3", version="1.1"):
    """Return the scope of a request, by default one of an EventSource."""
    asgi = {"version": "3.0", "spec_version": spec}
    headers = [(b"host", b"test"), *((b"accept", value) for value in accept)]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b"", "root_path": ""}
    return {**scope, "asgi": asgi, "http_version": version, "scheme": "http", "server": ("test", 80), "state": {}}


class House:
    """An application in a DrainMiddleware, and what was heard of it."""

    def __init__(self, app, **options) -> None:
        self.recording = RecordingObserver()
        options = {"grace": 5.0, "retry_after": 5.0, **options}
        self.drain = Drain(triggers=[], observers=[self.recording], rng=Random(7), **options)
        self.app = DrainMiddleware(app, drain=self.drain)

    def serve(self, scope=None) -> HandServer:
        """Serve one request, whose body is empty."""
        server = HandServer(self.app, scope or http_scope(), connected=False)
        server.deliver({"type": "http.request", "body": b"", "more_body": False})
        return server

    async def shed(self) -> None:
        """Ask everyone to leave at once, and let happen what needs no time."""
        await self.drain.start(window=0)
        await asyncio.sleep(0.001)
        await settle()

    def outcomes(self):
        """Return how the sessions ended."""
        return [event.outcome for event in self.recording.of(SessionClosed)]


@pytest.fixture(autouse=True)
def quiet(caplog):
    """No test may log a warning, but the one of streams that are answers: no traceback comes of an ordinary shed."""
    caplog.set_level(logging.WARNING)
    yield caplog
    lines = [record.getMessage() for record in caplog.get_records("call")]
    assert [line for line in lines if not line.startswith(STREAMS)] == []


def bare(*chunks: bytes, headers=(EVENT_STREAM,), status=200, ends=False):
    """Make an application that sends *chunks* and waits for its client to go, as ASGI before 2.4 has it."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for each in chunks:
            await send(chunk(each))
        if ends:
            await send(END)
            return
        while (await receive())["type"] != "http.disconnect":
            pass

    return app


def endless(framework: str, log: list[str]):
    """Make an application in *framework* whose generator never ends by itself."""

    async def ended():
        log.append("background")

    async def events(event):
        try:
            while True:
                yield event
                await asyncio.sleep(1)
        finally:
            log.append("finally")

    async def endpoint(request: Request):
        if framework == "sse-starlette":
            from sse_starlette import EventSourceResponse  # noqa: PLC0415

            return EventSourceResponse(events({"data": "x"}), ping=10_000, background=BackgroundTask(ended))
        return StreamingResponse(
            events("data: x\n\n"), media_type="text/event-stream", background=BackgroundTask(ended)
        )

    async def dispatch(request, call_next):
        return await call_next(request)

    if framework == "fastapi":
        app = FastAPI()
        app.add_api_route("/events", endpoint)
        return app
    if framework == "fastapi.sse":
        return fastapi_sse(events)
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=dispatch)] if framework == "base-http-middleware" else []
    return Starlette(routes=[Route("/events", endpoint, methods=["GET", "POST"])], middleware=middleware)


def fastapi_sse(events):
    """Make an application with FastAPI's own event streams."""
    from fastapi.sse import EventSourceResponse, ServerSentEvent  # noqa: PLC0415 - older versions have none

    app = FastAPI()

    @app.get("/events", response_class=EventSourceResponse)
    async def _() -> AsyncIterator[ServerSentEvent]:
        async for event in events(ServerSentEvent(raw_data="x")):
            yield event

    return app


NEEDS_SSE_STARLETTE = pytest.mark.skipif(find_spec("sse_starlette") is None, reason="sse-starlette is not installed")
FRAMEWORKS = (
    "starlette",
    "fastapi",
    "fastapi.sse",
    pytest.param("sse-starlette", marks=NEEDS_SSE_STARLETTE),
    "base-http-middleware",
)


# --- Before a drain ---


async def test_before_a_drain_the_very_messages_pass():
    """Until a drain a response passes as it is, object by object."""
    start = {**START, "headers": [(b"content-type", b"text/plain")]}
    outgoing = [start, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"), END]

    async def app(scope, receive, send):
        for message in outgoing:
            await send(message)

    server = House(app).serve()
    await server.task
    assert all(sent is message for sent, message in zip(server.sent, outgoing, strict=True))


async def test_headers_that_can_be_read_once_are_read_once():
    """ASGI allows any iterable of headers: looking at them does not lose them."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": iter([EVENT_STREAM])})
        await send(END)

    server = House(app).serve()
    await server.task
    assert server.sent == [HEAD, END]


@pytest.mark.parametrize("kind", [b"text/event-stream", b"text/event-stream;charset=utf-8", b"Text/Event-Stream "])
async def test_an_event_stream_is_a_session_from_its_head_on(kind):
    """A stream is known by its content type, however it is written; before its head it is a transfer."""
    house = House(bare(b"data: x\n\n", headers=[(b"Content-Type", kind)]))
    server = house.serve()
    assert house.drain.statistics().open == 0
    await settle()
    assert house.drain.statistics().open == 1
    assert len(house.drain.host.engine.answers) == 0
    (opened,) = house.recording.of(SessionOpened)
    assert opened.session.kind == "event-stream"
    server.task.cancel()


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, [(b"content-type", b"application/x-ndjson")]),
        (200, [EVENT_STREAM, (b"content-length", b"9")]),
        (204, [EVENT_STREAM]),
        (404, [EVENT_STREAM]),
        (200, []),
    ],
)
async def test_what_is_no_stream_of_events_is_let_be(status, headers):
    """Another type, an announced length or another status: nothing of it is ended early or added to."""
    house = House(bare(b"data: x\n\n", status=status, headers=headers))
    server = house.serve()
    await settle()
    await house.shed()
    assert len(house.drain.host.engine.answers) == 1
    assert len(server.sent) == 2
    server.deliver({"type": "http.disconnect"})
    await server.task
    assert len(house.drain.host.engine.answers) == 0


async def test_a_response_that_announces_trailers_is_let_be():
    """They are the application's own, and a server waits for them after the body."""
    start = {**START, "trailers": True}

    async def app(scope, receive, send):
        await send(start)
        await receive()
        await asyncio.sleep(3)
        await send(END)

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert server.sent == [start, END]
    assert house.outcomes() == []


async def test_a_stream_that_ends_by_itself_has_left():
    """Its application ends it, or its client goes: it was not shed."""
    house = House(bare(b"data: x\n\n", ends=True))
    await house.serve().task
    gone = House(bare(b"data: x\n\n"))
    server = gone.serve()
    server.deliver({"type": "http.disconnect"})
    await server.task
    assert [Outcome.LEFT] == house.outcomes() == gone.outcomes()


# --- Shed ---


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_stream_is_ended_cleanly_and_its_generator_too(framework, spec):
    """The client gets a final chunk, the generator its ``finally``, and no application is cancelled for it."""
    log = []
    house = House(endless(framework, log))
    server = house.serve(http_scope(spec=spec))
    await asyncio.sleep(2.5)
    at = house.drain.host.engine.time()
    await house.drain.start(window=0)
    await server.task

    assert server.sent[0]["type"] == "http.response.start"
    assert chunk(b"data: x\n\n") in server.sent or chunk(b"data: x\r\n\r\n") in server.sent
    assert not server.sent[-1]["more_body"]
    assert all(message["more_body"] for message in server.sent[1:-1])
    assert server.sent[-1]["body"] == b"retry: 5000\n"
    gc.collect()  # from ASGI 2.4 on nobody closes the generator; it ends with its last reference
    await settle()
    assert "finally" in log
    assert house.outcomes() == [Outcome.SHED]
    assert house.drain.host.engine.time() - at < 2


async def test_tasks_in_the_background_of_a_stream_run_after_it():
    """What an application wants to do after the response is done, on servers that tell of the disconnect."""
    log = []
    house = House(endless("starlette", log))
    server = house.serve()
    await asyncio.sleep(0.5)
    await house.shed()
    await server.task
    assert log == ["finally", "background"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ((), b"retry: 5000\n"),
        ((b"data: x\n\n",), b"retry: 5000\n"),
        ((b"data: x\r\n\r\n",), b"retry: 5000\n"),
        ((b"data: x\r\r",), b"retry: 5000\n"),
        ((b"data: x\n", b"\n"), b"retry: 5000\n"),
        ((b"data: x\r\n", b"\r", b"", b"\n"), b"retry: 5000\n"),
        ((b": ping\n\n", bytearray(b"id: 1\n\n")), b"retry: 5000\n"),
        ((b"data: x\n\n", b"data: half"), b""),
        ((b"data: x\n",), b""),
        ((b"id: 7\ndata: x",), b""),
        ((b"data: x\n\n", b"i"), b""),
    ],
)
async def test_retry_is_told_only_after_a_whole_event(sent, expected):
    """In the middle of an event it would make a client dispatch half of it, and resume from the wrong place."""
    house = House(bare(*sent))
    server = house.serve()
    await settle()
    await house.shed()
    assert [HEAD, *map(chunk, sent), chunk(expected, more=False)] == server.sent
    await server.task


async def test_nothing_is_added_while_a_part_may_or_may_not_arrive():
    """A send that waits for a slow client may still be cancelled: nobody knows where the body ends."""

    async def app(scope, receive, send):
        await send(START)
        await send(chunk(b"data: half"))
        sending = asyncio.create_task(send(chunk(b" of it\n\n")))
        while (await receive())["type"] != "http.disconnect":
            pass
        sending.cancel()

    house = House(app)
    server = house.serve()
    server.blocked = lambda message: message.get("body", b"").endswith(b"\n\n")
    await settle()
    await house.shed()
    await server.task
    assert server.sent == [HEAD, chunk(b"data: half"), END]


async def test_only_parts_of_the_body_are_parts_of_the_stream():
    """Whatever else an application sends (a server push) passes, and the stream is ended all the same."""
    push = {"type": "http.response.push", "path": "/style.css", "headers": []}

    async def app(scope, receive, send):
        await send(START)
        await send(push)
        while (await receive())["type"] != "http.disconnect":
            pass

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert server.sent == [HEAD, push, retry(5000)]


async def test_a_stream_whose_head_is_still_on_its_way_is_no_session_yet():
    """An end of the body before its head would be no HTTP; it is shed once the head has gone."""
    house = House(bare(b"data: x\n\n"))
    house.drain.host.begin()
    server = house.serve()
    server.blocked = lambda message: message["type"] == "http.response.start"
    await settle()
    assert house.drain.statistics().open == 0
    await house.shed()
    assert server.sent == []
    server.task.cancel()
    await asyncio.wait([server.task])


async def test_a_task_that_asks_for_the_client_does_not_hide_one_that_listens():
    """Starlette's ``is_disconnected`` receives beside the task that waits for the disconnect, which is interrupted."""
    log = []

    async def events(request):
        try:
            while not await request.is_disconnected():
                yield "data: x\n\n"
                await asyncio.sleep(1)
        finally:
            log.append("finally")

    async def ended():
        log.append("background")

    async def endpoint(request: Request):
        return StreamingResponse(events(request), media_type="text/event-stream", background=BackgroundTask(ended))

    house = House(Starlette(routes=[Route("/events", endpoint)]))
    server = house.serve()
    await asyncio.sleep(2.5)
    at = house.drain.host.engine.time()
    await house.shed()
    await server.task
    assert log == ["finally", "background"]
    assert house.outcomes() == [Outcome.SHED]
    assert house.drain.host.engine.time() - at < 1


@pytest.mark.parametrize(("head", "is_prepared"), [(START, True), ({**START, "headers": []}, False)])
async def test_only_a_session_is_prepared_where_a_framework_looks_for_the_client(head, is_prepared):
    """Starlette listens for the client's end before the head of every stream; an answer gets no session for it."""
    received = []

    async def listen(receive):
        while not received or received[-1] != "http.disconnect":
            received.append((await receive())["type"])

    async def app(scope, receive, send):
        listener = asyncio.create_task(listen(receive))
        await settle()
        await send(head)
        await listener
        assert scope[SCOPE_KEY]._is_prepared is is_prepared

    house = House(app)
    server = house.serve()
    await asyncio.sleep(1)
    assert received == ["http.request"]
    assert house.drain.statistics().open == is_prepared
    if is_prepared:
        await house.shed()
    else:
        server.deliver({"type": "http.disconnect"})
    await server.task
    assert received == ["http.request", "http.disconnect"]


async def test_a_client_that_goes_before_the_head_leaves_no_session():
    """Its exchange is over, whatever the application sends."""

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        await send(START)
        await send(END)

    house = House(app)
    server = house.serve()
    server.deliver({"type": "http.disconnect"})
    await server.task
    assert house.drain.statistics().opened == 0
    assert len(house.drain.host.engine.answers) == 0


async def test_nothing_is_added_to_an_encoded_body():
    """Plain text in the middle of gzip would break the body."""
    house = House(bare(b"\n\n", headers=[EVENT_STREAM, (b"Content-Encoding", b"gzip")]))
    server = house.serve()
    await settle()
    await house.shed()
    assert server.sent[-1] == END
    await server.task


async def test_a_client_is_told_when_to_come_back():
    """``retry:`` is the moment planned for this one: those who obey come back evenly."""
    house = House(bare(b"data: x\n\n"), pacing="rate:1000000", sigterm=False)  # all at once
    servers = [house.serve() for _ in range(4)]
    await settle()
    await house.drain.start(window=100)
    await asyncio.sleep(0.1)
    told = sorted((server.sent[-1] for server in servers), key=lambda message: int(message["body"].split()[1]))
    moments = [int(message["body"].split()[1]) for message in told]
    assert told == [retry(moment) for moment in moments]
    assert moments == pytest.approx([5000 + 25_000 * place for place in (1, 2, 3, 4)], abs=50)


async def test_what_the_application_sends_after_the_end_is_dropped():
    """On servers before ASGI 2.4 a loop that only sends is cancelled at last, and burns no CPU until then."""
    sends = 0

    async def app(scope, receive, send):
        nonlocal sends
        await send(START)
        await asyncio.sleep(1)
        while True:
            await send(chunk(b"data: x\n\n"))
            sends += 1

    house = House(app, grace=3)
    server = house.serve()
    await settle()
    at = house.drain.host.engine.time()
    await house.drain.start(window=0)
    await server.task
    assert 3 <= house.drain.host.engine.time() - at < 3.2
    assert sends < 50
    assert [HEAD, retry(5000)] == server.sent


async def test_on_servers_that_raise_it_is_told():
    """From ASGI 2.4 on a send after the end raises an `OSError`, which is the disconnect."""
    seen = []

    async def app(scope, receive, send):
        await send(START)
        try:
            while True:
                await send(chunk(b"data: x\n\n"))
                await asyncio.sleep(1)
        except OSError as error:
            seen.append(error)
            raise

    house = House(app)
    server = house.serve(http_scope(spec="2.4"))
    await settle()
    await house.shed()
    await server.task
    assert len(seen) == 1
    assert house.outcomes() == [Outcome.SHED]


async def test_each_task_that_asks_is_told_of_the_end_once():
    """As on servers a second task that looks for the client's end finds it, though later than the first."""
    told = []

    async def app(scope, receive, send):
        async def look(after):
            await asyncio.sleep(after)
            told.append((after, await receive()))

        await receive()
        await send(START)
        async with asyncio.TaskGroup() as group:
            for after in range(3):
                group.create_task(look(after))

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert told == [(after, {"type": "http.disconnect"}) for after in range(3)]


async def test_what_follows_a_last_part_after_the_shed_is_work():
    """An application that ends its body after the shed has ended the exchange: what it does then is not cancelled."""
    saved = []

    async def app(scope, receive, send):
        await receive()
        await send(START)
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        await asyncio.sleep(60)
        saved.append(True)

    house = House(app, grace=3)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert saved == [True]
    assert house.outcomes() == [Outcome.SHED]


async def test_tasks_made_for_each_receive_take_no_cpu():
    """An application that ignores the disconnect and asks again, each time in a task of its own, is slowed down."""
    told = []

    async def app(scope, receive, send):
        await receive()
        await send(START)
        while True:
            told.append(await asyncio.ensure_future(receive()))

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    await asyncio.sleep(60)
    assert len(told) < 50
    server.task.cancel()
    with suppress(asyncio.CancelledError):
        await server.task


async def test_an_application_that_notices_nothing_is_cancelled_after_the_grace():
    """The client has its end at once; the application is cancelled, and nobody hears of it."""
    cleaned = []

    async def app(scope, receive, send):
        await send(START)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(house.drain.host.engine.time())

    house = House(app, grace=3)
    server = house.serve()
    await settle()
    at = house.drain.host.engine.time()
    await house.drain.start(window=0)
    await server.task
    assert [HEAD, retry(5000)] == server.sent
    assert 3 <= cleaned[0] - at < 3.1
    assert house.outcomes() == [Outcome.FORCED]


async def test_an_error_of_the_application_is_its_own():
    """What we did not cause passes through."""

    async def app(scope, receive, send):
        await send(START)
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ValueError("mine")

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    with pytest.raises(ValueError, match="mine"):
        await server.task


# --- Farewell, hold, lookup ---


async def test_a_farewell_is_an_event_of_its_own():
    """before_close speaks to a stream in whole events, line by line, before ``retry:``."""
    house = House(bare(b"data: x\n\n"))

    @house.drain.before_close
    async def farewell(session):
        await session.send_json({"type": "reconnect", "after_ms": session.reconnect_after_ms})
        await session.send_text("one\ntwo\r\nthree\u2028still three")

    server = house.serve()
    await settle()
    await house.shed()
    assert [
        chunk(b'data: {"type":"reconnect","after_ms":5000}\n\n'),
        chunk("data: one\ndata: two\ndata: three\u2028still three\n\n".encode()),
        retry(5000),
    ] == server.sent[2:]
    await server.task


async def test_a_farewell_does_not_speak_into_half_an_event():
    """While an event is half sent a farewell has nothing to say."""
    house = House(bare(b"data: half"))
    house.drain.before_close(lambda session: session.send_text("bye"))
    server = house.serve()
    await settle()
    await house.shed()
    assert [HEAD, chunk(b"data: half"), END] == server.sent
    await server.task


async def test_a_farewell_to_a_stream_that_has_ended_says_nothing():
    """The application may end its stream during the farewell, and the client may be gone unnoticed."""
    go = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        await go.wait()
        await send(END)

    house = House(app)

    @house.drain.before_close
    async def farewell(session):
        go.set()
        await asyncio.sleep(0.5)
        await session.send_text("too late")

    server = house.serve()
    await settle()
    await house.drain.start(window=0)
    await server.task
    assert server.sent == [HEAD, END]

    other = House(bare(b"data: x\n\n"))
    other.drain.before_close(lambda session: session.send_text("bye"))
    server = other.serve()
    await settle()
    server.refusing = OSError("the client has gone")
    await other.shed()
    await server.task
    assert other.outcomes() == [Outcome.SHED]


async def test_the_session_is_found_from_inside_the_generator():
    """session_of works with a Request, and finds the same session before its response and in it."""
    seen = []

    async def events(request):
        session = session_of(request)
        seen.append(session)
        assert session is session_of(request.scope)
        yield "data: begin\n\n"
        async with session.hold():
            seen.append(house.drain.statistics().held)
            await asyncio.sleep(10)
            yield "data: end\n\n"
        await session.wait_shed()
        seen.append("shed")

    async def endpoint(request: Request):
        assert session_of(request).is_open is False
        return StreamingResponse(events(request), media_type="text/event-stream")

    house = House(Starlette(routes=[Route("/events", endpoint)]))
    server = house.serve()
    await settle()
    await house.drain.start(window=20)
    await server.task
    assert isinstance(seen[0], EventStreamSession)
    assert seen[1] == 1
    assert chunk(b"data: end\n\n") in server.sent
    assert house.outcomes() == [Outcome.SHED]


async def test_the_session_is_found_in_a_copy_of_the_scope():
    """Frameworks and middleware copy the scope before the response starts."""
    seen = []

    async def app(scope, receive, send):
        await send(START)
        seen.append(session_of(scope))

    async def copying(scope, receive, send):
        await app(dict(scope), receive, send)

    await House(copying).serve().task
    assert isinstance(seen[0], EventStreamSession)


async def test_idle_first_sheds_the_stream_that_was_silent_for_longest():
    """Every event counts as activity; the order of arrival does not matter."""
    pulses = {name: asyncio.Event() for name in ("/a", "/b", "/c")}

    async def app(scope, receive, send):
        await send(START)
        await pulses[scope["path"]].wait()
        await send(chunk(b"data: x\n\n"))
        while (await receive())["type"] != "http.disconnect":
            pass

    house = House(app, shed_first="idle")
    for name in pulses:
        house.serve(http_scope(path=name))
    for name in ("/b", "/c", "/a"):
        await asyncio.sleep(5)
        pulses[name].set()
    await asyncio.sleep(1)
    await house.drain.start(window=30)
    await asyncio.sleep(40)
    assert [event.session.path for event in house.recording.of(SessionClosed)] == ["/b", "/c", "/a"]


async def test_nobody_looks_at_the_clock_for_other_orders():
    """Where the order is another, activity costs nothing and is not noted."""
    house = House(bare(b"data: x\n\n"))
    house.serve()
    await settle()
    (opened,) = house.recording.of(SessionOpened)
    await asyncio.sleep(5)
    assert opened.session.opened_at == opened.session.active_at


# --- Late arrivals ---


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_late_event_source_is_told_to_come_back_and_never_refused(framework, spec):
    """200 with the application's own head, ``retry:``, the end: an EventSource takes 503 and 204 for final."""
    house = House(endless(framework, []))
    house.drain.host.begin()
    await house.shed()
    server = house.serve(http_scope(spec=spec))
    await server.task

    start, *bodies = server.sent
    assert start["status"] == 200
    assert start["headers"][0][0] in (b"content-type", b"cache-control")
    assert len(bodies) == 1
    assert bodies[0]["body"].startswith(b"retry: ")
    assert 5000 <= int(bodies[0]["body"].split()[1]) <= 10_000
    assert not bodies[0]["more_body"]
    assert [(event.kind, event.path) for event in house.recording.of(SessionRefused)] == [("event-stream", "/events")]
    assert house.recording.of(SessionOpened) == []


async def test_late_event_sources_are_told_different_moments():
    """Those who are turned away together do not come back together."""
    house = House(bare())
    house.drain.host.begin()
    await house.shed()
    servers = [house.serve() for _ in range(20)]
    await settle()
    assert len({server.sent[-1]["body"] for server in servers}) > 15


async def test_a_late_generator_finds_its_session_and_that_it_was_shed():
    """An application that asks for its session is not surprised by a late arrival."""
    seen = []

    async def app(scope, receive, send):
        await send(START)
        session = session_of(scope)
        async with session.hold():
            await session.wait_shed()
        seen.append(session.reconnect_after_ms)

    house = House(app)
    house.drain.host.begin()
    await house.shed()
    await house.serve().task
    assert 5000 <= seen[0] <= 10_000


async def test_where_late_arrivals_are_accepted_a_stream_gets_a_place_in_what_remains():
    """late_arrivals="accept" opens the stream and sheds it before the deadline."""
    house = House(bare(b"data: x\n\n"), late_arrivals="accept")
    house.drain.host.begin()
    await house.drain.start(window=30)
    await asyncio.sleep(10)
    server = house.serve()
    await settle()
    assert DrainState.DRAINING is house.drain.state
    assert house.drain.statistics().open == 1
    await server.task
    assert house.drain.host.engine.time() <= 1030.1
    assert b"retry: " in server.sent[-1]["body"]


# --- Answers ---

ANSWERS = pytest.mark.parametrize(
    ("method", "accept"),
    [
        ("POST", [b"text/event-stream"]),
        ("POST", [b"application/json, text/event-stream"]),
        ("HEAD", [b"text/event-stream"]),
        ("QUERY", [b"text/event-stream"]),
        ("GET", []),
        ("GET", [b"*/*"]),
        ("GET", [b"text/*"]),
        ("GET", [b"text/event-stream;q=0, application/json"]),
        ("GET", [b"text/event-stream; Q = 0.00"]),
        ("GET", [b"text/event-streams"]),
    ],
)
ANSWER = [chunk(b"data: token\n\n"), chunk(b"data: [DONE]\n\n"), END]


async def tokens(_scope, _receive, send):
    """Answer with an event stream that takes 20 seconds."""
    await send(START)
    await send(ANSWER[0])
    await asyncio.sleep(20)
    for message in ANSWER[1:]:
        await send(message)


@ANSWERS
async def test_an_answer_is_let_finish(method, accept):
    """A client that does not ask as an EventSource does comes back for no rest: nothing is cut, and nothing added."""
    house = House(tokens, max_session_age=5)
    server = house.serve(http_scope(method, accept=accept))
    await settle()
    assert house.drain.statistics().open == 0
    assert len(house.drain.host.engine.answers) == 1
    await asyncio.sleep(10)
    await house.drain.start(window=1)
    await asyncio.sleep(5)
    assert house.drain.state is DrainState.DRAINED
    assert len(house.drain.host.engine.answers) == 1
    await server.task
    assert [START, *ANSWER] == server.sent
    assert len(house.drain.host.engine.answers) == 0
    assert house.recording.of(SessionOpened) == []


@ANSWERS
async def test_a_late_answer_is_let_finish(method, accept):
    """One that begins during the drain is not turned away either."""
    house = House(tokens)
    house.drain.host.begin()
    await house.shed()
    server = house.serve(http_scope(method, accept=accept))
    await server.task
    assert server.sent[1:] == ANSWER
    assert house.recording.of(SessionRefused) == []


@pytest.mark.parametrize(
    "accept",
    [
        [b"Text/Event-Stream"],
        [b"text/event-stream;charset=utf-8;q=0.5"],
        [b"application/json;q=0.1 ,\ttext/event-stream ; q=0.9"],
        [b"application/json", b"text/event-stream"],
    ],
)
async def test_who_accepts_event_streams_is_told_when_to_come_back(accept):
    """The header may name several types, with weights, in several lines and in any case."""
    house = House(bare(b"data: x\n\n"))
    server = house.serve(http_scope(accept=accept))
    await settle()
    assert house.drain.statistics().open == 1
    await house.shed()
    await server.task
    assert server.sent[-1] == retry(5000)


async def test_an_answer_that_is_cancelled_does_not_look_complete():
    """An answer that its server cancels is cut: its client has to see an error."""
    house = House(tokens)
    server = house.serve(http_scope("POST"))
    await settle()
    await house.drain.start(window=10)
    server.task.cancel()
    await asyncio.wait([server.task])
    assert server.sent == [START, ANSWER[0]]
    assert server.task.cancelled()


async def test_code_that_asks_for_its_session_works_in_an_answer_too():
    """Before a drain and in it: a hold has nothing to defer, and what the application says is sent."""

    async def app(scope, receive, send):
        await send(START)
        session = session_of(scope)
        async with session.hold():
            await session.send_json("token")
        await send(END)

    house = House(app)
    for _ in range(2):
        server = house.serve(http_scope("POST"))
        await server.task
        assert server.sent[1:] == [chunk(b'data: "token"\n\n'), END]
        await house.shed()


# --- Ordinary responses ---


@pytest.mark.parametrize("own", [[], [(b"connection", b"keep-alive")], [(b"Connection", b"keep-alive")]])
async def test_while_draining_a_connection_is_closed_after_its_response(own):
    """The next request shall find another task: the header is replaced, not added to, in HTTP/1."""
    plain = (b"content-length", b"5")
    house = House(bare(b"hello", headers=[plain, *own], ends=True))
    house.drain.host.begin()
    await house.shed()
    server = house.serve()
    await server.task
    assert [plain, (b"connection", b"close")] == server.sent[0]["headers"]


async def test_http_2_knows_no_such_header():
    """RFC 9113 forbids it."""
    house = House(bare(b"hello", headers=[(b"content-length", b"5")], ends=True))
    house.drain.host.begin()
    await house.shed()
    server = house.serve(http_scope(version="2"))
    await server.task
    assert server.sent[0]["headers"] == [(b"content-length", b"5")]


@pytest.mark.parametrize("kind", [EVENT_STREAM, (b"content-type", b"application/x-ndjson")])
async def test_an_answer_whose_end_only_its_last_chunk_tells_keeps_its_connection(kind):
    """With `Connection: close` Node.js would take it for complete wherever the server cuts it."""
    house = House(bare(b"{}", headers=[kind], ends=True))
    house.drain.host.begin()
    await house.shed()
    server = house.serve(http_scope("POST"))
    await server.task
    assert server.sent[0]["headers"] == [kind]


async def test_a_cancelled_drain_leaves_connections_alone_again():
    """Once the process serves again, responses pass untouched."""
    house = House(bare(b"data: x\n\n"))
    house.drain.host.begin()
    await house.drain.start(window=30)
    await house.drain.cancel()
    server = house.serve(http_scope("POST"))
    await settle()
    assert server.sent[0] == START
    server.task.cancel()


async def test_an_answer_may_finish_however_long_it_takes():
    """A download goes on through the drain and beyond its deadline."""
    ended = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"video/mp4")]})
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(house.drain.host.engine.time())

    house = House(app)
    server = house.serve()
    await settle()
    at = house.drain.host.engine.time()
    await house.drain.start(window=30)
    assert len(house.drain.host.engine.answers) == 1
    await asyncio.wait([server.task])
    assert server.task.exception() is None
    assert ended[0] - at == pytest.approx(100, abs=0.1)
    assert len(house.drain.host.engine.answers) == 0
    assert len(server.sent) == 1


# --- Declarations ---

NDJSON = (b"content-type", b"application/x-ndjson")
CLOSE = (b"connection", b"close")


def declaring(how, kind="session", end="clean", *, headers=(NDJSON,), chunks=(b"{}\n",)):
    """Make an application that declares its response inside *how*, and then waits for its client to go."""

    async def app(scope, receive, send):
        if how == "call":
            session_of(scope).declare(kind, end=end)
        own = [(b"Starlette-Drain", f"{kind}; end={end}".encode())] if how == "header" else []
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, *own]})
        for each in chunks:
            await send(chunk(each))
        while (await receive())["type"] != "http.disconnect":
            pass

    return app


WAYS = pytest.mark.parametrize("how", ["call", "header", "option"])


def options(how, word):
    """Return the options of a house in which *word* is declared so."""
    return {"streams": {"/events": word}} if how == "option" else {}


@WAYS
@pytest.mark.parametrize("end", ["clean", "cut"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_declared_a_session_is_asked_to_leave(how, end, method):
    """By path, by a call or by a header that no client sees; it ends as declared, and nothing is added to it."""
    house = House(declaring(how, end=end), **options(how, f"session:{end}"))
    server = house.serve(http_scope(method, accept=()))
    await settle()
    assert house.drain.statistics().open == 1
    assert len(house.drain.host.engine.answers) == 0
    await house.shed()
    await server.task
    head = {"type": "http.response.start", "status": 200, "headers": [NDJSON, *([CLOSE] if end == "clean" else [])]}
    assert [head, chunk(b"{}\n"), *([END] if end == "clean" else [])] == server.sent
    assert house.outcomes() == [Outcome.SHED]
    assert [event.session.kind for event in house.recording.of(SessionOpened)] == ["stream"]


@WAYS
async def test_what_is_declared_an_answer_is_let_finish(how, caplog):
    """A job queue by GET with an EventSource: nothing is cut or added, and no line is needed."""
    house = House(declaring(how, "answer", headers=[EVENT_STREAM]), **options(how, "answer"))
    server = house.serve()
    await settle()
    await house.shed()
    await asyncio.sleep(60)
    assert not server.task.done()
    assert [START, chunk(b"{}\n")] == server.sent
    server.deliver({"type": "http.disconnect"})
    await server.task
    assert house.outcomes() == []
    assert caplog.messages == []


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_cut_tells_an_event_source_when_to_come_back(version):
    """The body has its `retry:` and no end; over HTTP/2, where servers differ, its end is clean."""
    house = House(bare(b"data: x\n\n"), streams="/events=session:cut")
    server = house.serve(http_scope(version=version))
    await settle()
    await house.shed()
    await server.task
    assert server.sent[-1] == chunk(b"retry: 5000\n", more=version == "1.1")


@pytest.mark.parametrize(
    ("how", "headers"), [("call", [NDJSON, (b"content-length", b"9")]), ("option", [(b"content-length", b"9")])]
)
async def test_what_has_a_length_is_no_session_whatever_is_declared(how, headers):
    """It could not be ended early."""
    house = House(declaring(how, headers=headers), **options(how, "session"))
    server = house.serve(http_scope(accept=()))
    await settle()
    assert house.drain.statistics().open == 0
    await house.shed()
    assert len(server.sent) == 2
    server.task.cancel()


async def test_a_head_request_is_no_session():
    """Its response has no body."""
    house = House(declaring("option"), streams={"/events": "session"})
    server = house.serve(http_scope("HEAD"))
    await settle()
    assert house.drain.statistics().open == 0
    server.task.cancel()


async def test_an_event_stream_may_say_what_it_is_while_it_runs():
    """An answer becomes a session, and a session an answer; both count as what they are."""
    house = House(bare(b"data: x\n\n"))
    server = house.serve(http_scope("POST"))
    await settle()
    session = session_of(server.scope)
    counts = []
    for kind in ("session", "session", "answer", "answer", "session"):
        session.declare(kind)
        counts.append((house.drain.statistics().open, len(house.drain.host.engine.answers)))
    assert counts == [(1, 0), (1, 0), (0, 1), (0, 1), (1, 0)]
    await house.shed()
    await server.task
    assert server.sent == [START, chunk(b"data: x\n\n"), END]
    assert len(house.drain.host.engine.answers) == house.drain.statistics().open == 0


async def test_a_declaration_that_cannot_be_is_an_error():
    """At the call, which names what can."""

    async def app(scope, receive, send):
        with pytest.raises(SettingsError, match="use 'session' or 'answer'"):
            session_of(scope).declare("stream")

    await House(app).serve().task


async def test_a_header_that_declares_nothing_is_told_and_stripped(caplog):
    """The response is what it would be without it."""
    house = House(declaring("header", "stream"))
    server = house.serve(http_scope(accept=()))
    await settle()
    assert server.sent[0]["headers"] == [NDJSON]
    assert house.drain.statistics().open == 0
    (line,) = caplog.messages
    assert "starlette-drain: stream; end=clean on /events is invalid" in line
    caplog.clear()
    server.task.cancel()


async def test_a_late_session_that_is_no_event_stream_is_answered_with_503():
    """Its client is told when to come back; the application's other headers stay, for browsers ask for some."""
    cors = (b"access-control-allow-origin", b"*")
    house = House(declaring("option", headers=[NDJSON, cors]), streams={"/events": "session"})
    house.drain.host.begin()
    await house.shed()
    server = house.serve(http_scope(accept=()))
    await server.task
    head, body = server.sent
    assert head["status"] == 503
    assert [*head["headers"][:2], head["headers"][-1]] == [cors, (b"content-length", b"0"), CLOSE]
    assert 5 <= int(dict(head["headers"])[b"retry-after"]) <= 10
    assert body == END
    assert [event.kind for event in house.recording.of(SessionRefused)] == ["stream"]


async def test_event_streams_that_are_answers_are_told_when_a_drain_begins(caplog):
    """Once for the drain, with their number and path: their clients may come back by themselves, or may not."""
    house = House(bare(b"data: x\n\n"))
    servers = [house.serve(http_scope(accept=[b"*/*"])) for _ in range(3)]
    await settle()
    await house.shed()
    house.serve(http_scope(accept=[b"*/*"]))
    await house.drain.start(window=1)
    (line,) = caplog.messages
    assert line.startswith(f"{STREAMS} and are not asked to leave: 3, most of them on /events.")
    assert 'streams={"/events": "session"}' in line
    for server in servers:
        server.deliver({"type": "http.disconnect"})


# --- A session lives as long as its connection ---


@pytest.mark.parametrize("ending", ["body", "pathsend", "disconnect", "OSError"])
async def test_what_comes_after_the_connection_is_work(ending):
    """Whichever side has ended it, the session has left; its application is neither asked to leave nor cancelled."""
    done = []

    async def app(scope, receive, send):
        await send(START)
        await receive()
        if ending == "body":
            await send(END)
        elif ending == "pathsend":
            await send({"type": "http.response.pathsend", "path": "/tmp/file"})
        elif ending == "disconnect":
            await receive()
        else:
            server.refusing = OSError("gone")
            with pytest.raises(OSError, match="gone"):
                await send(chunk(b"data: x\n\n"))
        await asyncio.sleep(60)
        done.append(session_of(scope).is_held)

    house = House(app, grace=3, max_session_age=5)
    server = house.serve()
    await settle()
    if ending == "disconnect":
        server.deliver({"type": "http.disconnect"})
    await settle()
    assert house.drain.statistics().open == 0
    assert house.outcomes() == [Outcome.LEFT]
    await house.drain.start(window=1)
    await server.task
    assert done == [False]
    assert house.drain.report.shed == house.drain.report.forced == 0


async def test_a_last_part_that_the_client_does_not_take_is_not_cut():
    """The application has ended its body: what is left of it is not ours to cancel."""

    async def app(scope, receive, send):
        await send(START)
        await receive()
        await send(END)

    house = House(app, grace=3)
    server = house.serve()
    server.blocked = lambda message: message == END
    await settle()
    assert house.drain.statistics().open == 0
    await house.shed()
    await asyncio.sleep(60)
    assert not server.task.done()
    server.task.cancel()


# --- session_of works everywhere ---


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("moment", ["before", "in"])
async def test_every_request_has_something_that_can_be_held(method, moment):
    """Before its response, in an ordinary one, after it, and after the end: it works, and does nothing."""
    seen = []

    async def use(scope):
        session = session_of(scope)
        seen.append((session.is_open, session.reconnect_after_ms))
        async with session.hold():
            await session.send_text("nothing")
            await session.send_json("nothing")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.wait_shed(), 0.1)

    async def app(scope, receive, send):
        await use(scope)
        await PlainTextResponse("hello")(scope, receive, send)
        await use(scope)

    house = House(app)
    house.drain.host.begin()
    if moment == "in":
        await house.shed()
    server = house.serve(http_scope(method))
    await server.task
    await use(server.scope)
    assert seen == [(False, 5000)] * 3
    assert [each["type"] for each in server.sent] == ["http.response.start", "http.response.body"]


async def test_a_hold_from_before_the_response_counts_once_it_is_a_session():
    """An update that began in the endpoint goes on in the stream."""
    release = asyncio.Event()

    async def app(scope, receive, send):
        async with session_of(scope).hold():
            await send(START)
            await release.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    house = House(app)
    server = house.serve()
    await settle()
    assert house.drain.statistics().held == 1
    await house.drain.start(window=60)
    await asyncio.sleep(30)
    assert len(server.sent) == 1
    release.set()
    await server.task
    assert house.outcomes() == [Outcome.SHED]


async def test_without_the_middleware_there_is_no_session():
    """That is an error in the installation, and is told."""
    with pytest.raises(NotTracked, match="add DrainMiddleware"):
        session_of(http_scope())


# --- Nothing spins ---


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@pytest.mark.parametrize("what", ["send", "receive", "send_text", "wait_shed"])
async def test_a_loop_that_ignores_the_end_lets_others_run(what, spec):
    """Whatever an application calls again and again after the end, it takes few steps, and is cancelled at last."""
    steps = 0

    async def app(scope, receive, send):
        nonlocal steps
        await send(START)
        session = session_of(scope)
        await session.wait_shed()
        await asyncio.sleep(0.1)
        while True:
            steps += 1
            with suppress(OSError):
                await {
                    "send": lambda: send(chunk(b"data: x\n\n")),
                    "receive": receive,
                    "send_text": lambda: session.send_text("x"),
                    "wait_shed": session.wait_shed,
                }[what]()
            if what in ("send_text", "wait_shed"):
                await asyncio.sleep(0.1)  # they only have to suspend

    house = House(app, grace=3)
    server = house.serve(http_scope(spec=spec))
    await settle()
    at = house.drain.host.engine.time()
    await house.drain.start(window=0)
    await asyncio.wait([server.task], timeout=60)
    assert server.task.done()
    assert house.drain.host.engine.time() - at < 10
    assert steps < 100
