"""Each rule of the twin finds the fault that it is there for."""

import asyncio

import pytest
from drawn_app import Forever, Gather, Hold, Raise, Receive, Send, Sleep
from model_client import Action, HttpClient, WebSocketClient
from rules import check_drained, check_untouched
from twin import Draining, Scene, play

from starlette_drain._asgi.connection import Connection
from starlette_drain._asgi.http import EventStreamSession
from starlette_drain._asgi.websocket import WebSocketSession
from starlette_drain._engine.engine import Engine

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:websockets", "ignore:remove second argument"),
    pytest.mark.slow,
    pytest.mark.unmeasured,
]

OPEN = Receive(), Send("websocket.accept")
EVENTS = Send("http.response.start", status=200, headers=((b"content-type", b"text/event-stream"),))
HALF = Send("http.response.body", body=b"data: whole\n\n", more_body=True)
SOON = Draining(0.65, window=3.0, grace=0.5)

POST = HttpClient("POST", "*/*")


def websocket(*steps):
    """Return the scene of a WebSocket in a drain."""
    return Scene((*OPEN, *steps), WebSocketClient(), drain=SOON)


async def tell_again(self, disconnect):
    """Tell of the disconnect each time, without suspending."""
    return self._receive_disconnect(disconnect)


async def wait_longer(self):
    """Let messages wait."""
    await asyncio.sleep(1)
    return await self._raw_receive()


def fail(*_):
    """Fail, where a session is to be closed."""
    msg = "planted"
    raise ValueError(msg)


def cancel_later(self, message):
    """Cancel the application in a while, although nothing has come of it yet."""
    self._prepare_closing()
    asyncio.get_running_loop().call_later(7, self.abort)
    return self._raw_send(message)


def complete(self, message):
    """Complete an answer with its first part."""
    return self._raw_send({**message, "more_body": False} if "more_body" in message else message)


FAULTS = {
    "it spins": (websocket(Forever((Receive(),))), Connection, "_receive_late", tell_again),
    "told of the disconnect more than once": (
        websocket(Receive(), Sleep(0.3), Receive(), Sleep(0.3)),
        Connection,
        "_receive_late",
        tell_again,
    ),
    "told of the disconnect again": (
        websocket(Gather(((Receive(),), (Sleep(17.3), Receive())))),
        WebSocketSession,
        "notifies_each_task",
        True,
    ),
    "an error of the application was lost": (
        websocket(Receive(), Raise("TimeoutError")),
        Connection,
        "absorbs_exception",
        lambda *_: True,
    ),
    "what we raised was logged": (websocket(Sleep(61.0)), Connection, "absorbs_exception", lambda *_: False),
    "work was cancelled although the connection was over": (
        websocket(Receive(), Sleep(17.3)),
        Connection,
        "_notice",
        lambda _: None,
    ),
    "an answer was asked to leave": (
        Scene((EVENTS, HALF, Sleep(17.3)), POST, drain=SOON),
        EventStreamSession,
        "_asks_for_events",
        lambda _: True,
    ),
    "although the session was not asked to leave": (
        Scene((EVENTS, HALF, Sleep(1.1)), POST, drain=SOON),
        EventStreamSession,
        "send",
        complete,
    ),
    "the session is not over in time": (
        websocket(Receive()),
        Connection,
        "begin_close",
        lambda *_: None,
    ),
    "is still counted": (websocket(Receive(), Sleep(300)), Connection, "connection_ended", lambda *_, **__: None),
    "asked to leave although it was held": (websocket(Hold((Receive(),))), Engine, "hold", lambda *_: None),
    "an error of ours": (websocket(Receive()), Connection, "begin_close", fail),
    "without a drain, something differs": (
        Scene((*OPEN, Receive()), WebSocketClient((Action(0.75, "text", "a"),))),
        Connection,
        "receive",
        wait_longer,
    ),
    "without a drain, something was cancelled": (
        Scene((*OPEN, Receive()), WebSocketClient()),
        WebSocketSession,
        "send",
        cancel_later,
    ),
    "cancelled although it was not asked to leave": (
        Scene((*OPEN, Sleep(300)), WebSocketClient(), drain=Draining(20.25, window=3.0, grace=0.5)),
        WebSocketSession,
        "send",
        cancel_later,
    ),
}


@pytest.mark.parametrize("rule", FAULTS)
def test_rule_can_fail(monkeypatch, rule):
    """A planted fault is found, and by the rule that is meant; without it the same scene is fine."""
    scene, owner, name, fault = FAULTS[rule]
    check = check_drained if scene.drain else check_untouched
    bare = play(scene, wrapped=False)
    check(scene, bare, play(scene, wrapped=True))
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(AssertionError, match=rule):
        check(scene, bare, play(scene, wrapped=True))
