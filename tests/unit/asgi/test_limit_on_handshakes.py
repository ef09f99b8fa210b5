"""The limit on handshakes in progress, seen from a server: who is held, who goes on, what a refusal looks like."""

import asyncio
import logging
from contextlib import suppress
from random import Random

import pytest
from hand_server import ACCEPT, CONNECT, HandServer, settle, websocket_scope

from starlette_drain import Drain, DrainMiddleware
from starlette_drain._asgi.admin import describe
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import SessionRefused, StormBegan, StormEnded, StormProgressed
from starlette_drain.telemetry.logs import LogObserver
from starlette_drain.testing import RecordingObserver

pytestmark = pytest.mark.anyio

SET_UP = 0.1
"""Seconds that the application takes before it accepts."""

EVENTS = (b"accept", b"text/event-stream")


async def application(scope, receive, send):
    """Take a moment before each accept, and before each head; then wait for the end."""
    if scope["type"] == "websocket":
        await receive()
        await asyncio.sleep(SET_UP)
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["path"] == "/healthz":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await asyncio.sleep(SET_UP)
    head = [] if scope["path"] == "/none" else [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 404 if scope["path"] == "/none" else 200, "headers": head})
    if scope["path"] == "/stay":
        await asyncio.sleep(60)
    await send({"type": "http.response.body", "body": b"data: 1\n\n"})


class House:
    """An application behind the middleware, with the connections that were made."""

    def __init__(self, app=application, **options):
        self.observer = RecordingObserver()
        self.drain = Drain(
            triggers=[], observers=[self.observer, LogObserver()], rng=Random(7), **{"admission": "2", **options}
        )
        self.app = DrainMiddleware(app, drain=self.drain)

    def connect(self, count=1, **more):
        """Open WebSockets."""
        return [HandServer(self.app, websocket_scope(**more)) for _ in range(count)]

    def get(self, path="/events", *headers):
        """Ask for something over HTTP."""
        scope = {"type": "http", "path": path, "method": "GET", "headers": list(headers), "query_string": b""}
        return HandServer(self.app, scope, connected=False)

    def status(self):
        """Return what the limit says of itself."""
        return self.drain.host.engine.admission.status()


def accepted(servers):
    """Return how many were accepted."""
    return sum(ACCEPT in each.sent for each in servers)


async def test_no_more_handshakes_are_in_progress_than_the_limit():
    """The others are held, and each goes on when one is accepted: nothing is refused, and nobody is overtaken."""
    house = House()
    servers = house.connect(6)
    await settle()
    assert {key: house.status()[key] for key in ("limit", "in_progress", "held")} == {
        "limit": 2, "in_progress": 2, "held": 4,
    }  # fmt: skip
    assert house.drain.statistics().open == 2
    await asyncio.sleep(3 * SET_UP + 0.01)
    assert [round(each.clock[0], 2) for each in servers] == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert house.status() == {"limit": 2, "in_progress": 0, "held": 0, "held_ever": 4, "refused_ever": 0}
    assert house.drain.statistics().open == 6


@pytest.mark.parametrize("ending", ["close", "deny", "raise", "return"])
async def test_a_set_up_that_fails_gives_its_place_back(ending):
    """However the application ends it."""

    async def app(scope, receive, send):
        await receive()
        await asyncio.sleep(SET_UP)
        match ending:
            case "close":
                await send({"type": "websocket.close", "code": 1008})
                await asyncio.sleep(60)
            case "deny":
                await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
                await asyncio.sleep(60)
            case "raise":
                raise RuntimeError

    house = House(app, admission="1")
    servers = house.connect(3)
    await asyncio.sleep(3 * SET_UP + 0.01)
    assert house.status()["in_progress"] == 0
    for server in servers:
        server.task.cancel()
        with suppress(RuntimeError, asyncio.CancelledError):
            await server.task


async def test_a_client_that_is_held_for_long_is_refused_in_its_own_time():
    """503 within three seconds, and each is asked back when it can be served: here that is one a second."""
    house = House(never, admission="1")
    servers = house.connect(40)
    await asyncio.sleep(5.9)
    assert not any(each.sent for each in servers)
    await asyncio.sleep(3.2)
    refused = [each for each in servers if each.sent]
    assert len(refused) >= 37
    head, body = refused[0].sent
    assert head["status"] == 503
    assert body["body"] == b"This server is busy; try again.\n"
    seconds = sorted(int(dict(each.sent[0]["headers"])[b"retry-after"]) for each in refused)
    assert seconds[0] >= 5
    assert max(map(seconds.count, seconds)) <= 3
    moments = [each.clock[0] for each in refused]
    assert max(moments) - min(moments) > 2.5
    assert all(each.task.done() for each in refused)
    assert house.status()["refused_ever"] == len(refused) == len(house.observer.of(SessionRefused))
    assert {each.because for each in house.observer.of(SessionRefused)} == {"storm"}


async def test_a_websocket_is_refused_by_an_accept_where_that_is_wanted():
    """For clients that are known to obey 1013."""
    house = House(admission="1:close")
    house.app.app = never
    servers = house.connect(5)
    await asyncio.sleep(9.1)
    close = {"type": "websocket.close", "code": 1013, "reason": "server busy"}
    refused = [each.sent for each in servers if each.sent]
    assert refused
    assert all(each == [{"type": "websocket.accept"}, close] for each in refused)


async def never(_scope, receive, _send):
    """Neither accept nor refuse."""
    await receive()
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("streams", "origin", "status", "begins"),
    [
        ({"/events": "session"}, False, 200, b"retry: "),
        ({"/events": "session"}, True, 200, b"retry: "),
        ({"/events": "session:cut"}, False, 503, b"This server is busy"),
        (None, False, 503, b"This server is busy"),
    ],
)
async def test_how_a_stream_is_refused(streams, origin, status, begins):
    """One that is declared to end cleanly with 200, `retry:` and the end; every other with 503."""

    async def app(scope, receive, send):
        await asyncio.sleep(3600)

    house = House(app, admission="1", streams=streams)
    house.get("/events", EVENTS)
    headers = [EVENTS, (b"origin", b"https://a.example")] if origin else [EVENTS]
    servers = [house.get("/events", *headers) for _ in range(4)]
    await asyncio.sleep(9.1)
    head, body = next(each for each in servers if each.sent).sent
    assert head["status"] == status
    assert body["body"].startswith(begins)
    told = dict(head["headers"])
    assert (b"retry-after" in told) == (status == 503)
    assert told.get(b"access-control-allow-origin") == (b"https://a.example" if origin else None)
    if status == 200:
        assert 5000 <= int(body["body"].removeprefix(b"retry: ")) <= 10000


async def test_health_checks_ordinary_requests_and_answers_are_never_held():
    """Nor is a stream that a path declares an answer."""
    house = House(admission="1", streams={"/stay": "answer"})
    house.connect(50)
    await settle()
    health, answer, other = house.get("/healthz"), house.get("/stay", EVENTS), house.get("/none")
    await settle()
    assert health.sent[0]["status"] == 200
    await asyncio.sleep(SET_UP + 0.01)
    assert answer.sent[0]["status"] == 200
    assert other.sent[0]["status"] == 404
    assert house.status()["held"] > 0


async def test_the_admin_route_is_never_held():
    """Whatever it is asked for with."""
    house = House(admission="1", admin_token="x" * 16)
    house.connect(50)
    await settle()
    admin = house.get("/drain", EVENTS, (b"authorization", b"Bearer " + b"x" * 16))
    await settle()
    assert admin.sent[0]["status"] == 200


async def test_an_event_stream_is_set_up_with_its_head():
    """Its place is free from then on, also where the response is no stream at all, or never begins."""
    house = House(admission="1")
    streams = [house.get(path, EVENTS) for path in ("/stay", "/none", "/events")]
    waiting = house.connect(1)
    await asyncio.sleep(3 * SET_UP + 0.01)
    assert [each.sent[0]["status"] for each in streams] == [200, 404, 200]
    await asyncio.sleep(SET_UP)
    assert accepted(waiting) == 1


async def test_a_request_that_ends_without_a_head_gives_its_place_back():
    """The application has failed; the server answers for it."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            raise RuntimeError
        await application(scope, receive, send)

    house = House(app, admission="1")
    failed = house.get("/events", EVENTS)
    with pytest.raises(RuntimeError):
        await failed.task
    assert house.status()["in_progress"] == 0


async def test_a_handshake_that_is_cancelled_while_it_waits_takes_no_place():
    """The server has given it up, also in the very moment at which it could go on."""
    house = House(admission="1")
    first, second, third = house.connect(3)
    await settle()
    second.task.cancel()
    await settle()
    await asyncio.sleep(SET_UP + 0.01)
    await settle()
    assert accepted([first]) == 1
    engine = house.drain.host.engine
    fourth = house.connect(1)[0]
    await settle()
    wake = engine.admission._wake
    engine.admission._wake = lambda arrival, *, goes_on: (wake(arrival, goes_on=goes_on), fourth.task.cancel())
    await asyncio.sleep(SET_UP + 0.01)
    assert accepted([third]) == 1
    engine.admission._wake = wake
    await settle()
    assert house.status()["in_progress"] == house.status()["held"] == 0
    assert not accepted([second, fourth])


async def test_one_that_was_cancelled_and_has_not_noticed_yet_takes_no_place():
    """Its turn comes in the same pass of the event loop."""
    house = House(admission="1")
    house.connect(2)
    await settle()
    admission = house.drain.host.engine.admission
    gate = admission._gate
    arrival = gate._fresh[0]
    arrival.waiter.cancel()
    gate.finish(0.0, next(iter(gate._started)))
    admission._let_in()
    assert house.status()["in_progress"] == 0


async def test_a_drain_takes_precedence():
    """What it refuses is refused at once, also if it was held, in the words of a drain."""
    house = House(admission="1", late_arrivals="refuse")
    house.app.app = slow
    servers = house.connect(30)
    await settle()
    await house.drain.start(window=60)
    late = house.connect(1)[0]
    await settle()
    assert late.sent[1]["body"] == b"This server is draining; try again.\n"
    await asyncio.sleep(0.5)
    assert sum(bool(each.sent) for each in servers) == 29
    assert all(each.sent[1]["body"] == b"This server is draining; try again.\n" for each in servers[1:])
    assert house.drain.progress().refused == 30
    assert {each.because for each in house.observer.of(SessionRefused)} == {"drain"}


async def slow(_scope, receive, send):
    """Accept after three seconds."""
    await receive()
    await asyncio.sleep(3)
    await send(ACCEPT)
    await receive()


async def test_a_handshake_whose_turn_comes_as_a_drain_begins_is_refused_by_the_drain():
    """It has a place and has not gone on yet: the place is given back."""
    house = House(admission="1", late_arrivals="refuse")
    _, second = house.connect(2)
    await settle()
    engine = house.drain.host.engine
    wake = engine.admission._wake

    def wake_and_drain(arrival, *, goes_on):
        wake(arrival, goes_on=goes_on)
        engine.claim(DrainCause("test", "a test", engine.time(), engine.time() + 60))

    engine.admission._wake = wake_and_drain
    await asyncio.sleep(SET_UP + 0.01)
    assert second.sent[1]["body"] == b"This server is draining; try again.\n"
    assert house.status()["in_progress"] == house.status()["held"] == 0


async def test_a_handshake_that_is_cancelled_as_a_drain_refuses_it_is_not_refused():
    """Both happen in one pass of the event loop."""
    house = House(admission="1", late_arrivals="refuse")
    _, second = house.connect(2)
    await settle()
    engine = house.drain.host.engine
    engine.claim(DrainCause("test", "a test", engine.time(), engine.time() + 60))
    second.task.cancel()
    engine.admission._check()
    await settle()
    assert second.sent == []
    assert house.drain.progress().refused == 0
    assert house.status()["held"] == 0


async def test_late_arrivals_that_a_drain_lets_in_are_held_like_others():
    """The limit protects the application whatever else goes on."""
    house = House(admission="1", late_arrivals="accept")
    house.connect(1)
    await house.drain.start(window=60)
    servers = house.connect(3)
    await settle()
    assert house.status()["held"] == 3
    await asyncio.sleep(4 * SET_UP + 0.01)
    assert accepted(servers) == 3


async def test_observing_holds_and_refuses_nothing(caplog):
    """It says what would have waited."""
    caplog.set_level(logging.INFO, "starlette_drain")
    house = House(admission="2:observe")
    servers = house.connect(10)
    await asyncio.sleep(SET_UP + 0.01)
    assert accepted(servers) == 10
    assert house.status()["held_ever"] == 8
    await asyncio.sleep(10)
    (ended,) = house.observer.of(StormEnded)
    assert ended.observes_only
    assert [each.getMessage().split(",")[0][:60] for each in caplog.records if "onnections" in each.getMessage()] == [
        "More connections arrive than can be set up: 3 are in progres",
        "The connections that arrived have been set up",
    ]
    assert "would have waited" in caplog.text


async def test_the_mode_observe_holds_nothing():
    """It changes nothing that a client could see."""
    house = House(mode="observe")
    servers = house.connect(10)
    await asyncio.sleep(SET_UP + 0.01)
    assert accepted(servers) == 10


async def test_a_storm_has_a_line_at_its_beginning_and_at_its_end():
    """However many there are in it; in between an event about once a second."""
    house = House(admission="2")
    servers = house.connect(50)
    await asyncio.sleep(60)
    assert accepted(servers) == 50
    (began,), (ended,) = house.observer.of(StormBegan), house.observer.of(StormEnded)
    assert (began.limit, began.in_progress) == (2, 2)
    storm = ended.storm
    assert (storm.held, storm.refused, storm.most_held) == (48, 0, 48)
    assert storm.longest_wait == pytest.approx(24 * SET_UP, abs=0.01)
    assert 1 <= len(house.observer.of(StormProgressed)) <= 10
    house.connect(10)
    await asyncio.sleep(60)
    assert len(house.observer.of(StormEnded)) == 2


async def test_get_drain_shows_it():
    """The figures of the task, and whether it only counts; nothing where there is no limit."""
    house = House(admission="2:observe")
    house.connect(3)
    await settle()
    assert describe(house.drain)["admission"] == {
        "limit": 2, "in_progress": 3, "held": 0, "held_ever": 1, "refused_ever": 0, "observes_only": True,
    }  # fmt: skip
    off = House(admission=None)
    off.connect(1)
    await settle()
    assert "admission" not in describe(off.drain)


async def test_workers_divide_it():
    """The limit is the task's."""
    house = House(admission="4")
    house.connect(1)
    await settle()
    house.drain.host.engine.divide(2)
    assert house.status()["limit"] == 2


async def test_too_many_are_refused_at_once():
    """Memory has a limit."""
    house = House(admission="1")
    house.connect(1)
    await settle()
    house.drain.host.engine.admission._gate.held = 20_000
    late = house.connect(1)[0]
    await settle()
    assert late.sent[0]["status"] == 503


async def test_off_it_is_not_there():
    """The default: nothing is counted, and nothing is looked at."""
    house = House(admission=None)
    servers = house.connect(100)
    await asyncio.sleep(SET_UP + 0.01)
    assert accepted(servers) == 100
    assert house.drain.host.engine.admission is None
    assert CONNECT not in servers[0].sent
