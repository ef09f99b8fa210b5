"""What a WebSocket endpoint and its client see of a drain, message by message."""

import asyncio
import contextvars
import gc
import logging
import sys
import weakref
from contextlib import suppress
from random import Random
from threading import Thread

import pytest
from hand_server import ACCEPT, CLOSE, CONNECT, GONE, SHED, HandServer, settle, text, websocket_scope
from starlette.websockets import WebSocketDisconnect
from websocket_shapes import SHAPES, fastapi_app, starlette_app

from starlette_drain import Drain, DrainMiddleware, DrainState, NotTracked, WebSocketSession, session_of
from starlette_drain._core.events import SessionClosed, SessionOpened, SessionRefused, SessionShed
from starlette_drain._core.session import ClosePolicy, Outcome
from starlette_drain._core.turnover import Rotation
from starlette_drain.testing.recording import RecordingObserver

pytestmark = pytest.mark.anyio

DENIED = 503
"""What `words` makes of a denial."""


def words(sent):
    """Return *sent* with a whole denial of ours, checked, as one word."""
    if sent[:1] != [] and sent[0]["type"] == "websocket.http.response.start":
        headers = dict(sent[0]["headers"])
        assert headers.pop(b"retry-after").isdigit()
        body = b"This server is draining; try again.\n"
        length = str(len(body)).encode()
        text_plain = b"text/plain; charset=utf-8"
        assert {b"content-type": text_plain, b"content-length": length, b"connection": b"close"} == headers
        assert {"type": "websocket.http.response.body", "body": body} == sent[1]
        return [sent[0]["status"], *sent[2:]]
    return sent


class House:
    """An application in a DrainMiddleware, and what was heard of it."""

    def __init__(self, app, **options) -> None:
        self.recording = RecordingObserver()
        self.drain = Drain(triggers=[], observers=[self.recording], rng=Random(7), **options)
        self.app = DrainMiddleware(app, drain=self.drain)

    def serve(self, scope=None, *, connected: bool = True) -> HandServer:
        """Serve one WebSocket."""
        return HandServer(self.app, scope, connected=connected)

    async def shed(self) -> None:
        """Ask everyone to leave at once, and let happen what needs no time."""
        await self.drain.start(window=0)
        await asyncio.sleep(0.001)
        await settle()

    def outcomes(self) -> list[Outcome]:
        """Return how the sessions ended."""
        return [event.outcome for event in self.recording.of(SessionClosed)]


@pytest.fixture(autouse=True)
def quiet(caplog):
    """No test but the one that asks for it may log a warning: no traceback comes of an ordinary shed."""
    caplog.set_level(logging.WARNING, "starlette_drain")
    yield caplog
    assert [record.getMessage() for record in caplog.get_records("call")] == []


# --- Before a drain ---


async def test_before_a_drain_the_application_gets_the_very_messages():
    """Until a drain the messages to and from the application are the same objects in the same order."""
    incoming = [text("a"), {"type": "websocket.receive", "bytes": b"b"}, GONE]
    outgoing = [{**ACCEPT, "subprotocol": "x", "headers": [(b"a", b"b")]}, {"type": "websocket.send", "text": "c"}]
    received = []

    async def app(scope, receive, send):
        received.append(await receive())
        for message in outgoing:
            await send(message)
        received.extend([await receive() for _ in range(4)])

    server = House(app).serve()
    for message in incoming:
        server.deliver(message)
    await server.task

    assert [id(message) for message in [CONNECT, *incoming, GONE]] == [id(message) for message in received]
    assert [id(message) for message in outgoing] == [id(message) for message in server.sent]


async def test_before_a_drain_an_exception_passes_through():
    """What an application raises reaches the server as it is, a disconnect of its own included."""
    for error in (ValueError("mine"), WebSocketDisconnect(1000), OSError("disk"), asyncio.CancelledError()):

        async def app(scope, receive, send, error=error):
            raise error

        house = House(app)
        server = house.serve()
        with pytest.raises(type(error)) as caught:
            await server.task
        assert caught.value is error or isinstance(error, asyncio.CancelledError)
        assert house.drain.statistics().open == 0


async def test_a_send_that_fails_before_a_drain_fails_for_the_application():
    """The server's own objection reaches the application untouched."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            await send({"type": "websocket.send", "text": "a"})
        except OSError as error:
            seen.append(error)

    server = House(app).serve()
    server.blocked = lambda _: setattr(server, "refusing", OSError("gone")) is not None
    await server.task

    assert [server.refusing] == seen


async def test_a_session_is_known_from_its_handshake_and_open_from_its_accept():
    """A session counts from its request on; only an accepted one is said to be open, and once."""
    house = House(accept_and_wait)
    server = house.serve(connected=False)
    await settle()
    assert house.drain.statistics().open == 1
    assert house.recording.of(SessionOpened) == []

    server.deliver(CONNECT)
    await settle()
    assert len(house.recording.of(SessionOpened)) == 1

    server.deliver(GONE)
    await server.task
    assert house.drain.statistics().open == 0
    assert house.outcomes() == [Outcome.LEFT]


async def test_an_application_that_accepts_twice_opens_once():
    """A faulty application does not spoil the count of open sessions."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send(ACCEPT)

    house = House(app)
    await house.serve().task

    assert len(house.recording.of(SessionOpened)) == 1
    assert house.outcomes() == [Outcome.LEFT]


async def test_other_scopes_pass_through_untouched():
    """A scope type of which we know nothing reaches the application with the server's own callables."""
    calls = []

    async def app(*call):
        calls.append(call)

    call = ({"type": "webtransport"}, object(), object())
    await House(app).app(*call)

    assert [call] == calls


# --- Endpoint shapes ---


async def accept_and_wait(scope, receive, send):
    """Accept, and stay until the client goes: a bare ASGI application."""
    assert (await receive())["type"] == "websocket.connect"
    await send(ACCEPT)
    while (await receive())["type"] != "websocket.disconnect":
        pass


@pytest.mark.parametrize("framework", [starlette_app, fastapi_app])
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_shape_of_endpoint_ends_with_one_proper_close(shape, framework):
    """Whatever an endpoint does, the client gets one close with code and reason, and the server no exception."""
    house = House(framework(SHAPES[shape]))
    server = house.serve()
    await asyncio.sleep(7.5)
    before = len(server.sent)
    await house.shed()

    assert before >= 1
    assert server.sent[before:] == [CLOSE], "the close is sent at once, and nothing after it"
    await asyncio.wait_for(server.task, 6)
    await settle()
    assert [message for message in server.sent if message["type"] == "websocket.close"] == [CLOSE]
    assert server.task.exception() is None
    # asyncio.TaskGroup before 3.13 leaves a cancellation of its own behind where a child fails.
    assert server.task.cancelling() == 0 or (sys.version_info < (3, 13) and "group" in shape)
    assert house.outcomes() == [Outcome.FORCED if shape == "parked" else Outcome.SHED]
    assert house.drain.statistics().open == 0


async def test_an_endpoint_sees_an_ordinary_disconnect_with_code_and_reason():
    """A pending receive ends with the code and reason that the client sees, and so does every later send."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        seen.append(await receive())
        for message in ({"type": "websocket.send", "text": "late"}, ACCEPT):
            with pytest.raises(WebSocketDisconnect) as caught:
                await send(message)
            seen.append((caught.value.code, caught.value.reason))
        await send({"type": "websocket.close", "code": 1000})

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task

    assert seen == [SHED, (1012, "server draining"), (1012, "server draining")]
    assert server.sent == [ACCEPT, CLOSE]


async def test_the_disconnect_is_delivered_once_and_the_next_receive_waits():
    """An application that ignores the disconnect waits until its grace is over: it never spins the event loop."""
    seen = []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            seen.append(message)
            if message == CONNECT:
                await send(ACCEPT)

    house = House(app, grace=3.0)
    server = house.serve()
    await settle()
    began = asyncio.get_running_loop().time()
    await house.shed()
    assert seen == [CONNECT, SHED]
    await server.task

    assert seen == [CONNECT, SHED]
    assert server.sent == [ACCEPT, CLOSE]
    assert asyncio.get_running_loop().time() - began == pytest.approx(3.0, abs=0.01)
    assert house.outcomes() == [Outcome.SHED], "the connection was over before: closed, and the disconnect received"


async def test_a_handshake_hears_connect_and_one_disconnect():
    """A session that is shed before its application has listened hears the connect first, the disconnect once."""
    seen, begin = [], asyncio.Event()

    async def app(scope, receive, send):
        await begin.wait()
        while True:
            seen.append(await receive())

    house = House(app, grace=1.0)
    server = house.serve()
    await settle()
    await house.shed()
    begin.set()
    await server.task

    assert seen == [CONNECT, SHED]


async def test_a_close_sent_in_a_loop_lets_others_run():
    """Closing again and again after the shed does nothing, suspends every time, and soon takes its time."""
    others = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        for _ in range(12):
            asyncio.get_running_loop().call_soon(others.append, None)
            before = len(others)
            await send({"type": "websocket.close", "code": 1000})
            assert len(others) > before

    house = House(app)
    server = house.serve()
    await settle()
    began = asyncio.get_running_loop().time()
    await house.shed()
    await server.task

    assert asyncio.get_running_loop().time() - began == pytest.approx(0.9, abs=0.01)
    assert server.sent == [ACCEPT, CLOSE]


async def test_the_code_is_the_users():
    """The close code of the options is what the client and the application see."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        seen.append(await receive())

    house = House(app, close_code=4001)
    server = house.serve()
    await settle()
    await house.shed()

    assert seen == [{"type": "websocket.disconnect", "code": 4001, "reason": "server draining"}]
    assert server.sent == [ACCEPT, {"type": "websocket.close", "code": 4001, "reason": "server draining"}]


async def test_a_message_waiting_at_the_server_is_not_given_after_the_shed():
    """Once parted, the application gets its disconnect even where messages wait at the server."""
    seen = []
    go = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go.wait()
        seen.append(await receive())

    house = House(app)
    server = house.serve()
    await settle()
    server.deliver(text("waiting"))
    await house.shed()
    go.set()
    await server.task

    assert seen == [SHED]


async def test_an_application_in_a_blocked_send_does_not_keep_the_close_back():
    """Where the application's own send blocks, the close goes out all the same and the application is cancelled."""
    house = House(starlette_app(SHAPES["send_only"]))
    server = house.serve()
    await settle()
    server.blocked = lambda message: message["type"] == "websocket.send"
    await asyncio.sleep(2)
    await house.shed()

    assert server.sent[-1] == CLOSE
    await asyncio.wait_for(server.task, 6)
    assert house.outcomes() == [Outcome.FORCED]
    assert server.task.cancelling() == 0


async def test_a_parked_application_is_cancelled_after_its_grace_and_not_before():
    """An application parked on neither receive nor send has `grace` seconds after its disconnect."""
    cancelled_at = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled_at.append(asyncio.get_running_loop().time())

    house = House(app, grace=3)
    server = house.serve()
    await settle()
    began = asyncio.get_running_loop().time()
    await house.shed()
    await server.task

    assert [pytest.approx(began + 3, abs=0.01)] == cancelled_at
    assert house.drain.report is not None
    assert house.drain.report.forced == 1


async def test_a_silent_peer_costs_the_grace_and_no_more():
    """A close that the peer never takes is given up after the grace; the application, which has ended, waits."""
    house = House(accept_and_wait, grace=4)
    server = house.serve()
    await settle()
    server.blocked = lambda message: message["type"] == "websocket.close"
    began = asyncio.get_running_loop().time()
    await house.shed()
    await server.task

    assert asyncio.get_running_loop().time() - began == pytest.approx(4, abs=0.01)
    assert server.task.cancelling() == 0
    assert house.outcomes() == [Outcome.SHED], "an application that has ended by itself was not forced"


async def test_the_application_does_not_return_before_the_close_is_sent():
    """A server closes the transport when the application returns: that must not overtake the close frame."""
    house = House(accept_and_wait)
    server = house.serve()
    await settle()
    gate = asyncio.get_running_loop().create_future()
    send = server.send

    async def slow_send(message):
        if message["type"] == "websocket.close":
            await gate
        await send(message)

    server_app = server.app
    server.task.cancel()
    with suppress(asyncio.CancelledError):
        await server.task
    task = asyncio.create_task(server_app(websocket_scope(), HandServer(noop).receive, slow_send))
    await settle()
    await house.shed()
    await asyncio.sleep(1)
    assert not task.done()
    gate.set_result(None)
    await task
    assert server.sent[-1] == CLOSE


async def noop(scope, receive, send):
    """Do nothing."""


async def test_a_close_that_the_server_objects_to_is_nobodys_error():
    """The legacy websockets implementation raises AssertionError on a close during a blocked send."""
    house = House(accept_and_wait)
    server = house.serve()
    await settle()
    server.refusing = AssertionError()
    await house.shed()
    await server.task

    assert house.outcomes() == [Outcome.SHED]


# --- Cancellations ---


async def test_a_cancellation_from_outside_at_the_same_moment_passes():
    """Somebody else's cancellation passes through even where ours came in the same pass, before or after."""
    for order in ("before", "after"):
        house = House(accept_and_wait)
        server = house.serve()
        await settle()
        if order == "before":
            server.task.cancel()
        await house.drain.start(window=0)
        asyncio.get_running_loop().call_at(asyncio.get_running_loop().time(), server.task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await server.task
        assert server.task.cancelled()


async def test_a_cancellation_in_the_very_pass_of_the_interruption_passes():
    """Two cancellations of a parked receive in one pass: ours is taken back, the other one is delivered and counted."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            await receive()
        except asyncio.CancelledError:
            seen.append(asyncio.current_task().cancelling())
            raise

    for ours_first in (True, False):
        house = House(app)
        server = house.serve()
        await settle()
        session = session_of(server.scope)
        if ours_first:
            session._end_receive(ClosePolicy(1012, 5))
            server.task.cancel()
        else:
            server.task.cancel()
            session._end_receive(ClosePolicy(1012, 5))
        with pytest.raises(asyncio.CancelledError):
            await server.task

    assert seen == [1, 1]


async def test_a_timeout_around_receive_that_ends_in_the_same_moment_stays_a_timeout():
    """A timeout and our interruption in one pass: the application sees its TimeoutError, then the disconnect."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            async with asyncio.timeout(None) as limit:
                seen.append(limit)
                await receive()
        except TimeoutError:
            seen.append("timeout")
        seen.append(await receive())

    for ours_first in (True, False):
        seen.clear()
        house = House(app)
        server = house.serve()
        await settle()
        session = session_of(server.scope)
        acts = [lambda session=session: session._end_receive(ClosePolicy(1012, 5)), seen[0]._on_timeout]
        for act in acts if ours_first else reversed(acts):
            act()
        await settle()
        assert seen[1:] == ["timeout", SHED]
        await server.task
        assert server.task.cancelling() == 0


async def test_an_anyio_scope_cancelled_in_the_same_moment_knows_its_own_cancellation():
    """An anyio scope knows its cancellations by their message: an interruption in the same pass must not hide it."""
    import anyio  # noqa: PLC0415

    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        message = None
        with anyio.CancelScope() as cancel_scope:
            seen.append(cancel_scope)
            message = await receive()
        seen.append(message or await receive())

    for ours_first in (True, False):
        seen.clear()
        house = House(app)
        server = house.serve()
        await settle()
        session = session_of(server.scope)
        acts = [lambda session=session: session._end_receive(ClosePolicy(1012, 5)), seen[0].cancel]
        for act in acts if ours_first else reversed(acts):
            act()
        await server.task
        assert seen[1:] == [SHED]


async def test_a_task_with_a_swallowed_cancellation_in_its_past_is_interrupted_like_any_other():
    """Code that once caught a CancelledError and went on leaves a count behind; the count is not ours to take."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        seen.append(await receive())
        seen.append(asyncio.current_task().cancelling())

    house = House(app)
    server = house.serve()
    await settle()
    server.task.cancel()
    await settle()
    await house.shed()
    await server.task

    assert seen == [SHED, 1]


async def test_an_interrupted_receive_that_swallows_the_cancellation_is_a_disconnect():
    """A server, or a middleware between us and it, may answer our interruption with a message: it comes too late."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        seen.append(await receive())
        seen.append(asyncio.current_task().cancelling())

    house = House(app)
    inbox = [CONNECT]

    async def receive():
        if inbox:
            return inbox.pop()
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return text("swallowed")

    async def send(message):
        pass

    task = asyncio.create_task(house.app(websocket_scope(), receive, send))
    await settle()
    await house.shed()
    await task

    assert seen == [SHED, 0]


async def test_an_interrupted_receive_that_fails_is_a_disconnect():
    """A server that answers our interruption with an error of its own does not spoil the disconnect."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        seen.append(await receive())
        seen.append(asyncio.current_task().cancelling())

    house = House(app)
    inbox = [CONNECT]

    async def receive():
        if inbox:
            return inbox.pop()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            msg = "interrupted"
            raise RuntimeError(msg) from None

    async def send(message):
        pass

    task = asyncio.create_task(house.app(websocket_scope(), receive, send))
    await settle()
    await house.shed()
    await task

    assert seen == [SHED, 0]


async def test_a_receive_taken_over_by_another_task_is_interrupted():
    """Where one task gave up its receive and another took over, that one is interrupted."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        first = asyncio.create_task(receive())
        await settle()
        first.cancel()
        second = asyncio.create_task(receive())
        seen.append(await second)

    house = House(app)
    inbox = [CONNECT]

    async def receive():
        if inbox:
            return inbox.pop()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await settle(3)  # a server that takes a moment to let go

    async def send(message):
        pass

    task = asyncio.create_task(house.app(websocket_scope(), receive, send))
    await settle(100)
    await house.shed()
    await settle()

    assert seen == [SHED]
    await task


async def test_an_application_that_swallows_its_cancellation_leaves_no_trace_on_the_task():
    """After a forced end the server's task counts no cancellation of ours, however the application ended."""

    async def quietly(scope, receive, send):
        await receive()
        await send(ACCEPT)
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()

    async def with_a_group(scope, receive, send):
        await receive()
        await send(ACCEPT)

        async def child():
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise WebSocketDisconnect(1012) from None

        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.get_running_loop().create_future()

    for app in (quietly, with_a_group):
        house = House(app)
        server = house.serve()
        await settle()
        await house.shed()
        await server.task
        assert server.task.cancelling() == 0
        assert house.outcomes() == [Outcome.FORCED]


async def test_a_server_that_cancels_during_the_grace_is_obeyed():
    """A server's own limit on its shutdown (uvicorn's --timeout-graceful-shutdown) ends the application as ever."""
    house = House(starlette_app(SHAPES["parked"]))
    server = house.serve()
    await settle()
    await house.shed()
    server.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.task

    assert house.drain.statistics().open == 0


# --- Exceptions ---


async def test_an_exception_that_is_not_ours_passes_after_a_shed_too():
    """A shed covers up no fault of the application, alone or in a group with a disconnect of ours."""

    async def faulty(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        msg = "a fault"
        raise ValueError(msg)

    async def faulty_group(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        msg = "both"
        raise ExceptionGroup(msg, [WebSocketDisconnect(1012), ValueError("a fault")])

    for app, expected in ((faulty, ValueError), (faulty_group, ExceptionGroup)):
        house = House(app)
        server = house.serve()
        await settle()
        await house.shed()
        with pytest.raises(expected):
            await server.task
        assert server.sent == [ACCEPT, CLOSE]
        assert house.outcomes() == [Outcome.SHED]


async def test_nested_groups_of_our_disconnects_stop_at_the_boundary():
    """What the disconnect caused stops here, however deep it is wrapped."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        with pytest.raises(ConnectionResetError) as caught:
            await send({"type": "websocket.send", "text": "late"})
        inner = ExceptionGroup("inner", [WebSocketDisconnect(1012), caught.value])
        msg = "outer"
        raise ExceptionGroup(msg, [inner, WebSocketDisconnect(1012, "server draining")])

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task


@pytest.mark.parametrize(
    "error",
    [
        OSError("disk"),
        TimeoutError("the database does not answer"),
        FileNotFoundError("state"),
        ConnectionRefusedError("cache"),
        ConnectionResetError("upstream"),
        BrokenPipeError("child"),
        ExceptionGroup("clean-up", [WebSocketDisconnect(1012), TimeoutError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_the_clean_up_after_a_shed_reaches_the_server(error):
    """An application's own error passes through, also one of a type that a lost connection raises too."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            await receive()
        finally:
            raise error

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    with pytest.raises(type(error)) as caught:
        await server.task
    assert caught.value is error
    assert server.sent == [ACCEPT, CLOSE]


async def test_a_cancellation_left_behind_by_the_application_does_not_hide_ours():
    """
    A task that counts a cancellation of its own when its grace is over ends without an error.

    Python 3.11 and 3.12 leave one behind where a TaskGroup has failed, https://github.com/python/cpython/issues/116720.
    """

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        task = asyncio.current_task()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        assert task.cancelling() == 1
        await asyncio.get_running_loop().create_future()

    house = House(app, grace=1.0)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task

    assert house.outcomes() == [Outcome.FORCED]
    assert server.sent == [ACCEPT, CLOSE]


# --- Farewells ---


async def test_a_farewell_comes_before_the_disconnect_and_the_close():
    """First the farewell in the application's words, then the disconnect, then the close."""
    order = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        order.append((await receive())["type"])

    house = House(app)

    @house.drain.before_close
    async def farewell(session):
        assert session.reconnect_after_ms >= 5000
        await session.send_json({"type": "reconnect", "path": session.path})
        await session.send_bytes(b"x")
        await asyncio.sleep(1)
        order.append("farewell")

    server = house.serve()
    await settle()
    await house.shed()
    await server.task

    assert order == ["farewell", "websocket.disconnect"]
    said = {"type": "websocket.send", "text": '{"type":"reconnect","path":"/ws"}'}
    assert [ACCEPT, said, {"type": "websocket.send", "bytes": b"x"}, CLOSE] == server.sent


async def test_the_application_goes_on_during_the_farewell():
    """Nothing changes for the application until the farewell has been said."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while (message := await receive())["type"] != "websocket.disconnect":
            seen.append(message["text"])
            await send({"type": "websocket.send", "text": message["text"]})

    house = House(app)
    house.drain.before_close(lambda _: asyncio.sleep(1))
    server = house.serve()
    await settle()
    await house.shed()
    server.deliver(text("still here"))
    await settle()
    assert seen == ["still here"]
    await server.task
    assert server.sent == [ACCEPT, {"type": "websocket.send", "text": "still here"}, CLOSE]


async def test_a_client_that_leaves_during_the_farewell_is_no_error():
    """The client's own end during a farewell is an ordinary end; a farewell that then cannot be said is not logged."""
    house = House(accept_and_wait)

    @house.drain.before_close
    async def farewell(session):
        await asyncio.sleep(1)
        await session.send_text("too late")

    server = house.serve()
    await settle()
    await house.shed()
    server.deliver(GONE)
    server.refusing = OSError("the client has gone")
    await server.task

    assert server.sent == [ACCEPT]
    assert house.drain.statistics().open == 0


async def test_a_farewell_to_a_client_that_left_unnoticed_is_no_error():
    """An application that never receives does not learn that its client left; the farewell's send fails quietly."""
    house = House(starlette_app(SHAPES["parked"]))
    house.drain.before_close(lambda session: session.send_text("bye"))
    server = house.serve()
    await settle()
    server.refusing = OSError("the client has gone")
    await house.shed()
    await asyncio.sleep(60)

    assert house.outcomes() == [Outcome.SHED]
    assert not server.task.done(), "what it does is work, for no session"
    server.task.cancel()
    with suppress(asyncio.CancelledError):
        await server.task


async def test_an_application_that_ends_during_the_farewell_still_gets_its_client_a_proper_close():
    """An application that returns while the farewell is said does not cut it short; the client gets its 1012."""
    go = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go.wait()

    house = House(app)

    @house.drain.before_close
    async def farewell(session):
        go.set()
        await asyncio.sleep(1)
        await session.send_text("bye")

    server = house.serve()
    await settle()
    await house.shed()
    await server.task

    assert server.sent == [ACCEPT, {"type": "websocket.send", "text": "bye"}, CLOSE]
    assert house.outcomes() == [Outcome.SHED]


async def test_an_application_that_ended_during_the_farewell_is_not_cancelled_for_a_slow_close():
    """Once the application has ended, a close that takes longer than the grace cancels nobody."""
    house = House(starlette_app(wait_a_second), grace=1)
    house.drain.before_close(lambda _: asyncio.sleep(1.5))
    server = house.serve()
    await settle()
    server.blocked = lambda message: message["type"] == "websocket.close"
    await house.shed()
    await server.task

    assert house.outcomes() == [Outcome.SHED]
    assert server.task.cancelling() == 0


async def wait_a_second(websocket):
    """Stay for a second and leave."""
    await websocket.accept()
    await asyncio.sleep(1)


async def test_an_application_that_closes_during_the_farewell_has_the_last_word():
    """A close of the application's own is the only one, and what the farewell says afterwards is dropped quietly."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await asyncio.sleep(5)
        await send({"type": "websocket.close", "code": 3000})

    house = House(app)

    @house.drain.before_close
    async def farewell(session):
        await asyncio.sleep(1)
        await session.send_text("too late")

    server = house.serve()
    await settle()
    await asyncio.sleep(4.5)
    await house.shed()
    await server.task

    assert server.sent == [ACCEPT, {"type": "websocket.close", "code": 3000}]


@pytest.mark.parametrize(("window", "held", "closes_after"), [(60, 5, 5), (4, 100, 4)])
async def test_a_hold_that_begins_during_a_close_hook_is_honoured_until_the_deadline(window, held, closes_after):
    """What the application began while the hook ran it may finish; past the deadline it is closed all the same."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        session = session_of(scope)
        await session.wait_shed()
        async with session.hold():
            await asyncio.sleep(held)
        await receive()

    house = House(app, start_delay=0, grace=200)

    @house.drain.before_close
    async def slow(session):
        await asyncio.sleep(0.5)

    server = house.serve()
    await settle()
    session = session_of(server.scope)
    loop = asyncio.get_running_loop()
    await house.drain.start(window=window)
    while session.shed_at is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    deadline = house.drain.progress().time_left + loop.time()
    began = loop.time()
    while CLOSE not in server.sent:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if closes_after == held:
        assert loop.time() - began == pytest.approx(held, abs=0.1)
    else:
        assert loop.time() == pytest.approx(deadline, abs=0.6)
    server.task.cancel()


async def held_from_the_shed_on(house, seconds, shed):
    """Return after how many seconds a session is closed that holds from its shed on, and whether it was through."""
    through = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        session = session_of(scope)
        await session.wait_shed()
        async with session.hold():
            await asyncio.sleep(seconds)
        through.append(True)
        await receive()

    house.app.app = app

    @house.drain.before_close
    async def slow(session):
        await asyncio.sleep(0.5)

    server = house.serve()
    await settle()
    began = asyncio.get_running_loop().time()
    await shed(server)
    while CLOSE not in server.sent:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    server.task.cancel()
    return asyncio.get_running_loop().time() - began, bool(through)


async def test_a_hold_during_a_close_hook_is_honoured_without_a_drain_too():
    """A session that leaves in a rotation is not torn out of what it began meanwhile: its end is no deadline."""
    house = House(accept_and_wait, grace=200)

    async def rotate(server):
        engine = house.drain.host.engine
        engine.rotate(Rotation(engine.time(), window=0.001))

    after, is_through = await held_from_the_shed_on(house, 90, rotate)
    assert after == pytest.approx(90, abs=0.1)
    assert is_through


async def test_a_hold_during_a_close_hook_ends_at_a_deadline_that_has_moved():
    """A deadline that is brought forward, as by SIGTERM, holds for those that are being closed as well."""
    house = House(accept_and_wait, grace=200, start_delay=0, pacing="rate:1000")

    async def shed(server):
        await house.drain.start(window=1000)
        await asyncio.sleep(2)
        await house.drain.start(window=10)

    after, is_through = await held_from_the_shed_on(house, 500, shed)
    assert after == pytest.approx(12, abs=1.1)
    assert not is_through


async def test_a_farewell_sees_the_context_of_its_session():
    """Context variables set outside the middleware, by tracing for instance, are there in the farewell."""
    variable = contextvars.ContextVar("variable", default="none")
    seen = []
    house = House(accept_and_wait)

    @house.drain.before_close
    async def farewell(session):
        seen.append(variable.get())

    async def outer(scope, receive, send):
        variable.set(scope["path"])
        await house.app(scope, receive, send)

    servers = [HandServer(outer, websocket_scope(path)) for path in ("/a", "/b")]
    await settle()
    await house.shed()
    await asyncio.gather(*(server.task for server in servers))

    assert sorted(seen) == ["/a", "/b"]
    assert variable.get() == "none"


# --- Handshakes and late arrivals ---


async def test_what_a_starlette_endpoint_meets_is_of_starlettes_own_class():
    """Error trackers leave out a disconnect by the name of its class, which a subclass of ours would not have."""
    seen = []

    async def endpoint(websocket):
        await websocket.accept()
        await websocket.receive()
        try:
            await websocket.send_text("late")
        except Exception as error:
            seen.append((type(error), error.code, error.reason))
            raise

    house = House(starlette_app(endpoint))
    server = house.serve()
    await settle()
    await house.shed()
    await server.task
    assert seen == [(WebSocketDisconnect, 1012, "server draining")]


async def test_a_session_shed_during_its_handshake_is_denied_with_503():
    """Before the accept a shed is an HTTP answer; the application meets a disconnect at its accept."""
    seen = []
    go = asyncio.Event()

    async def endpoint(websocket):
        await go.wait()  # it looks up who that is
        try:
            await websocket.accept()
        except WebSocketDisconnect as error:
            seen.append((error.code, error.reason))
            raise

    house = House(starlette_app(endpoint))
    server = house.serve()
    await settle()
    await house.shed()
    assert words(server.sent) == [DENIED]
    go.set()
    await server.task

    assert seen == [(1012, "server draining")]
    assert words(server.sent) == [DENIED]
    assert house.recording.of(SessionOpened) == []
    assert len(house.recording.of(SessionShed)) == 1


async def test_a_session_shed_between_its_connect_and_its_accept_is_denied_too():
    """An application that has taken the connect and waits gets the disconnect next."""
    seen = []
    go = asyncio.Event()

    async def app(scope, receive, send):
        seen.append(await receive())
        await go.wait()
        seen.append(await receive())

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    go.set()
    await server.task

    assert seen == [CONNECT, SHED]
    assert words(server.sent) == [DENIED]


async def test_without_the_denial_extension_a_close_is_all_there_is():
    """A server without the extension gets a close before the accept, which it turns into 403."""
    house = House(parked_before_accept, grace=1)
    server = house.serve(websocket_scope(denial=False))
    await settle()
    await house.shed()
    await server.task

    assert server.sent == [{"type": "websocket.close", "code": 1013, "reason": "server draining"}]


async def parked_before_accept(scope, receive, send):
    """Take the connect and never answer."""
    await receive()
    await asyncio.get_running_loop().create_future()


async def test_no_farewell_is_said_to_a_session_in_its_handshake():
    """A farewell is for open sessions: before the accept nothing can be said."""
    called = []
    house = House(parked_before_accept)
    house.drain.before_close(lambda session: called.append(session))  # noqa: PLW0108
    server = house.serve()
    await settle()
    await house.shed()
    await server.task

    assert called == []


async def test_a_denial_of_the_applications_own_is_finished():
    """A denial that has begun before the shed ends as the application means it."""
    go = asyncio.Event()
    start = {"type": "websocket.http.response.start", "status": 401, "headers": []}
    body = {"type": "websocket.http.response.body", "body": b"no"}

    async def app(scope, receive, send):
        await receive()
        await send(start)
        await go.wait()
        await send(body)

    house = House(app)
    server = house.serve()
    await settle()
    await house.shed()
    go.set()
    await server.task

    assert [start, body] == server.sent
    assert house.recording.of(SessionOpened) == []


@pytest.mark.parametrize("denial", [True, False])
async def test_a_late_arrival_is_refused_and_the_application_never_called(denial):
    """While draining and afterwards a new WebSocket is told to try elsewhere."""
    calls = []

    async def app(scope, receive, send):
        calls.append(scope["path"])
        await accept_and_wait(scope, receive, send)

    house = House(app, late_arrivals="refuse")
    first = house.serve()
    await settle()
    await house.drain.start(window=100)
    late = house.serve(websocket_scope("/late", denial=denial))
    await late.task

    close = {"type": "websocket.close", "code": 1013, "reason": "server draining"}
    assert ([DENIED] if denial else [close]) == words(late.sent)
    assert late.receives == 1, "servers answer nothing before the connect was taken"
    assert calls == ["/ws"]
    assert [(event.kind, event.path) for event in house.recording.of(SessionRefused)] == [("websocket", "/late")]

    await asyncio.sleep(101)
    await first.task
    assert house.drain.state is DrainState.DRAINED
    after = house.serve()
    await after.task
    assert words(after.sent) == [DENIED]
    assert house.drain.progress().refused == 2


async def test_a_framework_may_call_send_on_another_thread():
    """As Channels does for synchronous consumers: what it returns is awaited on the loop, and there observers hear."""
    heard = []
    messages = [ACCEPT, {"type": "websocket.send", "text": "x"}, CLOSE]

    class Listener:
        def notify(self, event):
            heard.append((type(event), asyncio.get_running_loop()))

        def flush(self, timeout):
            pass

    async def app(scope, receive, send):
        await receive()
        for message in messages:
            sending = []
            thread = Thread(target=lambda message=message, sending=sending: sending.append(send(message)))
            thread.start()
            thread.join()
            await sending[0]

    drain = Drain(triggers=[], observers=[Listener()], shed_first="idle")
    server = HandServer(DrainMiddleware(app, drain=drain))
    await server.task
    loop = asyncio.get_running_loop()
    assert heard == [(SessionOpened, loop), (SessionClosed, loop)]
    assert server.sent == messages


async def test_a_late_arrival_may_have_gone_before_it_is_refused():
    """A send that the server refuses since the client has gone is nobody's error."""
    house = House(accept_and_wait)
    await house.drain.start(taken_out=True)
    server = house.serve()
    server.refusing = OSError("gone")
    await server.task
    assert house.drain.progress().refused == 1


async def test_retry_after_is_whole_seconds_rounded_up():
    """Retry-After is a whole number (RFC 9110 section 10.2.3): a fraction is rounded up."""
    house = House(accept_and_wait, retry_after=0.2)
    await house.drain.start(taken_out=True)
    server = house.serve()
    await server.task

    assert (b"retry-after", b"1") in server.sent[0]["headers"]


async def test_a_late_arrival_that_is_accepted_is_shed_with_the_rest():
    """With late_arrivals="accept" a new session is served and gets a place in what remains."""
    house = House(accept_and_wait, late_arrivals="accept")
    first = house.serve()
    await settle()
    await house.drain.start(window=100)
    late = house.serve()
    await settle()
    assert late.sent == [ACCEPT]
    await asyncio.sleep(101)
    await asyncio.gather(first.task, late.task)

    assert late.sent == [ACCEPT, CLOSE]
    assert house.drain.state is DrainState.DRAINED
    assert house.drain.report.arrived == 1


# --- The application's own close ---


async def test_an_application_that_has_closed_is_at_work_and_no_session():
    """After the application's own close its connection is over: not open, not asked to leave, and never cancelled."""
    saved = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 1000})
        await asyncio.sleep(60)  # it writes to its database
        saved.append(True)

    house = House(app)
    house.drain.before_close(lambda _: pytest.fail("nobody is there to hear it"))
    server = house.serve()
    await settle()
    assert house.drain.statistics().open == 0
    assert house.outcomes() == [Outcome.LEFT]
    await house.shed()
    assert house.drain.state is DrainState.DRAINED
    await server.task

    assert server.sent == [ACCEPT, {"type": "websocket.close", "code": 1000}]
    assert saved == [True]
    assert (house.drain.report.shed, house.drain.report.forced) == (0, 0)


async def test_a_client_that_has_left_is_not_told_anything():
    """Once the application has received the client's disconnect there is nobody to say farewell to."""

    async def app(scope, receive, send):
        await accept_and_wait(scope, receive, send)
        await asyncio.sleep(3)

    house = House(app)
    house.drain.before_close(lambda _: pytest.fail("nobody is there to hear it"))
    server = house.serve()
    server.deliver(GONE)
    await settle()
    await house.shed()
    await server.task

    assert server.sent == [ACCEPT]


# --- What an application may ask for ---


async def test_session_of_finds_the_session_from_the_websocket_and_from_the_scope():
    """`session_of` works on what an endpoint has at hand; the scope key is ours, not Starlette's cookie."""
    found = []

    async def endpoint(websocket):
        found.append((session_of(websocket), session_of(websocket.scope), websocket.scope["starlette_drain.session"]))
        assert "session" not in websocket.scope
        await websocket.accept()

    server = House(starlette_app(endpoint)).serve()
    await server.task

    assert len(set(found[0])) == 1
    assert found[0][0].path == "/ws"
    assert found[0][0].kind == "websocket"


async def test_session_of_a_connection_that_is_not_tracked_says_what_to_do():
    """Without the middleware there is no session; the error names the remedy."""
    with pytest.raises(NotTracked, match="add DrainMiddleware"):
        session_of(websocket_scope())


async def test_a_held_session_is_not_asked_to_leave_until_released():
    """`hold` keeps a session from being shed; nested holds count; after the last it is shed like the others."""
    release = asyncio.Event()
    seen = []

    async def endpoint(websocket):
        await websocket.accept()
        session = session_of(websocket)
        async with session.hold(), session.hold():
            await release.wait()
        async with session.hold():
            pass
        seen.append(await websocket.receive())

    house = House(starlette_app(endpoint))
    server = house.serve()
    await settle()
    assert house.drain.statistics().held == 1
    await house.drain.start(window=100)
    await asyncio.sleep(60)
    assert [message["type"] for message in server.sent] == ["websocket.accept"]
    release.set()
    await server.task

    assert seen == [SHED]
    assert server.clock[-1] <= 100.01


async def test_a_hold_ends_at_the_deadline():
    """The deadline holds for whoever holds."""

    async def endpoint(websocket):
        await websocket.accept()
        async with session_of(websocket).hold():
            await websocket.receive_text()

    house = House(starlette_app(endpoint))
    server = house.serve()
    await settle()
    await house.drain.start(window=100)
    await server.task

    assert server.sent[1:] == [CLOSE]
    assert server.clock[-1] == pytest.approx(99, abs=0.01)


async def test_wait_shed_returns_when_the_session_is_asked_to_leave():
    """`wait_shed` wakes those who neither receive nor send, before the farewell; afterwards it returns at once."""
    order = []

    async def endpoint(websocket):
        await websocket.accept()
        session = session_of(websocket)
        await asyncio.gather(session.wait_shed(), session.wait_shed())
        order.append("woken")
        await session.wait_shed()
        await websocket.send_text("my last words")

    house = House(starlette_app(endpoint))

    @house.drain.before_close
    async def farewell(session):
        await asyncio.sleep(1)
        order.append("farewell")

    server = house.serve()
    await settle()
    await house.shed()
    await server.task

    assert order == ["woken", "farewell"]
    assert server.sent[1:] == [{"type": "websocket.send", "text": "my last words"}, CLOSE]


# --- Facts and memory ---


async def test_the_facts_of_one_session_in_order():
    """Opened, shed, closed: one each, with one and the same session."""
    house = House(accept_and_wait)
    server = house.serve()
    await settle()
    await house.shed()
    await server.task

    events = [
        event for event in house.recording.events if isinstance(event, SessionOpened | SessionShed | SessionClosed)
    ]
    assert [SessionOpened, SessionShed, SessionClosed] == [type(event) for event in events]
    assert len({event.session for event in events}) == 1


@pytest.mark.parametrize("shape", ["uncaught", "parked", "finally_close", "left"])
async def test_a_closed_session_is_freed_without_the_garbage_collector(shape):
    """Servers are free of cycles (uvicorn's are), and so are we: tens of thousands of sessions end in one drain."""
    servers = []

    class Server:
        """Keeps the scope and hands out its own bound methods, as real servers do."""

        def __init__(self, app) -> None:
            self.app = app
            self.scope = websocket_scope()
            self.inbox = asyncio.Queue()
            self.inbox.put_nowait(CONNECT)

        async def run(self) -> None:
            await self.app(self.scope, self.receive, self.send)

        async def receive(self):
            return await self.inbox.get()

        async def send(self, message) -> None:
            pass

    async def app(scope, receive, send):
        inner = accept_and_wait if shape == "left" else starlette_app(SHAPES[shape])
        await inner(scope, receive, send)

    drain = Drain(triggers=[], observers=[], rng=Random(7), grace=1)
    middleware = DrainMiddleware(app, drain=drain)
    gc.collect()
    gc.disable()
    try:
        server = Server(middleware)
        servers.append(weakref.ref(server))
        task = asyncio.create_task(server.run())
        inbox = server.inbox
        del server
        await settle()
        if shape == "left":
            inbox.put_nowait(GONE)
        else:
            await drain.start(window=0)
        await asyncio.wait_for(task, 10)
        del task, inbox
        await settle()
        assert [each() for each in servers] == [None]
        assert not [
            each
            for each in gc.get_objects()
            if isinstance(each, WebSocketSession) and each._engine is drain.host.engine
        ]
    finally:
        gc.enable()
