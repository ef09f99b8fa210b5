"""Before a drain nobody can tell that the middleware is there: what the test suites of other projects taught us."""

import copy

import pytest

from starlette_drain import Drain, DrainMiddleware

pytestmark = pytest.mark.anyio

LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
HTTP = {"type": "http", "path": "/", "headers": [], "asgi": {"version": "3.0"}}
WEBSOCKET = {**HTTP, "type": "websocket"}


async def nothing_more():
    """Receive nothing of interest."""
    return {"type": "lifespan.shutdown"}


@pytest.mark.parametrize(
    "scope", [LIFESPAN, HTTP, WEBSOCKET, {"type": "something-new"}], ids=lambda scope: scope["type"]
)
async def test_what_an_application_returns_is_returned(scope):
    """An application should return nothing; where it does not, the server still gets to complain of it."""

    async def app(scope, receive, send):
        return "surprise"

    middleware = DrainMiddleware(app, drain=Drain(triggers=[], observers=[]))
    assert await middleware(dict(scope), nothing_more, nothing_more) == "surprise"


async def test_the_state_of_an_application_that_is_not_starlettes_is_its_own():
    """Only Starlette shows the lifespan state as `request.state`; another application finds the scope as it was."""
    scopes = []

    async def app(scope, receive, send):
        scopes.append(copy.deepcopy(scope))

    await DrainMiddleware(app, drain=Drain(triggers=[], observers=[]))(
        {**LIFESPAN, "state": {}}, nothing_more, nothing_more
    )
    assert scopes == [{**LIFESPAN, "state": {}}]


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


async def test_a_state_with_a_drain_in_it_can_be_copied():
    """A deep copy of the state holds the same Drain, which stands for the process."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        assert copy.deepcopy({"drain": drain})["drain"] is drain
