"""What an ordinary request costs: CPU of the server, requests per second, and the nanoseconds that are ours."""

from functools import partial

import pytest
from harness.by_hand import LOOPS, CpuClock, measure_by_hand
from harness.figures import interleave
from harness.process import cpu_seconds

CONNECTIONS = 10
REQUESTS = 400
ROUNDS = 60
IN_PROCESS_REQUESTS = 1_000
IN_PROCESS_ROUNDS = 100

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/",
    "headers": [],
}
HEADERS = [(b"content-length", b"2"), (b"content-type", b"text/plain; charset=utf-8")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
BODY = {"type": "http.response.body", "body": b"ok"}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["h11", "httptools"])
def test_real_requests(serve, load, report, implementation, loop):
    """A route that answers two bytes, one request at a time on each of ten connections, through a real uvicorn."""
    server = serve("side_by_side:app", "--interface", "asgi3", "--http", implementation, "--loop", loop)

    def measure(path):
        load.http(server.port, REQUESTS // 10, path, connections=1)  # the caches still hold what was measured before
        before = cpu_seconds(server.pid)
        rate = load.http(server.port, REQUESTS, path, connections=CONNECTIONS)
        return (cpu_seconds(server.pid) - before) / REQUESTS * 1e6, rate

    values = interleave({name: partial(measure, f"/?{name}") for name in ("bare", "same", "nothing", "ours")}, ROUNDS)
    cpu = {name: [used for used, _ in each] for name, each in values.items()}
    rates = {name: [rate for _, rate in each] for name, each in values.items()}
    what = f"{implementation}, {loop}"
    report.add(what, "µs per request", cpu["ours"], cpu["bare"], goal=1.02)
    report.add(f"{what}: a middleware that does nothing", "µs per request", cpu["nothing"], cpu["bare"])
    report.add(f"{what}: bare against bare", "µs per request", cpu["same"], cpu["bare"])
    report.add(f"{what}: rate", "requests/s", rates["ours"], rates["bare"])
    report.add(f"{what}: rate, bare against bare", "requests/s", rates["same"], rates["bare"])


@pytest.mark.parametrize("loop", LOOPS)
def test_in_process(report, loop):
    """A short answer on a server that does nothing."""
    values = measure_by_hand(answer, ask, rounds=IN_PROCESS_ROUNDS, loop=loop)
    report.add(f"in-process, {loop}", "ns per request", values["ours"], values["bare"])
    report.add(f"in-process, {loop}: bare against bare", "ns per request", values["same"], values["bare"])


async def answer(scope, receive, send):
    """Answer in two bytes."""
    await send(START)
    await send(BODY)


async def ask(app):
    """Serve one request after the other; return what one took."""

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        pass

    with CpuClock() as clock:
        for _ in range(IN_PROCESS_REQUESTS):
            await app({**SCOPE, "app": app, "state": {}}, receive, send)
    return clock.nanoseconds / IN_PROCESS_REQUESTS
