"""What frameworks and servers that are not Starlette and not uvicorn meet at a shed."""

import asyncio

import pytest
from hand_server import ACCEPT, CLOSE, HandServer, settle
from starlette.routing import Router, WebSocketRoute
from starlette.websockets import WebSocketDisconnect
from websocket_shapes import starlette_app

from starlette_drain import Drain, DrainMiddleware

pytestmark = pytest.mark.anyio


async def shed(drain: Drain) -> None:
    """Ask everyone to leave at once, and let happen what needs no time."""
    await drain.start(window=0)
    await asyncio.sleep(0.001)
    await settle()


def serve(app, drain: Drain) -> HandServer:
    """Serve one WebSocket."""
    return HandServer(DrainMiddleware(app, drain=drain))


def quiet_drain() -> Drain:
    """Make a Drain that nobody triggers and nobody listens to."""
    return Drain(triggers=[], observers=[])


async def test_an_application_of_no_framework_meets_an_oserror_when_it_sends_too_late():
    """The ASGI specification asks for one (2.4); code and reason are on it all the same."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0.001)
        except OSError as error:
            seen.append(
                (
                    isinstance(error, WebSocketDisconnect),
                    isinstance(error, ConnectionResetError),
                    error.code,
                    error.reason,
                )
            )

    drain = quiet_drain()
    server = serve(app, drain)
    await settle()
    await shed(drain)
    await server.task
    assert seen == [(True, True, 1012, "server draining")]


@pytest.mark.parametrize("make", [starlette_app, lambda endpoint: Router([WebSocketRoute("/ws", endpoint)])])
async def test_a_starlette_endpoint_meets_no_oserror(make):
    """Starlette would make a disconnect with the code 1006 of it."""
    seen = []

    async def endpoint(websocket):
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(0.001)
        except WebSocketDisconnect as error:
            seen.append((isinstance(error, OSError), error.code, error.reason))

    drain = quiet_drain()
    server = serve(make(endpoint), drain)
    await settle()
    await shed(drain)
    await server.task
    assert seen == [(False, 1012, "server draining")]


async def test_a_task_that_is_about_to_be_cancelled_meets_nothing_when_it_sends():
    """Frameworks that listen in one task and run the endpoint in another cancel that one: it need not see an error."""
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)

        async def tick():
            try:
                while True:
                    await send({"type": "websocket.send", "text": "tick"})
                    await asyncio.sleep(0)
            except BaseException as error:
                seen.append(type(error))
                raise

        both = {asyncio.create_task(tick()), asyncio.create_task(receive())}
        _, pending = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    drain = quiet_drain()
    server = serve(app, drain)
    await settle()
    await shed(drain)
    await server.task
    assert [asyncio.CancelledError] == seen


@pytest.mark.parametrize("code", [1001, 1012, 1013])
async def test_a_server_that_sends_no_such_code_sends_a_private_one(code):
    """As daphne does: it refuses every standard code but 1000, which clients take for final: 4012 says 1012."""
    drain = Drain(triggers=[], observers=[], close_code=code)

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()

    server = serve(app, drain)
    server.send = refusing_standard_codes(server.send)
    await settle()
    await shed(drain)
    await server.task
    assert [ACCEPT, {**CLOSE, "code": code + 3000}] == server.sent


async def test_a_private_code_that_is_refused_is_not_tried_again():
    """Nothing more can be done for such a session; the application ends all the same."""
    drain = Drain(triggers=[], observers=[], close_code=4000)
    tries = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()

    async def refuse(message):
        if message["type"] == "websocket.close":
            tries.append(message["code"])
            msg = "invalid close code"
            raise LookupError(msg)

    server = serve(app, drain)
    server.send = refuse
    await settle()
    await shed(drain)
    await server.task
    assert tries == [4000]


def refusing_standard_codes(send):
    """Refuse as autobahn does, with an exception of no particular class."""

    async def refusing(message):
        if message["type"] == "websocket.close" and message["code"] < 3000:
            msg = f"invalid close code {message['code']} (must be 1000 or from [3000, 4999])"
            raise Exception(msg)  # noqa: TRY002
        await send(message)

    return refusing


async def test_a_middleware_inside_another_leaves_the_connections_to_it(caplog):
    """An application and one that it mounts may both bring one: the outer tracks, the inner says that it does not."""
    outer, inner = quiet_drain(), quiet_drain()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()

    nested = DrainMiddleware(app, drain=inner)
    servers = [serve(nested, outer), serve(nested, outer)]
    await settle()
    assert (outer.statistics().open, inner.statistics().open) == (2, 0)
    assert caplog.text.count("another DrainMiddleware around this one") == 1
    await shed(outer)
    for server in servers:
        await server.task
        assert server.sent == [ACCEPT, CLOSE]


async def test_a_generator_that_yields_after_the_disconnect_is_cleaned_up_at_once():
    """Where the cancellation found it in our send, the generator would wait for the garbage collector."""
    seen = []
    go = asyncio.Event()
    kept = []

    async def events():
        try:
            yield b"data: first\n\n"
            await go.wait()
            yield b"data: too late\n\n"
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def stream():
            kept.append(generator := events())  # as a frame in a traceback keeps it
            async for chunk in generator:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

        streaming = asyncio.create_task(stream())
        await receive()
        go.set()  # the next event comes just when the framework hears the disconnect
        await asyncio.sleep(0)
        streaming.cancel()
        await asyncio.wait([streaming])

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        pass

    drain = quiet_drain()
    headers = [(b"accept", b"text/event-stream")]
    scope = {"type": "http", "path": "/stream", "method": "GET", "headers": headers, "asgi": {"spec_version": "2.3"}}
    task = asyncio.create_task(DrainMiddleware(app, drain=drain)(scope, receive, send))
    await settle()
    await shed(drain)
    await task
    assert seen == ["cleaned up"]
