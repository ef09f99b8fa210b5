"""How smooth a shed is: the straight line, the busiest moment, the stall of the loop, the CPU of a close. 9 minutes."""

import json
import time

import pytest
from harness.evenness import busiest, deviation
from harness.fresh import measure
from harness.process import cpu_seconds

REAL = 16_000
WINDOW = 20.0
RUNS = 3
IDLE = 8.0
"""Seconds for which the loop is looked at before: some of the longest stalls of a machine are not the loop's own."""


def tell_stalls(report, what, during, idle, *, goal=None):
    """Report how late the loop's timers were, beside the same loop with all its sessions idle; a value for each run."""

    def values(pulses, name):
        return [pulse[name] for pulse in pulses]

    unit = "ms, longest stall"
    report.add(what, unit, values(during, "stall"), values(idle, "stall"), goal=goal, judged="added")
    without = "stall_without_gc"
    report.add(f"{what}, less the collector's", unit, values(during, without), values(idle, without), judged="added")
    counts = " / ".join(str(pulse["collections"]) for pulse in during)
    report.add(f"{what}, longest collection (of {counts})", "ms", values(during, "gc_longest"))


@pytest.mark.parametrize(("number", "loop"), [(100_000, "asyncio"), (100_000, "uvloop"), (1_000_000, "uvloop")])
def test_shed_in_process(report, number, loop):
    """
    Sessions without sockets, in a fresh interpreter; three times, since one interruption by the machine is a stall.

    A million in 20 s leaves 20 µs of one core for each: where a close costs more, the drain is late, and says so.
    """
    is_usual = number == 100_000
    runs = [
        measure("shed", number=number, window=WINDOW, idle_for=IDLE if is_usual else 2.0, loop=loop)
        for _ in range(RUNS if is_usual else 1)
    ]
    what = f"in process, {number:,}, {loop}"

    def values(name, *, per=1.0):
        return [each[name] * per for each in runs]

    report.add(f"{what}, deviation from the straight line", "% of all", values("deviation"), goal=0.3, judged="ours")
    report.add(f"{what}, busiest 100 ms", "÷ mean", values("busiest 100 ms"))
    report.add(f"{what}, busiest second", "÷ mean", values("busiest second"))
    report.add(f"{what}, last close after", "s", values("last close"))
    report.add(f"{what}, CPU, the meter included", "µs per close", values("cpu", per=1e6))
    during, idle = ([each[name] for each in runs] for name in ("during", "idle"))
    tell_stalls(report, what, during, idle, goal=10 if is_usual else None)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_close_in_process(report, loop):
    """CPU of a close; bare: a simple loop over the sessions that sends the close and disconnects, at the same pace."""
    used = measure("closes", number=2_500, window=0.5, rounds=15, loop=loop)
    watched, bare = ([each * 1e6 for each in used[name]] for name in ("watched", "bare"))
    report.add(f"in process, 5,000 a second, {loop}", "µs of CPU per close", watched, bare)


def test_shed_real(serve, load, report):
    """
    Real connections, as their clients see them; CPU and stalls as the server does.

    Bare is an application that closes all its WebSockets by itself in a simple loop.
    """
    felt, cpu = {}, {}
    for name in ("bare", "watched"):
        server = serve(f"closing:{name}")
        load.open(server.port, REAL, "/kept")
        server.get("/collect")
        server.get("/pulse?start")
        before = cpu_seconds(server.pid)
        time.sleep(IDLE)
        idle = json.loads(server.get("/pulse"))
        idle_cpu = (cpu_seconds(server.pid) - before) / IDLE
        server.get("/pulse?start")
        before, start = cpu_seconds(server.pid), time.monotonic()
        if name == "watched":
            _, answer = server.drain("POST", window=WINDOW)
            end = time.monotonic() + answer["drain"]["eta"]
        else:
            server.get(f"/close?seconds={WINDOW}")
        closed = sorted(load.closes(WINDOW + 30))
        took = time.monotonic() - start
        cpu[name] = (cpu_seconds(server.pid) - before - idle_cpu * took) / REAL
        felt[name] = json.loads(server.get("/pulse")), idle
        assert len(closed) == REAL
        assert {code for _, code in closed} == {1012}
        assert not server.trouble
        load.close()
    moments = [at for at, _ in closed]
    what = f"real, {REAL:,}"
    line = deviation(moments, start, end)
    report.add(f"{what}, deviation from the straight line", "% of all", [line], goal=0.3, judged="ours")
    report.add(f"{what}, busiest 100 ms", "÷ mean", [busiest(moments, 0.1, start, end)], goal=1.3, judged="ours")
    report.add(f"{what}, busiest second", "÷ mean", [busiest(moments, 1.0, start, end)], goal=1.05, judged="ours")
    report.add(f"{what}, CPU less an idle server's", "µs per close", [cpu["watched"] * 1e6], [cpu["bare"] * 1e6])
    for name, who, goal in (("watched", "drain", 30), ("bare", "bare loop of closes", None)):
        during, idle = felt[name]
        tell_stalls(report, f"{what}, {who}", [during], [idle], goal=goal)
