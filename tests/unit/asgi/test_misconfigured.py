"""An option that cannot work stops the server; where nothing can be stopped, it changes nothing and says so."""

import json
import logging

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from starlette_drain import Drain, DrainMiddleware, SettingsError

TOKEN = "correct-horse-battery-staple"
BEARER = {"authorization": f"Bearer {TOKEN}"}
WRONG = "DRAIN_WINDOW='4m' cannot work: give a number of seconds above 0, such as 240, or None"


async def hello(_request) -> PlainTextResponse:
    """Answer."""
    return PlainTextResponse("hello")


async def echo(websocket: WebSocket) -> None:
    """Say one thing and go."""
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


def starlette(**options):
    """Return a Starlette application with the one line."""
    app = Starlette(routes=[Route("/{path:path}", hello, methods=["GET", "POST"]), WebSocketRoute("/ws", echo)])
    app.add_middleware(DrainMiddleware, **options)
    return app


def fastapi(**options):
    """Return a FastAPI application with the one line, inside another middleware."""
    app = FastAPI(routes=[Route("/{path:path}", hello, methods=["GET", "POST"]), WebSocketRoute("/ws", echo)])
    app.add_middleware(DrainMiddleware, **options)
    app.middleware("http")(lambda request, call_next: call_next(request))
    return app


@pytest.fixture(params=[starlette, fastapi])
def make(request):
    """Return what makes an application."""
    return request.param


@pytest.fixture
def wrong_window(monkeypatch):
    """Set a variable to what cannot work."""
    monkeypatch.setenv("DRAIN_WINDOW", "4m")


OTHERS = {
    "drain": ({"drain": 60}, "drain=60 cannot work: give a Drain"),
    "drain class": ({"drain": Drain}, "drain=<class .* cannot work: give a Drain"),
    "both": ({"drain": Drain(), "window": 60}, "window='…' cannot work: give it to the Drain"),
    "option": ({"window": "4m"}, "window='4m' cannot work: give a number of seconds"),
    "unknown": ({"windw": 60}, "windw='…' cannot work: there is no such option"),
    "pacing": ({"pacing": object()}, "pacing=.* cannot work: give a Pacing"),
    "path": ({"admin_path": "drain"}, "admin_path='drain' cannot work: start it with '/'"),
    "token": ({"admin_token": "hunter2"}, "admin_token='…' cannot work: give at least 16"),
    "aws": ({"target_group_arn": "tg/x"}, r"target_group_arn='tg/x' cannot work: give target group ARNs"),
}


# --- With a lifespan ---


@pytest.mark.anyio
async def test_the_startup_fails_with_the_message(make, wrong_window, caplog):
    """The server is told, once and before it takes connections, which variable is wrong and what to do."""
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    with pytest.raises(SettingsError):
        await make()({"type": "lifespan", "state": {}}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": f"starlette_drain: {WRONG}"}]
    assert caplog.records == []


@pytest.mark.parametrize(("options", "message"), OTHERS.values(), ids=OTHERS)
def test_whatever_is_wrong_fails_the_startup(make, options, message):
    """An object of the wrong kind, a value, a name mistyped: TestClient shows each of them."""
    with pytest.raises(SettingsError, match=message), TestClient(make(**options)):
        pass


@pytest.mark.parametrize(("options", "message"), OTHERS.values(), ids=OTHERS)
def test_by_hand_it_is_raised_at_once(options, message):
    """Around an application it is made while the module is imported, so the server does not get that far."""
    with pytest.raises(SettingsError, match=message):
        DrainMiddleware(starlette(), **options)
    with pytest.raises(SettingsError, match=message):
        Mount("/", starlette(), middleware=[Middleware(DrainMiddleware, **options)])


@pytest.mark.parametrize("drain", [Drain(), 300])
def test_the_drain_may_be_given_by_position(drain):
    """`add_middleware(DrainMiddleware, drain)` works, and a number there, meant as the window, fails the startup."""
    app = Starlette()
    app.add_middleware(DrainMiddleware, drain)
    if isinstance(drain, Drain):
        with TestClient(app):
            assert app.state.drain is drain
    else:
        with pytest.raises(SettingsError, match="drain=300 cannot work: give a Drain"), TestClient(app):
            pass


# --- Without ---


def test_without_a_lifespan_everything_passes(make, wrong_window, caplog):
    """Requests and WebSockets reach the application, and one ERROR says why nothing drains."""
    client = TestClient(make())
    for _ in range(2):
        assert client.get("/").text == "hello"
        with client.websocket_connect("/ws") as websocket:
            assert websocket.receive_text() == "hello"
    assert client.get("/drain", headers=BEARER).text == "hello", "no token was given, so there is no such route"
    (record,) = (each for each in caplog.records if each.name == "starlette_drain")
    assert record.levelno == logging.ERROR
    assert record.message.endswith(WRONG)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_admin_route_tells_the_bearer_of_the_token(make, wrong_window, monkeypatch, method):
    """`/drain` answers 503 with the message; only those who have the token are shown a value."""
    monkeypatch.setenv("DRAIN_ADMIN_TOKEN", TOKEN)
    client = TestClient(make())
    answer = client.request(method, "/drain", headers=BEARER)
    assert (answer.status_code, answer.json()) == (503, {"error": WRONG})
    assert answer.headers["cache-control"] == "no-store"
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": f"Bearer {TOKEN}s"}, {"authorization": TOKEN}):
        answer = client.request(method, "/drain", headers=headers)
        assert answer.status_code == 503
        assert "4m" not in answer.text


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"admin_path": "/elsewhere"}, "/elsewhere"),
        ({"admin_path": "elsewhere/"}, "/drain"),
        ({"drain": Drain(admin_token="another-" + TOKEN), "admin_path": "/own", "window": 60}, "/own"),
        ({"drain": 60}, "/drain"),
        ({"windw": 60}, "/drain"),
    ],
)
def test_the_admin_route_is_where_it_would_be(wrong_window, monkeypatch, options, path):
    """Its own options are heeded where they can work, from arguments, the environment or the Drain given."""
    monkeypatch.setenv("DRAIN_ADMIN_TOKEN", TOKEN)
    headers = {"authorization": f"Bearer another-{TOKEN}"} if path == "/own" else BEARER
    answer = TestClient(starlette(**options)).get(path, headers=headers)
    assert answer.status_code == 503
    assert "cannot work" in answer.json()["error"]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer"}, {"authorization": "Bearer hunter2"}])
def test_a_token_that_cannot_work_is_never_shown(caplog, headers):
    """It is said that it cannot work, which is no secret; but it opens nothing, and values stay hidden."""
    answer = TestClient(starlette(admin_token="hunter2")).get("/drain", headers=headers)
    assert answer.status_code == 503
    assert "admin_token='…' cannot work: give at least 16" in answer.json()["error"]
    answer = TestClient(starlette(admin_token="hunter2", window="4m")).get("/drain", headers=headers)
    assert answer.status_code == 503
    assert "4m" not in json.dumps(answer.json())
    assert "hunter2" not in caplog.text
