"""What hypothesis draws: programs, clients, servers, drains."""

from itertools import chain
from typing import Any

from drawn_app import (
    Big,
    Echo,
    Forever,
    Gather,
    Group,
    Hold,
    Limit,
    Raise,
    Receive,
    Repeat,
    Return,
    Send,
    Sleep,
    Spawn,
    Step,
    Steps,
    Try,
)
from hypothesis import strategies as st
from model_client import Action, HttpClient, WebSocketClient
from model_server import HTTP, WEBSOCKETS
from twin import Draining, Scene, Stop

__all__ = ["http_scenes", "websocket_scenes"]

BIG = 300_000
"""Bytes that do not fit into what a client does not read."""

TIMES = st.sampled_from([0, 0.3, 1.1, 4.7, 17.3, 61.0])

ERRORS = st.sampled_from(
    ["OwnError", "OSError", "ConnectionResetError", "TimeoutError", "WebSocketDisconnect", "ClientDisconnect"]
)

CATCHES = st.sampled_from([None, "Exception", "OSError", "RuntimeError", "WebSocketDisconnect", "CancelledError"])


def _bodies(steps: st.SearchStrategy[Step], most: int = 4) -> st.SearchStrategy[Steps]:
    return st.lists(steps, min_size=1, max_size=most).map(tuple)


def _compounds(inner: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    body = _bodies(inner, 3)
    pause = st.sampled_from([Sleep(0.3), Sleep(4.7), Receive()])
    return st.one_of(
        st.builds(Echo, body),
        st.builds(Try, body, CATCHES, body, st.one_of(st.just(()), body)),
        st.builds(Repeat, st.integers(2, 3), body),
        st.builds(lambda body, pause: Forever((*body, pause)), body, pause),
        st.builds(Spawn, body),
        st.builds(Group, st.sampled_from(["asyncio", "anyio", "first"]), _bodies(body, 3)),
        st.builds(Gather, _bodies(body, 3)),
        st.builds(Limit, st.sampled_from(["wait_for", "timeout", "anyio"]), st.sampled_from([0.3, 4.7, 17.3]), body),
        st.builds(Hold, body),
    )


def _programs(
    leaves: st.SearchStrategy[Step], beginnings: st.SearchStrategy[Steps], last: Step
) -> st.SearchStrategy[Steps]:
    """Draw a beginning, anything, and often an end of the connection with work after it."""
    steps = st.recursive(leaves, _compounds, max_leaves=6)
    ends = st.sampled_from([(), (), (Sleep(4.7), last, Sleep(17.3)), (Receive(), Sleep(61.0))])
    return st.builds(lambda *parts: tuple(chain(*parts)), beginnings, _bodies(steps, 5), ends)


ANYWHERE = st.one_of(
    st.just(Receive()),
    st.builds(Sleep, TIMES),
    st.builds(Sleep, TIMES),
    st.builds(Raise, ERRORS),
    st.builds(Return, st.sampled_from([None, None, "a value"])),
)

TEXT = Send("websocket.send", text="news")
CLOSE = Send("websocket.close")

WEBSOCKET_SENDS: list[Step] = [
    TEXT,
    TEXT,
    TEXT,
    Send("websocket.send", bytes=Big(BIG)),
    CLOSE,
    Send("websocket.close", code=4000, reason="enough"),
    Send("websocket.accept"),
    Send("websocket.http.response.start", status=403, headers=((b"x-why", b"no"),)),
    Send("websocket.http.response.body", body=b"not ", more_body=True),
    Send("websocket.http.response.body", body=b"today"),
]

WEBSOCKET_BEGINNINGS = st.sampled_from(
    [
        (Receive(), Send("websocket.accept")),
        (Receive(), Send("websocket.accept")),
        (Receive(), Send("websocket.accept")),
        (Receive(), Send("websocket.accept", headers=((b"x-a", b"b"),))),
        (Receive(), Sleep(4.7), Send("websocket.accept")),
        (Receive(),),
        (Send("websocket.accept"),),
        (),
    ]
)

WEBSOCKET_PROGRAMS = _programs(st.one_of(ANYWHERE, st.sampled_from(WEBSOCKET_SENDS)), WEBSOCKET_BEGINNINGS, CLOSE)


def _head(kind: bytes | None, status: int = 200, **headers: bytes) -> Send:
    pairs = [(b"content-type", kind)] if kind else []
    pairs += [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Send("http.response.start", status=status, headers=tuple(pairs))


def _part(body: bytes, *, more: bool = True) -> Send:
    return Send("http.response.body", body=body, more_body=more)


EVENTS = _head(b"text/event-stream")
LAST = _part(b"", more=False)

HTTP_SENDS: list[Step] = [
    EVENTS,
    _head(b"text/plain"),
    _part(b"data: whole\n\n"),
    _part(b"data: whole\n\n"),
    _part(b"data: ha"),
    _part(Big(BIG)),
    _part(b"data: [DONE]\n\n", more=False),
    LAST,
]

HTTP_BEGINNINGS = st.sampled_from(
    [
        (EVENTS,),
        (EVENTS,),
        (Receive(), EVENTS),
        (Receive(), EVENTS, _part(b"data: first\n\n")),
        (Receive(), Sleep(4.7), _head(b"text/event-stream; charset=utf-8", cache_control=b"no-store")),
        (_head(b"text/event-stream", status=500),),
        (_head(b"text/event-stream", content_length=b"13"), _part(b"data: whole\n\n")),
        (_head(b"application/json"), _part(b"{}", more=False)),
        (_head(b"application/json", content_length=b"2", connection=b"close"), _part(b"{}", more=False)),
        (_head(b"application/x-ndjson"), _part(b"{}\n")),
        (_head(None, status=204), _part(b"", more=False)),
        (Receive(),),
        (),
    ]
)

HTTP_PROGRAMS = _programs(st.one_of(ANYWHERE, st.sampled_from(HTTP_SENDS)), HTTP_BEGINNINGS, LAST)


def _actions(*does: tuple[str, Any]) -> st.SearchStrategy[tuple[Action, ...]]:
    moments = st.sampled_from([0.05, 0.75, 2.55, 7.15, 12.85, 24.65, 70.35])
    one = st.builds(lambda at, each: Action(at, *each), moments, st.sampled_from(does))
    return st.lists(one, max_size=4).map(lambda each: tuple(sorted(each, key=lambda action: action.at)))


GOING = (("drop", None), ("reset", None), ("deaf", None), ("hear", None))

WEBSOCKET_CLIENTS = st.builds(
    WebSocketClient,
    _actions(("text", "hello"), ("text", "hello"), ("bytes", b"\0"), ("close", 1000), ("close", 4321), *GOING),
    st.sampled_from([False, False, False, True]),
)

HTTP_CLIENTS = st.builds(
    HttpClient,
    st.sampled_from(["GET", "GET", "POST"]),
    st.sampled_from(["*/*", "text/event-stream", "text/event-stream"]),
    st.sampled_from([b"", b"question"]),
    _actions(("body", b"more"), *GOING),
)

STOPS = st.builds(Stop, st.sampled_from([3.35, 9.95, 33.15, 90.45]), st.sampled_from([2, 30]))

DRAINS = st.builds(
    Draining,
    st.sampled_from([0.0, 0.65, 2.95, 8.45, 20.25]),
    st.sampled_from([0.5, 3.0, 10.0, 30.0]),
    st.sampled_from([0.5, 5.0]),
    st.sampled_from(["refuse", "accept"]),
)


def _scenes(programs: Any, clients: Any, stops: Any, drains: Any) -> st.SearchStrategy[Scene]:
    return st.builds(
        Scene,
        programs,
        clients,
        http=st.sampled_from(HTTP),
        websockets=st.sampled_from(WEBSOCKETS),
        stop=stops,
        drain=drains,
    )


def websocket_scenes(*, drain: bool) -> st.SearchStrategy[Scene]:
    """Draw a WebSocket, with a drain or without; without one the server may be told to stop."""
    stops = st.none() if drain else st.one_of(st.none(), STOPS)
    return _scenes(WEBSOCKET_PROGRAMS, WEBSOCKET_CLIENTS, stops, DRAINS if drain else st.none())


def http_scenes(*, drain: bool) -> st.SearchStrategy[Scene]:
    """Draw an HTTP exchange, likewise."""
    stops = st.none() if drain else st.one_of(st.none(), STOPS)
    return _scenes(HTTP_PROGRAMS, HTTP_CLIENTS, stops, DRAINS if drain else st.none())
