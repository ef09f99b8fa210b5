"""A session lives as long as its connection: what the application does afterwards is work, which nobody cancels."""

import asyncio
import logging
from contextlib import suppress
from contextvars import Context
from random import Random

import pytest
from hand_server import ACCEPT, CLOSE, CONNECT, GONE, SHED, HandServer, settle, text, websocket_scope
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from starlette_drain import Drain, DrainMiddleware, DrainState, session_of
from starlette_drain._core.events import SessionClosed
from starlette_drain._core.session import Outcome
from starlette_drain._core.turnover import Rotation
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio

TICK = {"type": "websocket.send", "text": "tick"}


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Nothing here is worth a warning."""
    caplog.set_level(logging.WARNING, "starlette_drain")
    yield caplog
    assert [record.getMessage() for record in caplog.get_records("call")] == []


class House:
    """An application in a DrainMiddleware."""

    def __init__(self, app, **options) -> None:
        self.recording = RecordingObserver()
        self.drain = Drain(triggers=[], observers=[self.recording], rng=Random(7), **options)
        self.app = DrainMiddleware(app, drain=self.drain)

    def serve(self, scope=None) -> HandServer:
        """Serve one WebSocket."""
        return HandServer(self.app, scope)

    async def shed(self) -> None:
        """Ask all to leave at once."""
        await self.drain.start(window=0)
        await asyncio.sleep(0.001)
        await settle()

    def counts(self):
        """Return how many sessions are open, and how many applications work."""
        statistics = self.drain.statistics()
        return statistics.open, statistics.working

    def outcomes(self):
        """Return how the sessions ended."""
        return [event.outcome for event in self.recording.of(SessionClosed)]


def now():
    """Return the time."""
    return asyncio.get_running_loop().time()


class Notes(list):
    """What an application has saved, and what kept it from that."""

    async def save(self, seconds=60):
        """Save for a while."""
        try:
            await asyncio.sleep(seconds)
            self.append("saved")
        except BaseException as error:
            self.append(type(error))
            raise


# --- Who ends a connection ---


async def closed_by_the_app(receive, send, notes):
    """Close, and save."""
    await receive()
    await send(ACCEPT)
    await send({"type": "websocket.close", "code": 1000})
    await notes.save()


async def denied_by_a_close(receive, send, notes):
    """Refuse the handshake, and save."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})
    await notes.save()


async def denied_with_a_response(receive, send, notes):
    """Answer the handshake, and save."""
    await receive()
    await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})
    await notes.save()


async def left_by_the_client(receive, send, notes):
    """Save when the client has gone."""
    await receive()
    await send(ACCEPT)
    try:
        assert (await receive()) == GONE
    finally:
        await notes.save()


@pytest.mark.parametrize(
    "app",
    [closed_by_the_app, denied_by_a_close, denied_with_a_response, left_by_the_client],
    ids=lambda app: app.__name__,
)
async def test_what_follows_the_end_is_work_that_no_drain_touches(app):
    """Whichever side has ended the connection: no session any more, not shed, not cancelled, and counted as work."""
    notes = Notes()

    async def wrapped(scope, receive, send):
        await app(receive, send, notes)

    house = House(wrapped, grace=1)
    house.drain.before_close(lambda _: pytest.fail("nobody is there to hear it"))
    server = house.serve()
    if app is left_by_the_client:
        server.deliver(GONE)
    await settle()
    assert house.counts() == (0, 1)
    sent = list(server.sent)
    await house.shed()
    assert house.drain.state is DrainState.DRAINED
    assert house.counts() == (0, 1)
    await server.task

    assert notes == ["saved"]
    assert server.sent == sent
    assert house.counts() == (0, 0)
    report = house.drain.report
    assert (report.sessions_at_start, report.shed, report.forced, report.still_open) == (0, 0, 0, 0)


async def test_an_application_that_closes_during_the_close_hooks_is_not_disturbed():
    """Where the application closes while a close hook runs, there is nothing to disconnect, and its work goes on."""
    notes = Notes()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        await notes.save()

    house = House(app, grace=1)

    @house.drain.before_close
    async def hook(session):
        await session.send_text("bye")
        await asyncio.sleep(1)

    server = house.serve()
    await settle()
    await house.shed()
    server.deliver(text("bye"))
    await asyncio.sleep(2)
    assert house.counts() == (0, 1)
    await server.task

    assert notes == ["saved"]
    assert server.sent[2:] == [{"type": "websocket.close", "code": 1000}]
    assert house.outcomes() == [Outcome.SHED]


async def by_receiving(receive, send):
    """Notice the disconnect in a receive."""
    assert await receive() == SHED


async def by_sending(receive, send):
    """Notice it in a send."""
    with suppress(WebSocketDisconnect):
        while True:
            await send(TICK)
            await asyncio.sleep(0.5)


async def by_a_child(receive, send):
    """Leave receiving to a task, which goes on to listen."""
    gone = asyncio.Event()

    async def listen():
        while True:
            if (await receive())["type"] == "websocket.disconnect":
                gone.set()

    asyncio.get_running_loop().listening = asyncio.create_task(listen())
    await gone.wait()


async def by_closing(receive, send):
    """Close, not knowing that we have."""
    await asyncio.sleep(0.5)
    await send({"type": "websocket.close", "code": 1000})


@pytest.mark.parametrize("notice", [by_receiving, by_sending, by_a_child, by_closing], ids=lambda each: each.__name__)
@pytest.mark.parametrize("how", ["drain", "rotation"])
async def test_an_application_that_has_noticed_our_close_may_take_its_time(notice, how):
    """After our close too: what an application does that knows of the end is never cancelled, also in a rotation."""
    notes = Notes()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            await notice(receive, send)
        finally:
            await notes.save()

    house = House(app, grace=2)
    server = house.serve()
    await settle()
    if how == "drain":
        await house.shed()
    else:
        engine = house.drain.host.engine
        engine.rotate(Rotation(engine.time(), window=0.001))
    await asyncio.sleep(3)
    assert house.counts() == (0, 1)
    assert house.outcomes() == [Outcome.SHED]
    await server.task
    if listening := getattr(asyncio.get_running_loop(), "listening", None):
        listening.cancel()

    assert notes == ["saved"]
    assert [message for message in server.sent if message["type"] == "websocket.close"] == [CLOSE]
    assert house.counts() == (0, 0)


async def test_the_finally_of_a_starlette_endpoint_may_take_its_time():
    """The ordinary endpoint: a loop over messages with a clean-up that takes longer than the grace."""
    notes = Notes()

    async def endpoint(websocket):
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        finally:
            await notes.save()

    house = House(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), grace=1)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert notes == ["saved"]


async def test_a_drain_ends_when_its_connections_have_ended():
    """The end of a drain waits for connections, and not for work."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        await asyncio.sleep(1000)

    house = House(app)
    servers = [house.serve() for _ in range(10)]
    await settle()
    began = now()
    await house.drain.start(window=10)
    assert await house.drain.wait_drained()
    assert now() - began <= 10
    assert house.drain.report.outcome == "drained"
    assert house.counts() == (0, 10)
    await asyncio.gather(*(server.task for server in servers))


async def test_the_clean_up_of_a_cancelled_application_is_work():
    """An application that had to be cancelled is closed then; what it saves on its way out is work."""
    notes = Notes()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await notes.save()

    house = House(app, grace=1)
    server = house.serve()
    await settle()
    await house.shed()
    assert house.counts() == (1, 0)
    await asyncio.sleep(2)
    assert house.counts() == (0, 1)
    assert house.outcomes() == [Outcome.FORCED]
    await server.task
    assert notes == ["saved"]
    assert house.drain.report.forced == 1


async def test_work_for_a_client_that_has_gone_unnoticed_is_not_cancelled():
    """Where the close meets a client that had gone, the application works on, and learns of its client's own end."""
    notes = Notes()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await notes.save()
        notes.append(await receive())
        with suppress(OSError):
            await send(TICK)
        raise TimeoutError

    house = House(app, grace=1)
    server = house.serve()
    await settle()
    server.refusing = ConnectionResetError("the client has gone")
    server.deliver(GONE)
    await house.shed()
    assert house.counts() == (0, 1)
    with pytest.raises(TimeoutError):
        await server.task
    assert notes == ["saved", GONE]
    assert house.outcomes() == [Outcome.SHED]


async def test_a_handshake_whose_client_has_gone_unnoticed_still_hears_connect_first():
    """The connect that was taken to answer the handshake is not lost, although there was nobody to answer."""
    received = []

    async def app(scope, receive, send):
        await asyncio.sleep(10)
        received.extend([await receive(), await receive()])

    house = House(app, grace=1)
    server = house.serve()
    await settle()
    server.refusing = ConnectionResetError("the client has gone")
    server.deliver(GONE)
    await house.shed()
    await server.task
    assert received == [CONNECT, SHED]


# --- What is called in a loop ---


async def test_a_consumer_that_makes_a_task_for_each_receive_and_ignores_the_end_is_cancelled():
    """As Channels does where a consumer has no StopConsumer: it asks for more, in a new task each time."""
    received = []

    async def app(scope, receive, send):
        while True:
            message = await asyncio.ensure_future(receive())
            received.append(message)
            if message == CONNECT:
                await send(ACCEPT)

    house = House(app, grace=3)
    server = house.serve()
    await settle()
    began = now()
    await house.shed()
    await server.task

    assert received == [CONNECT, SHED]
    assert now() - began == pytest.approx(3, abs=0.01)


async def save_in_a_group(receive, send, notes):
    """Listen on in one task, and save in another."""

    async def listen():
        while True:
            await receive()

    async def hear():
        await receive()
        await notes.save()
        listening.cancel()

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        group.create_task(hear())


async def save_and_listen_anew(receive, send, notes):
    """Hear of the end, and save beside a task that listens anew."""
    await receive()
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(receive())
        group.create_task(notes.save()).add_done_callback(lambda _: listening.cancel())


async def save_beside_the_one_that_serves(receive, send, notes):
    """Save in a task that has heard of the end, and listen on in the one that serves the connection."""

    async def hear():
        await receive()
        await notes.save()

    with suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            saving = group.create_task(hear())
            serving = asyncio.current_task()
            saving.add_done_callback(lambda _: serving.cancel())
            while True:
                await receive()


async def save_beside_one_that_only_sends(receive, send, notes):
    """Save in a task that has heard of the end, and send on in the one that serves the connection."""

    async def hear():
        await receive()
        await notes.save()

    async with asyncio.TaskGroup() as group:
        saving = group.create_task(hear())
        await asyncio.sleep(1)
        while not saving.done():
            with suppress(WebSocketDisconnect):
                await send(TICK)


@pytest.mark.parametrize(
    "app",
    [save_in_a_group, save_and_listen_anew, save_beside_the_one_that_serves, save_beside_one_that_only_sends],
    ids=lambda app: app.__name__,
)
async def test_work_beside_a_task_that_goes_on_listening_or_sending_is_not_cancelled(app):
    """Where several tasks have heard of the end, one that listens or sends on says nothing about the others."""
    notes = Notes()

    async def wrapped(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await app(receive, send, notes)

    house = House(wrapped, grace=1)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert notes == ["saved"]
    assert server.task.exception() is None


async def test_a_receive_after_a_send_that_raised_still_gets_the_disconnect_once():
    """One task meets the end in a send, another one in its receive, which is told like any other."""
    received = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await asyncio.sleep(1)
        with suppress(WebSocketDisconnect):
            await send(TICK)
        received.append(await receive())
        received.append(await receive())

    house = House(app, grace=3)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert received == [SHED]


async def test_a_loop_of_sends_that_ignores_every_error_takes_no_cpu_and_ends():
    """A send after the end takes its time where an application does nothing else; after the grace it is cancelled."""
    sends = 0

    async def app(scope, receive, send):
        nonlocal sends
        await receive()
        await send(ACCEPT)
        await receive()
        while True:
            sends += 1
            with suppress(Exception):
                await send(TICK)

    house = House(app, grace=3)
    server = house.serve()
    await settle()
    began = now()
    await house.shed()
    await server.task
    assert 2 < now() - began < 4
    assert sends < 50


async def test_work_that_reports_to_the_client_now_and_then_is_not_cancelled():
    """An application that saves and tries to tell its client of it, which has gone, is at work."""
    notes = Notes()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        for _ in range(100):
            await notes.save(0.05)
            with suppress(Exception):
                await send(TICK)

    house = House(app, grace=1)
    server = house.serve()
    await settle()
    began = now()
    await house.shed()
    await server.task
    assert notes == ["saved"] * 100
    assert now() - began < 6, "a send of whom does something else is not slowed down"


@pytest.mark.parametrize("call", ["send_text", "send_bytes", "send_json", "wait_shed"])
async def test_what_a_session_offers_suspends_also_after_its_end(call):
    """A loop over a session's own methods lets others run, whether its connection has ended or was asked to leave."""
    passes = 0

    async def app(scope, receive, send):
        nonlocal passes
        await receive()
        await send(ACCEPT)
        session = session_of(scope)
        await receive()
        method = getattr(session, call)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while passes < 1000:
                    passes += 1
                    others = []
                    asyncio.get_running_loop().call_soon(others.append, None)
                    await (method() if call == "wait_shed" else method("x"))
                    assert others == [None]

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert server.sent[1:] == [CLOSE]
    assert passes <= 51 or call == "wait_shed"


# --- Whose errors are absorbed ---


class Proxy:
    """Two connections of one application, of which the first also sends on the second."""

    def __init__(self, ending) -> None:
        self.ending = ending
        self.sends = {}
        self.house = House(self, grace=5)

    async def __call__(self, scope, receive, send):
        """Serve one of the two."""
        await receive()
        await send(ACCEPT)
        self.sends[scope["path"]] = send
        await receive()
        if scope["path"] == "/a":
            await asyncio.sleep(0.1)
            await self.ending(self.sends["/b"])
        else:
            await asyncio.sleep(1)

    async def run(self):
        """Shed both, and end the first; return its task."""
        servers = [self.house.serve(websocket_scope(path)) for path in ("/a", "/b")]
        await settle()
        await self.house.shed()
        await asyncio.wait([server.task for server in servers])
        return servers[0].task


async def send_on(send):
    """Send on another connection, which was closed too."""
    await send(TICK)


async def end_of_a_client(send):
    """Meet the end of a connection as its client: of another code."""
    raise WebSocketDisconnect(4000, "the upstream has closed")


async def lost_client(send):
    """Meet the loss of a connection that is none of ours."""
    raise WebSocketDisconnect(1006)


@pytest.mark.parametrize("ending", [send_on, end_of_a_client, lost_client], ids=lambda ending: ending.__name__)
async def test_the_end_of_another_connection_is_no_doing_of_ours(ending):
    """An application that was shed and ends with a disconnect of another connection ends with an error, as ever."""
    task = await Proxy(ending).run()
    assert isinstance(task.exception(), WebSocketDisconnect)


async def test_a_send_that_waits_at_the_server_and_fails_by_our_close_is_absorbed():
    """Starlette makes a disconnect with 1006 of the server's OSError: our close has caused it, and it stops here."""

    async def endpoint(websocket):
        await websocket.accept()
        while True:
            await websocket.send_text("tick")

    house = House(Starlette(routes=[WebSocketRoute("/ws", endpoint)]))
    server = house.serve()
    gone = asyncio.Event()
    send = server.send

    async def blocking_send(message):
        if message["type"] == "websocket.send":
            await gone.wait()
            msg = "the transport is closed"
            raise OSError(msg)
        await send(message)
        if message["type"] == "websocket.close":
            gone.set()

    server.send = blocking_send
    await settle()
    await house.shed()
    await server.task
    assert server.sent[1:] == [CLOSE]


async def test_a_session_in_an_empty_context_is_closed_too():
    """A server whose task has no context variables at all has its sessions closed like any other."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()

    house = House(app)
    server = Context().run(house.serve)
    await settle()
    await house.shed()
    await server.task
    assert server.sent == [ACCEPT, CLOSE]
