"""When a drain watches: from after the application's startup until before its shutdown, whatever the server does."""

import asyncio
import logging
import threading
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from starlette_drain import Drain, DrainMiddleware, DrainState, session_of
from starlette_drain.triggers.manual import ManualTrigger

STARTUP = {"type": "lifespan.startup"}
STARTED = {"type": "lifespan.startup.complete"}
SHUTDOWN = {"type": "lifespan.shutdown"}
STOPPED = {"type": "lifespan.shutdown.complete"}


class WatchingTrigger:
    """Keeps a log of when it is watched."""

    name = "watching"

    def __init__(self, log) -> None:
        self._log = log

    async def watch(self, _control) -> None:
        """Note the beginning and the end."""
        self._log.append("watching")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._log.append("not watching")

    def status(self, _now):
        """Tell nothing."""
        return {}


class HandLifespan:
    """Plays the server of one lifespan; every message in both directions goes to a log."""

    def __init__(self, app, log, *, state=None) -> None:
        self.scope = {"type": "lifespan"} if state is None else {"type": "lifespan", "state": state}
        self.log = log
        self._inbox = asyncio.Queue()
        self.task = asyncio.create_task(app(self.scope, self._inbox.get, self._send))

    async def _send(self, message) -> None:
        self.log.append(message["type"])

    async def say(self, message) -> None:
        """Send a message and let everything happen."""
        self._inbox.put_nowait(message)
        await asyncio.sleep(1)


@pytest.fixture
def log():
    """Return a list to note things in."""
    return []


def drain_with(*triggers, **options) -> Drain:
    """Return a drain that tells nobody."""
    return Drain(triggers=triggers, observers=[], **options)


def ordinary(log):
    """Return a bare application with an ordinary lifespan."""

    async def app(scope, receive, send):
        assert (await receive()) == STARTUP
        log.append("starting")
        await asyncio.sleep(10)
        await send(STARTED)
        assert (await receive()) == SHUTDOWN
        log.append("stopping")
        await send(STOPPED)

    return app


# --- By hand ---


@pytest.mark.anyio
async def test_watching_begins_after_the_startup_and_ends_before_the_shutdown(log):
    """The application's own startup is complete before anybody watches, and nobody watches during its shutdown."""
    drain = drain_with(WatchingTrigger(log))
    server = HandLifespan(DrainMiddleware(ordinary(log), drain=drain), log)
    await server.say(STARTUP)
    assert log == ["starting"]
    await asyncio.sleep(10)
    assert log == ["starting", "lifespan.startup.complete", "watching"]
    await server.say(SHUTDOWN)
    await server.task

    assert log[3:] == ["not watching", "stopping", "lifespan.shutdown.complete"]
    assert not drain.host.is_running


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["at once", "in startup", "failed", "running", "in shutdown"])
async def test_an_application_that_raises_on_lifespan_raises_as_ever(log, when):
    """Whatever point an application raises at, the server gets that exception, and nobody watches any more."""

    async def app(scope, receive, send):
        if when == "at once":
            assert scope["type"] == "http", "no lifespan here"
        await receive()
        if when == "in startup":
            raise ZeroDivisionError
        if when == "failed":
            await send({"type": "lifespan.startup.failed", "message": "no"})
            raise ZeroDivisionError
        await send(STARTED)
        await asyncio.sleep(0.5)
        if when == "running":
            raise ZeroDivisionError
        await receive()
        raise ZeroDivisionError

    drain = drain_with(WatchingTrigger(log))
    server = HandLifespan(DrainMiddleware(app, drain=drain), log)
    await server.say(STARTUP)
    await server.say(SHUTDOWN)
    with pytest.raises(AssertionError if when == "at once" else ZeroDivisionError):
        await server.task

    assert not drain.host.is_running
    assert log.count("watching") == log.count("not watching") == (when in ("running", "in shutdown"))


@pytest.mark.anyio
async def test_an_application_that_never_completes_its_startup_is_never_watched(log):
    """Nobody watches while the application still starts, however long that takes."""

    async def app(scope, receive, send):
        await receive()
        await asyncio.get_running_loop().create_future()

    drain = drain_with(WatchingTrigger(log))
    server = HandLifespan(DrainMiddleware(app, drain=drain), log)
    await server.say(STARTUP)
    await asyncio.sleep(10_000)
    assert log == []
    server.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.task
    assert not drain.host.is_running


@pytest.mark.anyio
@pytest.mark.parametrize("state", [None, {}, {"mine": 1}, {"drain": "mine"}])
async def test_the_lifespan_state_is_the_applications_own(log, state):
    """What the application finds and leaves there is untouched; without a state in the scope none is made."""
    before = None if state is None else dict(state)
    server = HandLifespan(DrainMiddleware(ordinary(log), drain=drain_with()), log, state=state)
    await server.say(STARTUP)

    assert server.scope.get("state") == before
    server.task.cancel()


@pytest.mark.anyio
async def test_a_drain_under_way_ends_with_the_lifespan(log):
    """A shutdown in the middle of a drain ends it with a report."""
    drain = drain_with()
    middleware = DrainMiddleware(ordinary(log), drain=drain)
    server = HandLifespan(middleware, log)
    await server.say(STARTUP)
    await asyncio.sleep(10)
    await drain.start(window=100)
    await server.say(SHUTDOWN)
    await server.task

    assert drain.state is DrainState.DRAINED
    assert drain.report is not None


@pytest.mark.anyio
async def test_an_application_may_start_and_wait_from_its_own_startup(log):
    """In its startup an application may already wait for the end of a drain, and even start one."""
    drain = drain_with()

    async def app(scope, receive, send):
        await receive()
        waiting = asyncio.create_task(drain.wait_drained())
        await asyncio.sleep(0)
        await send(STARTED)
        log.append(await waiting)
        await receive()
        await send(STOPPED)

    server = HandLifespan(DrainMiddleware(app, drain=drain), log)
    await server.say(STARTUP)
    await drain.start()
    await server.say(SHUTDOWN)
    await asyncio.wait_for(server.task, 1)

    assert log == ["lifespan.startup.complete", True, "lifespan.shutdown.complete"]


@pytest.mark.anyio
async def test_a_drain_started_in_the_startup_is_ended_by_the_lifespan(log):
    """An application that starts a drain in its own startup leaves the end to the middleware."""
    drain = drain_with(WatchingTrigger(log))

    async def app(scope, receive, send):
        await receive()
        await drain.start()
        await send(STARTED)
        await receive()
        await send(STOPPED)

    server = HandLifespan(DrainMiddleware(app, drain=drain), log)
    await server.say(STARTUP)
    assert drain.state is DrainState.DRAINED
    await server.say(SHUTDOWN)
    await server.task
    assert not drain.host.is_running
    assert log[-2:] == ["not watching", "lifespan.shutdown.complete"]


@pytest.mark.anyio
async def test_run_inside_the_applications_lifespan_does_not_disturb(log):
    """`drain.run()` around an application that also has the middleware's lifespan changes nothing."""
    drain = drain_with(WatchingTrigger(log))

    async def app(scope, receive, send):
        await receive()
        async with drain.run():
            await send(STARTED)
            await receive()
        await send(STOPPED)

    server = HandLifespan(DrainMiddleware(app, drain=drain), log)
    await server.say(STARTUP)
    await server.say(SHUTDOWN)
    await server.task
    assert log == ["lifespan.startup.complete", "watching", "not watching", "lifespan.shutdown.complete"]


@pytest.mark.anyio
async def test_two_applications_with_one_drain_on_one_loop(log):
    """The second lifespan leaves the drain to the first: its end is not the drain's."""
    drain = drain_with(WatchingTrigger(log))
    first = HandLifespan(DrainMiddleware(ordinary([]), drain=drain), [])
    await first.say(STARTUP)
    second = HandLifespan(DrainMiddleware(ordinary([]), drain=drain), [])
    await second.say(STARTUP)
    await asyncio.sleep(20)
    await second.say(SHUTDOWN)
    await second.task
    assert drain.host.is_running
    assert log == ["watching"]
    await first.say(SHUTDOWN)
    await first.task
    assert log == ["watching", "not watching"]


@pytest.mark.anyio
async def test_two_applications_in_one_process_have_two_drains(log):
    """Each application drains on its own."""
    drains = [drain_with(), drain_with()]
    servers = [HandLifespan(DrainMiddleware(ordinary([]), drain=drain), []) for drain in drains]
    for server in servers:
        await server.say(STARTUP)
    await asyncio.sleep(20)
    await drains[0].start()
    assert [drain.state for drain in drains] == [DrainState.DRAINED, DrainState.SERVING]
    for server in servers:
        await server.say(SHUTDOWN)
        await server.task


@pytest.mark.anyio
async def test_without_a_lifespan_the_first_connection_begins(log):
    """Where a server knows no lifespan (`--lifespan off`) watching begins with the first request."""
    drain = drain_with(WatchingTrigger(log))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        pass

    middleware = DrainMiddleware(app, drain=drain)
    assert not drain.host.is_running
    for _ in range(2):
        await middleware({"type": "http", "path": "/", "headers": []}, asyncio.Queue().get, send)
        await asyncio.sleep(1)
    assert drain.host.is_running
    assert log == ["watching"]
    await drain.host.end()


@pytest.mark.anyio
@pytest.mark.parametrize("says", [None, "lifespan.startup.complete"])
async def test_an_application_without_a_lifespan_is_watched_from_its_first_connection(log, says):
    """It raises when it is asked for one, as the specification has it, or later; servers go on and serve it."""
    drain = drain_with(WatchingTrigger(log))

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            if says:
                await send({"type": says})
                await asyncio.sleep(1)
            raise RuntimeError(scope["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        pass

    middleware = DrainMiddleware(app, drain=drain)
    server = HandLifespan(middleware, log)
    with pytest.raises(RuntimeError, match="lifespan"):
        await server.task
    log.clear()
    await middleware({"type": "http", "path": "/", "headers": []}, asyncio.Queue().get, send)
    await asyncio.sleep(1)
    assert log == ["watching"]
    await drain.host.end()


@pytest.mark.anyio
async def test_run_alone_watches_without_the_lifespan(log):
    """`drain.run()` is enough where the middleware never sees a lifespan, and its connections are tracked."""
    drain = drain_with(WatchingTrigger(log))
    async with drain.run():
        await asyncio.sleep(1)
        assert log == ["watching"]
    assert log == ["watching", "not watching"]


# --- Frameworks and TestClient: real threads and loops ---


async def ws(websocket: WebSocket):
    """Echo one message; tell whether the session is tracked."""
    await websocket.accept()
    session_of(websocket)
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def make_starlette(drain, **more) -> Starlette:
    """Return a Starlette application."""

    async def state(request):
        return PlainTextResponse(str(request.app.state.drain.state.value))

    routes = [Route("/", lambda _: PlainTextResponse("hello")), Route("/state", state), WebSocketRoute("/ws", ws)]
    return Starlette(routes=routes, middleware=[Middleware(DrainMiddleware, drain=drain)], **more)


def make_fastapi(drain, **more) -> FastAPI:
    """Return a FastAPI application, the middleware added afterwards."""
    app = FastAPI(**more)

    @app.get("/")
    def hello():
        return PlainTextResponse("hello")

    @app.get("/state")
    def state(request: Request):
        return PlainTextResponse(str(request.app.state.drain.state.value))

    app.add_api_websocket_route("/ws", ws)
    app.add_middleware(DrainMiddleware, drain=drain)
    return app


@pytest.fixture(params=[make_starlette, make_fastapi])
def make(request):
    """Return a maker of applications."""
    return request.param


def test_a_module_level_drain_serves_many_test_clients(make):
    """One Drain, several TestClients one after the other, each with a loop of its own: each a new life."""
    drain = drain_with(manual := ManualTrigger())
    app = make(drain)
    for _ in range(3):
        with TestClient(app) as client:
            assert client.get("/").text == "hello"
            assert client.get("/state").text == "serving"
            with client.websocket_connect("/ws") as websocket:
                websocket.send_text("a")
                assert websocket.receive_text() == "a"
                assert drain.statistics().open == 1
            client.portal.call(manual.fire)
            assert client.get("/state").text == "drained"
            with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/ws"):
                pass
            assert caught.value.status_code == 503
        assert not drain.host.is_running


def test_a_test_client_without_a_lifespan_works(make):
    """TestClient without `with` runs no lifespan and takes a new loop for each call: everything still works."""
    drain = drain_with()
    client = TestClient(make(drain))
    for _ in range(2):
        assert client.get("/").text == "hello"
        with client.websocket_connect("/ws") as websocket:
            websocket.send_text("a")
            assert websocket.receive_text() == "a"
            assert drain.statistics().open == 1


def test_a_client_of_the_test_client_gets_the_close(make):
    """Under TestClient too a drain closes with code and reason."""
    drain = drain_with()
    with TestClient(make(drain)) as client, client.websocket_connect("/ws") as websocket:

        async def start():
            await drain.start(window=0)

        client.portal.call(start)
        with pytest.raises(WebSocketDisconnect) as caught:
            websocket.receive_text()
        assert (caught.value.code, caught.value.reason) == (1012, "server draining")


def test_the_applications_own_lifespan_and_state_are_its_own(make):
    """The application's lifespan runs as ever, and what it keeps as `app.state.drain` stays."""
    log = []

    @asynccontextmanager
    async def lifespan(app):
        log.append("up")
        app.state.drain = Drain(triggers=[], observers=[])
        yield {"mine": 1}
        log.append("down")

    ours = drain_with()
    app = make(ours, lifespan=lifespan)
    with TestClient(app) as client:
        client.portal.call(ours.start)
        assert ours.state is DrainState.DRAINED
        assert client.get("/state").text == "serving", "that is the application's own"
    assert log == ["up", "down"]


@pytest.mark.parametrize("begun", ["by a lifespan", "by a connection"])
def test_one_drain_on_two_loops_degrades(make, caplog, begun):
    """A Drain shared by two loops works on the first; on the other connections pass through, with one warning."""
    drain = drain_with()
    with TestClient(make(drain)) as first, first.websocket_connect("/ws"):
        second_app = Starlette(
            routes=[WebSocketRoute("/ws", untracked), Route("/", lambda _: PlainTextResponse("hello"))],
            middleware=[Middleware(DrainMiddleware, drain=drain)],
        )
        client = TestClient(second_app)
        if begun == "by a lifespan":
            with client:
                use(client)
        else:
            use(client)
        assert drain.statistics().open == 1
        assert drain.host.is_running is False, "not on this thread"
        assert first.get("/state").text == "serving", "the first one goes on"
    texts = [record.getMessage() for record in caplog.records if record.name == "starlette_drain"]
    assert len(texts) == (2 if begun == "by a lifespan" else 1)
    assert all("another event loop" in text for text in texts)


async def untracked(websocket):
    """Say something without being tracked."""
    await websocket.accept()
    async with session_of(websocket).hold():
        await session_of(websocket).send_text("nothing")
    await websocket.send_text("hello")
    await websocket.close()


def use(client):
    """Use everything twice."""
    for _ in range(2):
        assert client.get("/").text == "hello"
        with client.websocket_connect("/ws") as websocket:
            assert websocket.receive_text() == "hello"


@pytest.mark.parametrize("with_lifespan", [True, False])
def test_under_trio_everything_passes_through(make, caplog, with_lifespan):
    """A Drain runs on asyncio only; on trio the application works as without it, and one warning says so."""
    pytest.importorskip("trio")
    app = make(drain_with())
    client = TestClient(app, backend="trio")
    if with_lifespan:
        with client:
            assert client.get("/").text == "hello"
    assert client.get("/").text == "hello"
    assert "trio" in caplog.text


def test_a_mounted_application_never_sees_the_lifespan_and_still_works():
    """In a mounted application the drain begins with the first connection."""
    drain = drain_with()
    inner = make_starlette(drain)
    with TestClient(Starlette(routes=[Mount("/inner", inner)])) as client:
        assert client.get("/inner/").text == "hello"
        with client.websocket_connect("/inner/ws") as websocket:
            websocket.send_text("a")
            assert websocket.receive_text() == "a"
            assert drain.statistics().open == 1


def test_the_test_clients_loop_is_not_in_the_main_thread():
    """What the other tests rely on: TestClient is where signal handlers cannot be installed."""
    threads = []

    async def where(request):
        threads.append(threading.current_thread())
        return PlainTextResponse()

    TestClient(Starlette(routes=[Route("/", where)])).get("/")
    assert threads[0] is not threading.main_thread()


def test_the_zero_code_form_needs_nothing_else(monkeypatch, caplog):
    """One line and no argument: it works off ECS, too, with and without the lifespan, over several clients."""
    for name in ("ECS_CONTAINER_METADATA_URI_V4", "DRAIN_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    app = Starlette(routes=[WebSocketRoute("/ws", ws)], middleware=[Middleware(DrainMiddleware)])
    for _ in range(2):
        with TestClient(app) as client, client.websocket_connect("/ws") as websocket:
            websocket.send_text("a")
            assert websocket.receive_text() == "a"
    with TestClient(app).websocket_connect("/ws") as websocket:
        websocket.send_text("a")
        assert websocket.receive_text() == "a"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.anyio
async def test_a_startup_that_fails_raises_in_the_same_step():
    """The server hears of the failure and of the exception in one step, as it would without us: none comes late."""
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message["type"])

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        msg = "no database"
        raise RuntimeError(msg)

    serving = DrainMiddleware(app, drain=Drain())({"type": "lifespan", "state": {}}, receive, send)
    with pytest.raises(RuntimeError, match="no database"):
        serving.send(None)  # to the first suspension, if there is one
    assert sent == ["lifespan.startup.failed"]
