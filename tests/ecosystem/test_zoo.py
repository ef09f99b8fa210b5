"""What is known of real clients (`make zoo`) is still so, and is what the pages say."""

import os
from importlib import util
from typing import Any

import pytest
from test_real_clients import NODE, find_programs
from zoo.measure import LEAST, MOST_LUCK, behaviour, measure
from zoo.table import PAGE, page_with

from starlette_drain.tools.plan.clients import measured

REMEDY = "run `make zoo`, look at what has changed, and commit it"

CASES = {
    "websocket": ("1000", "1012", "cut", "refused", "retry-after", "busy"),
    "event-stream": ("clean", "cut", "retry", "retry-cut", "refused", "retry-after", "told"),
}
"""Enough to notice a client that has changed its mind."""

ONE = {"websocket": ("1012",), "event-stream": ("cut",)}
"""Enough to notice one that has changed what it draws."""


@pytest.mark.anyio
async def test_clients_do_what_is_known_of_them():
    """Every client comes back, backs off and gives up as the data says; those that draw a wait still do."""
    find_programs(NODE / "node_modules")
    missing = [name for name in ("gql", "httpx_sse", "websocket") if not util.find_spec(name)]
    if missing:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"not installed: {', '.join(missing)}")
    known = {name: seen for name, seen in measured().items() if seen["package"] != "Chromium"}
    longest = {name: behaviour(runs) for name, runs in (await measure((MOST_LUCK,), CASES)).items()}
    assert sorted(longest) == sorted(known)
    changed = {name: difference for name, now in longest.items() if (difference := differences(now, known[name]))}
    for name, (run,) in (await measure((LEAST,), ONE)).items():
        for case, waits in run.waits.items():
            if (first := known[name]["after"][case]) and not first[0] <= waits[0] < first[1] + (first[0] == first[1]):
                changed[name] = {case: waits[0]}
    assert changed == {}, REMEDY


def differences(now: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Return what is not as it was, of a client that has waited for as long as it ever does."""
    found = {each: now[each] for each in ("version", "gives_up", "obeys_retry_after") if now[each] != then[each]}
    found |= {each: wait for each, wait in now["after"].items() if most([wait]) != most([then["after"][each]])}
    for series in {"refused", "busy", "told"} & now.keys():
        if most(now[series]) != most(then[series]):
            found[series] = now[series]
    return found


def most(ranges: list[list[float] | None]) -> list[float | None]:
    """Return the longest waits, without those that only repeat the last."""
    waits = [each and each[1] for each in ranges]
    while len(waits) > 1 and waits[-1] == waits[-2]:
        waits.pop()
    return waits


def test_the_page_shows_what_was_measured():
    """The tables of docs/clients.md are made from the data."""
    page = PAGE.read_text()
    assert page_with(page, measured()) == page, REMEDY


def test_the_page_on_arrivals_says_whom_an_accept_and_1013_slows():
    """It is worth its place only for these; to others an opened connection is a success."""
    slowed, hurried = set(), set()
    for name, seen in measured().items():
        if not seen["after"].get("1012"):
            continue
        after_503, after_1013 = (
            float("inf") if seen[gives_up] and not seen[series] else seen[series][-1][1]
            for series, gives_up in (("refused", "gives_up"), ("busy", "busy_gives_up"))
        )
        if after_503 == float("inf") or after_503 < after_1013 < float("inf"):
            slowed.add(name)
        elif after_1013 != after_503:
            hurried.add(name)
    assert slowed == {"graphql-ws", "socket.io-client"}
    assert hurried == {
        *("websockets", "phoenix", "python-socketio"),
        *("supabase-realtime", "full-jitter", "aiohttp-advised"),
    }
    page = (PAGE.parent / "admission.md").read_text()
    assert all(f"`{name}`" in page for name in slowed)
