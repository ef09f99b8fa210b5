"""
What the middleware may change, as checks of what was played.

Without a drain: nothing, but for ``Connection: close`` on an event stream that is a session. With one: nothing for what
is no session, nothing before the session is asked to leave, and afterwards what docs/how-a-drain-works.md says.
"""

import math
from typing import Any

from model_client import HttpClient, WebSocketClient
from twin import HORIZON, Played, Scene, Seen

__all__ = ["check_drained", "check_untouched"]

SLACK = 0.5
"""Seconds for what takes a moment: the answer to a handshake, a few passes of the loop."""

HOLDS = ("holds", "releases")

OUR_CODE = 1012
"""The close code of a drain."""

OURS = {"WebSocketDisconnect", "ConnectionEnded", "_Disconnected", "CancelledError"}
"""Exceptions that a session meets when it is asked to leave, as far as their names tell."""

ANYBODYS = {"ClientDisconnect", "ClientDisconnected"}
"""Exceptions that may as well be the application's, or the server's, own."""

OVER = {"gets close", "gets the end", "loses the connection", "has the whole answer", "is answered"}
"""What a client sees of the end. (A handshake may be answered with 503.)"""


def check_untouched(scene: Scene, bare: Played, wrapped: Played) -> None:
    """Check that there is no difference."""
    until = _busy_at(bare)
    assert wrapped.ours == [], "an error of ours"
    assert wrapped.cancels == [], "without a drain, something was cancelled"
    assert _comparable(scene, wrapped, until) == _comparable(scene, bare, until), "without a drain, something differs"


def check_drained(scene: Scene, bare: Played, wrapped: Played) -> None:
    """Check that no more differs than a drain may change."""
    shed_at = math.inf if wrapped.shed_at is None else wrapped.shed_at
    until = min(shed_at, _busy_at(bare))
    before = _comparable(scene, wrapped, until), _comparable(scene, bare, until)
    assert wrapped.ours == [], "an error of ours"
    assert all(at >= shed_at for at, *_ in wrapped.cancels), "cancelled although it was not asked to leave"
    assert before[0] == before[1], "something differs although the session was not asked to leave"
    if until < shed_at:
        return  # the application keeps the CPU busy by itself, and was stopped
    # What only waits for a message after the last one, or in a send that nobody reads, does no work.
    was_gone = _is_gone_before(scene, wrapped, shed_at)
    cancelled = [
        awaited
        for _, is_over, awaited in wrapped.cancels
        if (is_over or was_gone) and ("sleep" in awaited or not awaited)
    ]
    assert cancelled == [], "work was cancelled although the connection was over"
    if wrapped.shed_at is not None:
        assert _may_be_session(scene.client), "an answer was asked to leave"
        _check_held(wrapped, shed_at)
        _check_shed(scene, bare, wrapped, shed_at)
    _check_end(scene, wrapped)


def _check_held(wrapped: Played, shed_at: float) -> None:
    """Check that a session which is held is not asked to leave before the deadline."""
    holds = [1 if what[0] == "holds" else -1 for at, _, what in wrapped.of("app") if at < shed_at and what[0] in HOLDS]
    if sum(holds) > 0 and not wrapped.is_refused and wrapped.deadline is not None:
        assert shed_at >= wrapped.deadline - SLACK, "asked to leave although it was held"


def _check_shed(scene: Scene, bare: Played, wrapped: Played, shed_at: float) -> None:
    assert _busy_at(wrapped) == math.inf or _busy_at(bare) < math.inf, "it spins"
    told = [
        (at, who)
        for at, who, what in wrapped.of("app")
        if at >= shed_at and what[0] == "receives" and _is_our_disconnect(what[1])
    ]
    assert len({who for _, who in told}) == len(told), "told of the disconnect more than once"
    if isinstance(scene.client, WebSocketClient):
        assert len({at for at, _ in told}) <= 1, "told of the disconnect again"
    logged = [what[2] for *_, what in wrapped.of("server") if what[0] == "ERROR"]
    for at, who, what in wrapped.trace:
        if at < shed_at or who != "app" or what[0] != "ends with":
            continue
        leaves = _leaves(what[1])
        if all(_is_ours(leaf) for leaf in leaves):
            assert what[1] not in logged, "what we raised was logged"
        elif not any(leaf[0] in ANYBODYS for leaf in leaves):
            assert what[1] in logged, "an error of the application was lost"


def _check_end(scene: Scene, wrapped: Played) -> None:
    """Check that a session is over when its time is."""
    if wrapped.shed_at is None or wrapped.deadline is None:
        return
    assert scene.drain is not None
    is_deaf = any(action.does == "deaf" for action in scene.client.actions)
    limit = max(wrapped.deadline, wrapped.shed_at) + scene.drain.grace + SLACK
    is_web = isinstance(scene.client, WebSocketClient)
    over = [
        at
        for at, _, what in wrapped.of("client")
        if (what[0] in OVER and (what[0] != "is answered" or (is_web and what[1] != 101)))
        or what[0] in ("drops the connection", "resets the connection", "closes")
    ]
    assert is_deaf or (over and over[0] <= limit), "the session is not over in time"
    assert wrapped.of("drain")[-1:] in ([], [(HORIZON, "drain", ("counts", 0))]), (
        "a session whose connection is over is still counted"
    )


def _busy_at(played: Played) -> float:
    """Return when a loop of the application began to keep the CPU busy: what follows is no matter of ours."""
    return min((at for at, _, what in played.trace if what[0] in ("spins", "is too busy")), default=math.inf)


def _may_be_session(client: WebSocketClient | HttpClient) -> bool:
    if isinstance(client, WebSocketClient):
        return True
    return client.method == "GET" and client.accept == "text/event-stream"


def _comparable(scene: Scene, played: Played, until: float = math.inf) -> Any:
    seen = played.by_actor(until)
    if isinstance(scene.client, HttpClient) and (scene.drain or _may_be_session(scene.client)):
        seen["client"] = _without_connection(seen["client"])
    return seen


def _without_connection(trace: list[Seen]) -> list[Seen]:
    """
    Leave out what ``Connection: close`` changes.

    That is the header, how a large body falls into pieces after it, and what becomes of the connection afterwards.
    """
    kept = []
    for at, who, what in trace:
        if what[0] == "is answered":
            what = (*what[:2], tuple(each for each in what[2] if each[0] != "connection"))  # noqa: PLW2901
        if what[0] == "gets data" and kept and kept[-1][0] == at and kept[-1][2][0] == "gets data":
            _, length, beginning = kept.pop()[2]
            what = ("gets data", length + what[1], beginning)  # noqa: PLW2901
        kept.append((at, who, what))
        if what[0] == "has the whole answer":
            break
    return kept


def _is_gone_before(scene: Scene, wrapped: Played, moment: float) -> bool:
    """Tell whether the client had gone, though perhaps not for its application, where a send tells of that."""
    going = ("drops the connection", "resets the connection", "closes")
    is_told = isinstance(scene.client, WebSocketClient) and scene.websockets != "websockets"
    return is_told and any(at < moment and what[0] in going for at, _, what in wrapped.of("client"))


def _is_our_disconnect(message: Any) -> bool:
    """Tell whether we may have told of the end. uvicorn tells of a client's own end more than once."""
    return message["type"] == "http.disconnect" or message.get("code") == OUR_CODE


def _leaves(error: Any) -> list[Any]:
    if error[0] in ("ExceptionGroup", "BaseExceptionGroup"):
        return [leaf for each in error[2:] for leaf in _leaves(each)]
    return [error]


def _is_ours(error: Any) -> bool:
    return error[0] in OURS and "mine" not in error[1]
