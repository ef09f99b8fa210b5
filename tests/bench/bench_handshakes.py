"""What it costs to open and close a session: CPU of the server per handshake, and the nanoseconds that are ours."""

from functools import partial

import pytest
from harness.by_hand import LOOPS, CpuClock, measure_by_hand
from harness.figures import interleave
from harness.process import cpu_seconds

HANDSHAKES = 150
ROUNDS = 40
SESSIONS = 500
IN_PROCESS_ROUNDS = 100

SCOPE = {"type": "websocket", "path": "/ws", "headers": [], "extensions": {"websocket.http.response": {}}}
CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1000, "reason": ""}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
def test_real_handshakes(serve, load, report, implementation, loop):
    """WebSockets opened fifty at a time and closed by their clients, through a real uvicorn."""
    server = serve("side_by_side:app", "--interface", "asgi3", "--ws", implementation, "--loop", loop)

    def measure(path):
        load.handshakes(server.port, HANDSHAKES // 10, path)  # the caches still hold what was measured before
        before = cpu_seconds(server.pid)
        load.handshakes(server.port, HANDSHAKES, path)
        return (cpu_seconds(server.pid) - before) / HANDSHAKES * 1e6

    values = interleave({name: partial(measure, f"/ws?{name}") for name in ("bare", "same", "ours")}, ROUNDS)
    assert not server.trouble
    what = f"{implementation}, {loop}"
    report.add(what, "µs per handshake", values["ours"], values["bare"], goal=1.02)
    report.add(f"{what}: bare against bare", "µs per handshake", values["same"], values["bare"])


@pytest.mark.parametrize("loop", LOOPS)
def test_in_process(report, loop):
    """Sessions opened, and closed by the client, on a server that does nothing."""
    values = measure_by_hand(accept, open_and_close, rounds=IN_PROCESS_ROUNDS, loop=loop)
    report.add(f"in-process, {loop}", "ns per session", values["ours"], values["bare"])
    report.add(f"in-process, {loop}: bare against bare", "ns per session", values["same"], values["bare"])


async def accept(scope, receive, send):
    """Open, and wait for the end."""
    await receive()
    await send(ACCEPT)
    await receive()


async def open_and_close(app):
    """Serve one WebSocket after the other; return what one took."""
    messages = []

    async def receive():
        return messages.pop()

    async def send(message):
        pass

    with CpuClock() as clock:
        for _ in range(SESSIONS):
            messages[:] = (DISCONNECT, CONNECT)
            await app({**SCOPE}, receive, send)
    return clock.nanoseconds / SESSIONS
