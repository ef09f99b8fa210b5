"""The kill switch: with the mode off an application is served as if the middleware were not there."""

import asyncio
import signal

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from starlette_drain import Drain, DrainMiddleware, session_of
from starlette_drain._core.events import TriggerStoodDown
from starlette_drain.testing import ManualTrigger, RecordingObserver

TOKEN = "correct-horse-battery-staple"


async def hello(request):
    """Answer, and say whether the drain is shown."""
    return PlainTextResponse(f"hello {isinstance(request.app.state.drain, Drain)}")


async def echo(websocket):
    """Use all that an application may ask of its session."""
    session = session_of(websocket)
    await websocket.accept()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await session.wait_shed()
    async with session.hold():
        await websocket.send_text(await websocket.receive_text())
    for send in (session.send_text, session.send_bytes, session.send_json):
        await send(b"")
    await websocket.send_json([session.kind, session.path, session.shed_at, session.reconnect_after_ms])
    await websocket.close()


def make(**options):
    """Return an application with the one line."""
    routes = [Route("/{path:path}", hello, methods=["GET", "POST"]), WebSocketRoute("/ws", echo)]
    return Starlette(routes=routes, middleware=[Middleware(DrainMiddleware, **options)])


def test_everything_passes(monkeypatch):
    """No admin route, and no signal handler; what the application asks of its session works, and does nothing."""
    monkeypatch.setenv("DRAIN_MODE", "off")
    before = signal.getsignal(signal.SIGTERM)
    with TestClient(make(admin_token=TOKEN, sigterm=True)) as client:
        answer = client.post("/drain", headers={"authorization": f"Bearer {TOKEN}"})
        assert (answer.status_code, answer.text) == (200, "hello True")
        with client.websocket_connect("/ws") as websocket:
            websocket.send_text("x")
            assert websocket.receive_text() == "x"
            assert websocket.receive_json() == ["websocket", "/ws", None, 5000]
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.anyio
async def test_no_trigger_watches():
    """Triggers that are given do not begin either."""

    class Eager(ManualTrigger):
        async def watch(self, control):
            control.emit(TriggerStoodDown(control.time(), "eager", "it has begun"))

    async def begun(mode):
        recording = RecordingObserver()
        drain = Drain(mode=mode, triggers=[Eager("eager")], observers=[recording])
        DrainMiddleware(make(), drain=drain)
        async with drain.run():
            await asyncio.sleep(1)
        return len(recording.of(TriggerStoodDown))

    assert [await begun(mode) for mode in ("off", "drain")] == [0, 1]


def test_a_wrong_option_is_still_refused():
    """The switch hides no mistake."""
    with pytest.raises(ValueError, match="mode='of' cannot work: use 'drain', 'observe' or 'off'"):
        Drain(mode="of")
