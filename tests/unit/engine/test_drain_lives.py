"""Beginnings and ends of a drain: who comes late to it, what comes after it, and whose business it is."""

import asyncio
from contextvars import ContextVar

import pytest
from guests import Guest

from starlette_drain import Drain, DrainCause, DrainMiddleware, DrainState
from starlette_drain._core.events import DrainFinished, DrainProgressed, DrainStarted, SessionShed
from starlette_drain.testing import ManualTrigger, RecordingObserver

pytestmark = pytest.mark.anyio

REQUEST = ContextVar("REQUEST", default="none")


class Watchful(ManualTrigger):
    """A trigger that counts how often it is watched, and where."""

    once_per_task = True

    def __init__(self, name="watchful"):
        super().__init__(name)
        self.watched = []

    async def watch(self, control):
        """Watch."""
        self.watched.append(REQUEST.get())
        await super().watch(control)


class ListeningTrigger(Watchful):
    """A trigger that is an observer too."""

    def notify(self, event):
        """Hear."""

    def flush(self, timeout):
        """Hold nothing."""


class Overhearing(RecordingObserver):
    """Notes in whose context it heard of what."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def notify(self, event):
        """Note both."""
        super().notify(event)
        self.heard.append((type(event), REQUEST.get()))


async def answer(scope, receive, send):
    """Accept a WebSocket and close it, or answer a request."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def connect(middleware, kind):
    """Make one connection; return what the server was sent."""
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": "/", "headers": [], "extensions": {"websocket.http.response": {}}}
    await middleware(scope, receive, send)
    return sent


# Who comes late to the beginning


async def test_what_the_middleware_brings_is_watched_although_the_drain_has_begun():
    """Starlette makes its middleware at the first request: within `run`, SIGTERM and the others are watched then."""
    drain = Drain()
    async with drain.run():
        assert drain.host.statuses() == {}
        DrainMiddleware(answer, drain=drain)
        await asyncio.sleep(1)
        states = {name: status.get("state", "watching") for name, status in drain.host.statuses().items()}
        assert states.keys() == {"sigterm", "target-health", "workers", "announcement", "process", "command"}
        assert "not started" not in states.values()


async def test_own_triggers_are_watched_once_though_the_middleware_comes_late():
    """A trigger that watches already is not made to watch again."""
    drain = Drain(triggers=[early := Watchful("early")], observers=[])
    async with drain.run():
        await asyncio.sleep(1)
        DrainMiddleware(answer, drain=drain)
        drain.host.add(late := ListeningTrigger("late"))
        await asyncio.sleep(1)
        assert (len(early.watched), len(late.watched)) == (1, 1)
        late.fire()
        assert drain.state is DrainState.DRAINED


# What comes after the end


async def live(middleware, between):
    """Play the server of one lifespan, and call *between* before its shutdown."""
    inbox, started = asyncio.Queue(), asyncio.Event()

    async def send(message):
        if message["type"] == "lifespan.startup.complete":
            started.set()

    inbox.put_nowait({"type": "lifespan.startup"})
    serving = asyncio.create_task(middleware({"type": "lifespan"}, inbox.get, send))
    await started.wait()
    await asyncio.sleep(1)
    await between()
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await serving


async def application(scope, receive, send):
    """Have a lifespan, and answer."""
    if scope["type"] != "lifespan":
        await answer(scope, receive, send)
        return
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


async def nothing():
    """Do nothing."""


@pytest.mark.parametrize("drains", [True, False])
async def test_a_request_after_the_end_begins_nothing(drains):
    """Some servers stop the lifespan before their sockets: nobody watches again, and drained is drained."""
    drain = Drain(triggers=[trigger := Watchful()], observers=[])
    middleware = DrainMiddleware(application, drain=drain)
    await live(middleware, drain.start if drains else nothing)
    state, report = drain.state, drain.report
    assert state is (DrainState.DRAINED if drains else DrainState.SERVING)

    assert (await connect(middleware, "http"))[0]["status"] == 200
    (first, *_) = await connect(middleware, "websocket")
    assert first.get("status") == (503 if drains else None)
    await asyncio.sleep(1)
    assert (drain.state, drain.report) == (state, report)
    assert not drain.host.is_running
    assert len(trigger.watched) == 1
    assert drain.statistics().open == 0


async def test_a_second_lifespan_after_the_end_is_a_new_beginning():
    """On the same event loop, after connections that came between the two."""
    drain = Drain(triggers=[trigger := Watchful()], observers=[])
    middleware = DrainMiddleware(application, drain=drain)
    for life in (1, 2):
        await live(middleware, drain.start)
        assert len(trigger.watched) == life
        await connect(middleware, "websocket")
        assert drain.state is DrainState.DRAINED


# Whose business it is


async def test_what_a_drain_does_belongs_to_no_request():
    """With `--lifespan off` the first request begins, and the last session ends it: neither is in the log's context."""
    observer, trigger = Overhearing(), Watchful()
    drain = Drain(triggers=[trigger], observers=[observer])
    middleware = DrainMiddleware(answer, drain=drain)
    REQUEST.set("request-1")
    await connect(middleware, "http")
    guests = [Guest(drain) for _ in range(4)]
    REQUEST.set("session-1")
    for guest in guests:
        drain.host.engine.track(guest)
        drain.host.engine.opened(guest)
    await asyncio.sleep(1)
    REQUEST.set("who asks")
    drain.host.engine.claim(DrainCause("watchful", "seen", drain.host.engine.time(), drain.host.engine.time() + 10))
    REQUEST.set("session-2")
    await asyncio.sleep(5)
    drain.host.engine.closed(guests[0], forced=False)
    assert await drain.wait_drained()
    assert trigger.watched == ["none"]
    heard = dict(observer.heard)
    assert heard[DrainStarted] == "who asks"
    assert {heard[kind] for kind in (SessionShed, DrainProgressed, DrainFinished)} == {"none"}
    await drain.host.end()


async def test_the_last_session_to_leave_does_not_give_the_end_its_name():
    """Whoever leaves last, the end of a drain is the drain's."""
    observer = Overhearing()
    drain = Drain(triggers=[], observers=[observer])
    async with drain.run():
        drain.host.engine.track(guest := Guest(drain))
        await drain.start(window=10)
        REQUEST.set("the last session")
        drain.host.engine.closed(guest, forced=False)
        assert drain.state is DrainState.DRAINED
    assert dict(observer.heard)[DrainFinished] == "none"


async def test_workers_that_were_forked_do_not_beat_in_time():
    """What was made before the fork is the same in all of them; what each draws after it is not."""
    drain, other = Drain(triggers=[], observers=[]), Drain(triggers=[], observers=[])
    assert drain.host.rng is other.host.rng is None
    drawn = set()
    for each in (drain, other):
        async with each.run():
            drawn.add(each.host.engine.retry_after())
    assert len(drawn) == 2
