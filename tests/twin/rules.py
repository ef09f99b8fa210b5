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

DISCONNECTS = ("websocket.disconnect", "http.disconnect")

OURS = {"WebSocketDisconnect", "ConnectionEnded", "_Parted", "CancelledError"}
"""Exceptions that a session meets when it is asked to leave, as far as their names tell."""

KNOWN_LISTENER = True
"""
A fault that is known, and let pass until it is mended; set it to False to see it.

After the disconnect, a task of the application that calls ``receive`` once more makes the package cancel the task that
serves the connection when the grace is over, although another is at work, which is cancelled with it.
"""

ANYBODYS = {"ClientDisconnect", "ClientDisconnected"}
"""Exceptions that may as well be the application's, or the server's, own."""

OVER = {"gets close", "gets the end", "loses the connection", "has the whole answer", "is answered"}
"""What a client sees of the end. (A handshake may be answered with 503.)"""


def check_untouched(scene: Scene, bare: Played, wrapped: Played) -> None:
    """Check that there is no difference."""
    if _is_busy(bare):
        return
    assert _comparable(scene, wrapped) == _comparable(scene, bare), "without a drain, something differs"
    assert wrapped.cancels == [], "without a drain, something was cancelled"
    assert wrapped.ours == [], "an error of ours"


def check_drained(scene: Scene, bare: Played, wrapped: Played) -> None:
    """Check that no more differs than a drain may change."""
    if _is_busy(bare):
        return
    shed_at = math.inf if wrapped.shed_at is None else wrapped.shed_at
    before = _comparable(scene, wrapped, until=shed_at), _comparable(scene, bare, until=shed_at)
    assert before[0] == before[1], "something differs although the session was not asked to leave"
    assert wrapped.ours == [], "an error of ours"
    assert all(at >= shed_at for at, *_ in wrapped.cancels), "cancelled although it was not asked to leave"
    # What only waits for a message after the last one, or in a send that nobody reads, does no work.
    cancelled = [
        awaited
        for _, is_over, call, awaited, listens in wrapped.cancels
        if is_over and call not in ("receive", "send") and ("sleep" in awaited or not awaited)
        if not (KNOWN_LISTENER and listens)
    ]
    assert cancelled == [], "work was cancelled although the connection was over"
    if wrapped.shed_at is not None:
        assert _may_be_session(scene.client), "an answer was asked to leave"
        _check_shed(wrapped, shed_at)
    if isinstance(scene.client, HttpClient):
        _check_completion(bare, wrapped)
    _check_end(scene, wrapped)


def _check_shed(wrapped: Played, shed_at: float) -> None:
    assert not _is_busy(wrapped), "it spins"
    told: dict[str, int] = {}
    for at, who, what in wrapped.of("app"):
        if at >= shed_at and what[0] == "receives" and what[1]["type"] in DISCONNECTS:
            told[who] = told.get(who, 0) + 1
    assert all(times == 1 for times in told.values()), "told of the disconnect more than once"
    logged = [what[2] for *_, what in wrapped.of("server") if what[0] == "ERROR"]
    for at, who, what in wrapped.trace:
        if at < shed_at or who != "app" or what[0] != "ends with":
            continue
        leaves = _leaves(what[1])
        if all(_is_ours(leaf) for leaf in leaves):
            assert what[1] not in logged, "what we raised was logged"
        elif not any(leaf[0] in ANYBODYS for leaf in leaves):
            assert what[1] in logged, "an error of the application was lost"


def _check_completion(bare: Played, wrapped: Played) -> None:
    """Check that no answer came to an end that its application did not give it."""
    whole = "has the whole answer"
    if wrapped.shed_at is None and whole in [what[0] for *_, what in wrapped.of("client")]:
        ended = any(what[0] == "has sent the last part" for *_, what in wrapped.of("app"))
        assert ended or whole in [what[0] for *_, what in bare.of("client")], "an answer was completed that is not"


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
    assert is_deaf or wrapped.of("drain")[-1:] in ([], [(HORIZON, "drain", ("counts", 0))]), (
        "a session whose connection is over is still counted"
    )


def _is_busy(played: Played) -> bool:
    """Tell whether a loop of the application keeps the CPU busy. Where it does so bare, it is no matter of ours."""
    return any(what[0] in ("spins", "is too busy") for *_, what in played.trace)


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


def _leaves(error: Any) -> list[Any]:
    if error[0] in ("ExceptionGroup", "BaseExceptionGroup"):
        return [leaf for each in error[2:] for leaf in _leaves(each)]
    return [error]


def _is_ours(error: Any) -> bool:
    return error[0] in OURS and "mine" not in error[1]
