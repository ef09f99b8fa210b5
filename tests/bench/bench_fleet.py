"""
A fleet: eight servers with 16,000 real WebSockets each, drained one after the other, and all at once.

What a backend feels of it are the new connections per second. It takes nine minutes; with BENCH_FLEET_SESSIONS=500 (a
server) less than two. Beside it stands what SIGTERM does to a server without us: all are closed in one instant.
"""

import os
import statistics
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from harness.crew import Crew, Flow
from harness.evenness import busiest, deviation
from server_process import eventually

SERVERS = 8
SESSIONS = int(os.environ.get("BENCH_FLEET_SESSIONS", "16000"))
PACE = float(os.environ.get("BENCH_FLEET_PACE", "1"))
"""Less than 1 for a machine that cannot carry the flow, which is seen when attempts to connect fail."""

# To move cost a session 0.4 ms of CPU in the server it left, 0.9 in the new one and 0.4 in the client, on a machine
# that was busy otherwise. One after the other, a single process takes all of the flow.
ONE_BY_ONE = max(4.0, SESSIONS / (640 * PACE))
ALL_AT_ONCE = max(8.0, SERVERS * SESSIONS / (450 * PACE))
PATIENCE = 120.0

# Pings to 128,000 idle clients are a load of their own, and not what is measured.
OPTIONS = ("--ws", "websockets-sansio", "--backlog", "4096", "--ws-ping-interval", "3600", "--ws-ping-timeout", "3600")


@pytest.fixture
def crews():
    """Start the processes with the clients."""
    with ExitStack() as stack:
        yield [stack.enter_context(Crew()) for _ in range(SERVERS)]


def together(crews, do, orders):
    """Give each crew its order, and wait for all."""
    for crew, order in zip(crews, orders, strict=True):
        crew.start(do, **order)
    return [crew.finish() for crew in crews]


def board(crews, servers, number=SESSIONS):
    """Open *number* WebSockets from each crew to its server."""
    orders = [{"port": server.port, "number": number, "first": place * number} for place, server in enumerate(servers)]
    together(crews, "board", orders)


def move(crews, homes, window, leave, number=SESSIONS):
    """Let *leave* begin what closes all clients, *number* of each crew, and wait until they are back, on *homes*."""
    together(crews, "head", [{"ports": [server.port for server in homes]}] * len(crews))
    span = leave()
    flow = Flow.of(together(crews, "flow", [{"number": number, "within": window + PATIENCE}] * len(crews)))
    assert len(flow.closed) == len(flow.opened) == number * len(crews)
    return flow, span


def drain(servers, window):
    """Begin to drain *servers*; return when that began, and when it will be over, on the average, as they see it."""
    starts, ends = [], []
    for server in servers:
        status, answer = server.drain("POST", window=window)
        assert status == 202
        now = time.monotonic()
        starts.append(now + answer["drain"]["time_left"] - window)
        ends.append(now + answer["drain"]["eta"])
    return statistics.mean(starts), statistics.mean(ends)


def in_busiest_second(moments):
    """Return how many there were in the busiest second, wherever it begins."""
    return busiest(moments, 1.0, 0.0, len(moments))


def cut_one(servers, crews, report):
    """Send SIGTERM to the first server, whose clients are of all crews, so that they are as quick as can be."""
    first, *others = servers
    share = SESSIONS // SERVERS
    board(crews, [first] * SERVERS, share)
    cut, _ = move(crews, others, 0.0, first.signal, share)
    together(crews, "leave", [{}] * SERVERS)
    how = "one bare server gets SIGTERM"
    report.add(f"{how}: closes in the busiest second", "1/s", [in_busiest_second(cut.closed)])
    report.add(f"{how}: new connections in the busiest second", "1/s", [in_busiest_second(cut.asked)])
    report.add(f"{how}: new WebSockets in the busiest second", "1/s", [in_busiest_second(cut.opened)])
    report.add(f"{how}: until the last client is back", "s", [cut.opened[-1] - cut.closed[0]])
    for code, number in sorted(cut.codes.items()):
        report.add(f"{how}: closed with {code}", "sessions", [number])
    return cut


def emit(report, how, moves, cut):
    """Report on some drains."""
    flows = [flow for flow, _ in moves]
    means = [len(flow.closed) / (end - start) for flow, (start, end) in moves]
    asked = [in_busiest_second(flow.asked) for flow in flows]
    opened = [in_busiest_second(flow.opened) for flow in flows]
    instead = [in_busiest_second(cut.asked)] * len(moves)
    evenly = [deviation(flow.closed, *span) for flow, span in moves]
    closes = [busiest(flow.closed, 1.0, *span) for flow, span in moves]
    failures = sum((flow.failures for flow in flows), Counter())
    tenths = [busiest(flow.closed, 0.1, *span) for flow, span in moves]
    report.add(f"{how}: new connections in the busiest second (bare: one server cut)", "1/s", asked, instead)
    report.add(f"{how}: new connections, busiest second", "x mean", [a / b for a, b in zip(asked, means, strict=True)])
    report.add(f"{how}: new WebSockets, busiest second", "x mean", [a / b for a, b in zip(opened, means, strict=True)])
    report.add(f"{how}: closes, busiest second", "x mean", closes, goal=1.05, judged="ours")
    report.add(f"{how}: closes, busiest 100 ms", "x mean", tenths, goal=1.3, judged="ours")
    report.add(f"{how}: closes, largest deviation from the straight line", "%", evenly, goal=0.3, judged="ours")
    report.add(f"{how}: attempts to connect that failed", "attempts", [failures.total()])
    for why, number in failures.items():
        report.add(f"{how}: {why}", "attempts", [number])
    for code in sorted({code for flow in flows for code in flow.codes} | {1006, 1012}):
        report.add(f"{how}: closed with {code}", "sessions", [flow.codes[code] for flow in flows])
    assert all(flow.codes == {1012: len(flow.closed)} for flow in flows)


def test_a_fleet_of_servers(serve, crews, report):
    """Clients come back within a second: to the server that is empty, or to eight that have just been started."""
    cut = cut_one([serve("echo:bare", *OPTIONS) for _ in range(SERVERS)], crews, report)
    first, *others = [serve("echo:watched", *OPTIONS) for _ in range(SERVERS + 1)]
    full, empty = others, first
    board(crews, full)
    moves = []
    for place, crew in enumerate(crews):
        server = full[place]
        moves.append(move([crew], [empty], ONE_BY_ONE, lambda server=server: drain([server], ONE_BY_ONE)))
        drained = lambda server=server: server.drain()[1]["state"] == "drained"  # noqa: E731
        eventually(drained, "the drain does not end")
        assert server.drain("DELETE")[0] == 200
        full[place], empty = empty, server
    emit(report, "one after the other", moves, cut)

    fresh = [empty, *(serve("echo:watched", *OPTIONS) for _ in range(SERVERS - 1))]
    moves = [move(crews, fresh, ALL_AT_ONCE, lambda: drain(full, ALL_AT_ONCE))]
    emit(report, "all at once", moves, cut)
