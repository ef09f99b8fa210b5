"""Before a drain nobody can tell that the middleware is there: what the test suites of other projects taught us."""

import asyncio
import copy
import inspect
import sys

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from starlette_drain import Drain, DrainMiddleware

pytestmark = pytest.mark.anyio

LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
HTTP = {"type": "http", "path": "/", "headers": [], "asgi": {"version": "3.0"}}
WEBSOCKET = {**HTTP, "type": "websocket"}


async def nothing_more():
    """Receive nothing of interest."""
    return {"type": "lifespan.shutdown"}


async def nothing_at_all(_message):
    """Send to nobody."""


@pytest.mark.parametrize(
    "scope", [LIFESPAN, HTTP, WEBSOCKET, {"type": "something-new"}], ids=lambda scope: scope["type"]
)
async def test_what_an_application_returns_is_returned(scope):
    """An application should return nothing; where it does not, the server still gets to complain of it."""

    async def app(scope, receive, send):
        return "surprise"

    middleware = DrainMiddleware(app, drain=Drain(triggers=[], observers=[]))
    assert await middleware(dict(scope), nothing_more, nothing_more) == "surprise"


@pytest.mark.parametrize("scope", [LIFESPAN, HTTP, WEBSOCKET], ids=lambda scope: scope["type"])
async def test_what_an_application_is_given_passes_for_coroutine_functions(scope):
    """Channels' synchronous consumers send from a thread, and asgiref warns where `send` is no coroutine function."""
    is_coroutine_function = (inspect if sys.version_info >= (3, 12) else asyncio).iscoroutinefunction
    given = []

    async def app(scope, receive, send):
        given.extend((receive, send))

    middleware = DrainMiddleware(app, drain=Drain(triggers=[], observers=[]))
    await middleware(dict(scope), nothing_more, nothing_at_all)
    assert [is_coroutine_function(each) for each in given] == [True, True]


@pytest.mark.parametrize("scope", [LIFESPAN, HTTP, WEBSOCKET], ids=lambda scope: scope["type"])
async def test_the_state_of_an_application_that_is_not_starlettes_is_its_own(scope):
    """Only Starlette shows the state as `request.state`; another application finds the scope as it was."""
    states = []

    async def app(scope, receive, send):
        states.append(copy.deepcopy(scope["state"]))

    middleware = DrainMiddleware(app, drain=Drain(triggers=[], observers=[]))
    await middleware({**scope, "state": {"mine": 1}}, nothing_more, nothing_more)
    assert states == [{"mine": 1}]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("mode", ["drain", "off"])
@pytest.mark.parametrize("scope", [LIFESPAN, HTTP], ids=lambda scope: scope["type"])
async def test_starlettes_applications_show_the_drain(scope, mode, inside):
    """`app.state.drain` is the Drain, with a lifespan and without, unless the application has its own there."""
    drain = Drain(triggers=[], observers=[], mode=mode)
    for own in (None, "mine"):
        middleware = [Middleware(DrainMiddleware, drain=drain)] if inside else []
        app = Starlette(middleware=middleware)
        if own:
            app.state.drain = own
        scope = {**scope, "method": "GET", "query_string": b""}
        await (app if inside else DrainMiddleware(app, drain=drain))(scope, nothing_more, nothing_at_all)
        assert app.state.drain == (own or drain)
        await drain.host.end(may_begin_again=True)


async def test_a_request_finds_in_its_scope_what_it_would_find_without_us():
    """Nothing is added to the state of a request, and one entry to its scope."""
    seen = []

    async def app(scope, receive, send):
        seen.append(dict(scope))

    scope = {**HTTP, "state": {"mine": 1}}
    await DrainMiddleware(app, drain=Drain(triggers=[], observers=[]))(dict(scope), nothing_more, nothing_more)
    assert seen[0].pop("starlette_drain.session")
    assert seen == [scope]


@pytest.mark.parametrize("mode", ["drain", "observe", "off"])
@pytest.mark.parametrize("scope", [LIFESPAN, HTTP, WEBSOCKET], ids=lambda scope: scope["type"])
async def test_what_an_application_is_given_are_coroutine_functions(scope, mode):
    """As a server's own are: asgiref's `async_to_sync`, which synchronous consumers use, warns of others."""
    is_coroutine_function = asyncio.iscoroutinefunction if sys.version_info < (3, 12) else inspect.iscoroutinefunction
    found = []

    async def app(scope, receive, send):
        found.extend([is_coroutine_function(receive), is_coroutine_function(send)])

    await DrainMiddleware(app, drain=Drain(triggers=[], observers=[], mode=mode))(
        dict(scope), nothing_more, nothing_at_all
    )
    assert found == [True, True]


async def test_a_scope_that_is_served_again_is_tracked_again():
    """A server, or a middleware around ours, may use the dictionary of a connection that has ended for the next one."""
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["starlette_drain.session"], drain.statistics().open))

    drain = Drain(triggers=[], observers=[])
    middleware = DrainMiddleware(app, drain=drain)
    scope = dict(WEBSOCKET)
    for _ in range(2):
        await middleware(scope, nothing_more, nothing_at_all)
    assert [count for _, count in seen] == [1, 1]
    assert seen[0][0] is not seen[1][0]


async def test_headers_that_can_be_read_only_once_arrive():
    """ASGI has it that headers are iterable: a generator is good enough, and nobody reads it before the server."""
    sent = []

    async def app(scope, receive, send):
        headers = ((name, b"value") for name in (b"x-one", b"x-two"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    await DrainMiddleware(app, drain=Drain(triggers=[], observers=[]))(dict(HTTP), nothing_more, send)
    assert list(sent[0]["headers"]) == [(b"x-one", b"value"), (b"x-two", b"value")]
