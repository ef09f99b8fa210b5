"""Measures the clients: runs them side by side in time that jumps, and says what each of them does."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from zoo.clients import CLIENTS, is_threaded
from zoo.server import EVENT_STREAM_CASES, MOST, WEBSOCKET_CASES, Server

__all__ = ["CASES", "LEAST", "LUCK", "MOST_LUCK", "Habits", "behaviour", "in_real_time", "measure", "measure_chromium"]

HERE = Path(__file__).parent
FOLDER = HERE.parent / "node" / "zoo"
PYTHON = sys.executable, "-m", "zoo.run"
NODE = "node", "--import", str(FOLDER / "clock.mjs"), str(FOLDER / "run.mjs")

LEAST, MOST_LUCK = (0.0, 0.0), (0.999999, 0.999999)
LUCK = (LEAST, (0.8999, 0.8999), MOST_LUCK, (0.0, 0.999999))
"""
What randomness gives before and after the end of the first connections.

The last shows what was drawn before. With 0.8999 Socket.IO waits the shortest.
"""

CASES = {"websocket": WEBSOCKET_CASES, "event-stream": EVENT_STREAM_CASES}
ENDINGS = ("1000", "1001", "1012", "1013", "4000", "clean", "cut", "retry", "retry-cut")

STABLE, HORIZON = 20.0, 440.0
"""Seconds that the first connections last, and those of a run."""

SILENCE, TIMES = 150.0, 3.0
"""A client has given up that made no attempt in so many seconds at the end, and in so many times its last wait."""

CHROMIUM_SECONDS, LATE = 17.0, 0.2
"""Real seconds after the end, and half of those by which a wait may seem too short: a busy machine makes it longer."""


@dataclass(slots=True)
class Habits:
    """
    What one client did in one run.

    Attributes:
        about: What it is.
        luck: What randomness gave, before and after the end of the first connections.
        waits: Seconds before each attempt, by case; the first after the end of what was open, or after a refusal.
        stopped: Cases after which it did not come any more.
        patience: Seconds that it waited for an answer; ``None`` while it still does.
    """

    about: dict[str, str]
    luck: tuple[float, float]
    waits: dict[str, list[float]] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    patience: float | None = None

    def note(self, case: str, begun: Sequence[float], ended: float, silence: float) -> None:
        """Take note of the attempts of one case; *silence* followed the last."""
        ends = [begun[0] if case == "first" else ended, *begun[1:]]
        self.waits[case] = [round(next_ - end, 3) for end, next_ in zip(ends, begun[1 : MOST + 1], strict=False)]
        if len(begun) <= MOST and silence > max(SILENCE, TIMES * max(self.waits[case], default=0.0)):
            self.stopped.add(case)


async def measure(
    lucks: Sequence[tuple[float, float]] = LUCK, cases: Mapping[str, Sequence[str]] = CASES
) -> dict[str, list[Habits]]:
    """Run all clients but the browser's once with each luck."""
    with_loop = [name for name, client in CLIENTS.items() if not is_threaded(client)]
    with_thread = [name for name, client in CLIENTS.items() if is_threaded(client)]
    habits: dict[str, list[Habits]] = defaultdict(list)
    for luck in lucks:
        for program, names in ((PYTHON, with_loop), (PYTHON, with_thread), (NODE, [])):
            async with Server() as server:
                seen = await _run(program, server, luck, cases, (STABLE, HORIZON), *names)
            for name, each in _habits(server, seen, luck).items():
                habits[name].append(each)
    return habits


async def in_real_time(name: str) -> list[float]:
    """Return what one client waits after a close and three refusals, by the clock on the wall, with all luck."""
    program = PYTHON if name in CLIENTS else NODE
    kind = CLIENTS[name].kind if name in CLIENTS else "websocket"
    async with Server() as server:
        await _run(program, server, MOST_LUCK, {kind: ["refused"]}, (6.0, 22.0), name, ZOO_REAL="1")
    ends = [server.ended_at, *(each.at for each in server.came[name, "refused"][1:])]
    return [round(next_ - end, 2) for end, next_ in pairwise(ends)][:4]


async def _run(
    program: Sequence[str],
    server: Server,
    luck: tuple[float, float],
    cases: Mapping[str, Sequence[str]],
    times: tuple[float, float],
    *names: str,
    **more: str,
) -> dict[str, Any]:
    arguments = str(server.port), f"{luck[0]},{luck[1]}", json.dumps(cases), *map(str, times), *names
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"PYTHONPATH": str(HERE.parent), **more}
    process = await asyncio.create_subprocess_exec(*program, *arguments, stdout=PIPE, env=environment)
    out, _ = await process.communicate()
    seen: dict[str, Any] = json.loads(out)
    return seen


def _habits(server: Server, seen: Mapping[str, Any], luck: tuple[float, float]) -> dict[str, Habits]:
    """Join what the server has seen to what the clock has: both know the ports, in order."""
    ports = defaultdict(list)
    for each in seen["connections"]:
        ports[each["port"]].append(each)
    attempts: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _, key, port in sorted((each.at, key, each.port) for key, came in server.came.items() for each in came):
        attempts[key].append(ports[port].pop(0))
    habits = {name: Habits(about, luck) for name, about in seen["clients"].items()}
    for (name, case), of_case in attempts.items():
        begun = [each["opened"] / 1000 for each in of_case]
        habits[name].note(case, begun, seen["ended"] / 1000, HORIZON - begun[-1])
        if case == "held" and len(of_case) > 1 and (closed := of_case[1]["closed"]) is not None:
            habits[name].patience = float(round(closed / 1000 - begun[1]))
    return habits


async def measure_chromium(executable: str, cases: Mapping[str, Sequence[str]] = CASES) -> dict[str, list[Habits]]:
    """Run Chromium's own clients, in real time: half seconds are what can be told apart."""
    async with Server(addresses=sum(map(len, cases.values()))) as server:
        arguments = executable, str(server.port), json.dumps(cases), str(CHROMIUM_SECONDS)
        process = await asyncio.create_subprocess_exec("node", str(FOLDER / "chromium.mjs"), *arguments, stdout=PIPE)
        out, _ = await process.communicate()
    version = json.loads(out)["version"].partition(".")[0]
    habits = {}
    for name, kind, code in (
        ("chromium-websocket", "websocket", "new WebSocket(url)"),
        ("chromium-eventsource", "event-stream", "new EventSource(url)"),
    ):
        habits[name] = Habits({"package": "Chromium", "version": version, "kind": kind, "code": code}, LEAST)
    for (name, case), came in server.came.items():
        seen = habits[name]
        seen.note(case, [each.at for each in came], server.ended_at, 0)
        seen.waits[case] = [int(2 * each + LATE) / 2 for each in seen.waits[case]]
        if len(came) == 1 or case.startswith(("refused", "retry-after")):
            seen.stopped.add(case)
    return {name: [each] for name, each in habits.items()}


def behaviour(runs: Sequence[Habits]) -> dict[str, Any]:
    """Return what a client does, from its runs with all luck: seconds from the least to the most."""
    cases = runs[0].waits
    ranges = {case: _ranges([each.waits[case] for each in runs]) for case in cases}
    back_on = "1012" if "1012" in cases else "cut"
    refused = "told" if "told" in cases else "busy"
    return {
        **runs[0].about,
        "draws": _draws(runs),
        "after": {each: (ranges[each] or [None])[0] for each in ENDINGS if each in cases},
        "refused": _tail(ranges["refused"][1:]),
        "gives_up": len(ranges["refused"]) if ranges["refused"] and "refused" in runs[0].stopped else None,
        "obeys_retry_after": runs[0].waits["retry-after"] != runs[0].waits["refused"],
        refused: _tail(ranges[refused][1:]),
        f"{refused}_gives_up": len(ranges[refused]) if ranges[refused] and refused in runs[0].stopped else None,
        "repeats_first": "first" not in runs[0].stopped,
        "patience": runs[0].patience if ranges[back_on] else None,
    }


def _ranges(waits: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[_short(min(each)), _short(max(each))] for each in zip(*waits, strict=False)]


def _short(seconds: float) -> float:
    return round(seconds, 2)


def _tail(ranges: list[list[float]]) -> list[list[float]]:
    """Leave out what only repeats the end."""
    while len(ranges) > 1 and ranges[-1] == ranges[-2]:
        ranges = ranges[:-1]
    return ranges


def _draws(runs: Sequence[Habits]) -> str:
    if len(runs) < len(LUCK) or all(each.waits == runs[0].waits for each in runs):
        return "never"
    return "once" if runs[-1].waits == runs[0].waits else "each time"
