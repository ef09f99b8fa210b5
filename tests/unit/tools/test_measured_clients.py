"""The clients that `plan` and the lab play do what was measured of real ones."""

import math
from random import Random

import pytest

from starlette_drain.tools.plan.clients import CLIENTS, MeasuredClient, measured
from starlette_drain.tools.plan.deployment import Deployment
from starlette_drain.tools.plan.rehearsal import rehearse
from starlette_drain.tools.plan.sums import Fleet


def client(draws: str, **more) -> MeasuredClient:
    """Return one that waits for 1 to 5 s, then for 10 s."""
    return MeasuredClient("it", ((1.0, 5.0), (10.0, 10.0)), draws, **{"gives_up": None, "patience": None, **more})


def test_a_wait_is_drawn_each_time_or_once():
    """What a client has drawn once decides all its waits; otherwise each is drawn anew."""
    once, each_time = client("once"), client("each time")
    assert {once(0, 0.25, Random(seed)) for seed in range(9)} == {2.0}
    waits = [each_time(0, 0.25, Random(seed)) for seed in range(99)]
    assert 1.0 <= min(waits) < 1.5
    assert 4.5 < max(waits) <= 5.0


def test_the_last_wait_is_repeated_until_it_gives_up():
    """The data leaves out what repeats itself; a client that gives up waits for ever."""
    assert [client("never")(attempt, 0.0, Random(7)) for attempt in range(1, 5)] == [10.0] * 4
    assert [client("never", gives_up=2)(attempt, 0.0, Random(7)) for attempt in (1, 2, 3)] == [10.0, math.inf, math.inf]


def test_the_clients_are_those_that_come_back_to_a_websocket():
    """A bare WebSocket and an EventSource are measured, and no model."""
    assert {"websockets", "phoenix", "full-jitter", "reconnecting-websocket", "graphql-ws", "signalr"} < CLIENTS.keys()
    assert {"chromium-websocket", "chromium-eventsource", "aiohttp"} < measured().keys() - CLIENTS.keys()
    assert CLIENTS["at-once"] is CLIENTS["websockets"]


@pytest.mark.parametrize(("name", "gives_up"), [("graphql-ws", True), ("partysocket", False)])
def test_a_rehearsal_counts_the_clients_that_give_up(name, gives_up):
    """One for which a 503 is final is lost where the service takes in too few."""
    fleet = Fleet(Deployment(4), 500, delay=60)
    course = rehearse(fleet, CLIENTS[name], accepts=5)
    assert course.refused > 0
    assert (course.gave_up > 0) is gives_up
