"""What a message costs: CPU of the server per echoed message, and the nanoseconds that are ours."""

import asyncio
from functools import partial

import pytest
from harness.by_hand import LOOPS, CpuClock, measure_by_hand
from harness.figures import interleave
from harness.process import cpu_seconds

CONNECTIONS = 20
MESSAGES = 2_000
ROUNDS = 60
IN_PROCESS_ROUNDS = 100

SCOPE = {"type": "websocket", "path": "/ws", "headers": [], "extensions": {"websocket.http.response": {}}}
ACCEPT = {"type": "websocket.accept"}
MESSAGE = {"type": "websocket.receive", "text": "sixteen letters."}
ANSWER = {"type": "websocket.send", "text": "sixteen letters."}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
def test_real_echo(serve, load, report, implementation, loop):
    """Messages of sixteen bytes, one at a time on each of twenty connections, through a real uvicorn."""
    server = serve("side_by_side:app", "--interface", "asgi3", "--ws", implementation, "--loop", loop)

    def measure(path):
        load.echo(MESSAGES // 10, path)  # the caches still hold what was measured before
        before = cpu_seconds(server.pid)
        load.echo(MESSAGES, path)
        return (cpu_seconds(server.pid) - before) / MESSAGES * 1e6

    paths = {name: f"/ws?{name}" for name in ("bare", "same", "ours")}
    for path in paths.values():
        load.open(server.port, CONNECTIONS, path)
    values = interleave({name: partial(measure, path) for name, path in paths.items()}, ROUNDS)
    what = f"{implementation}, {loop}"
    report.add(what, "µs per echo", values["ours"], values["bare"], goal=1.02)
    report.add(f"{what}: bare against bare", "µs per echo", values["same"], values["bare"])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("suspends", [False, True], ids=["ready", "suspended"])
def test_in_process(report, loop, suspends):
    """A receive and a send of a server that does nothing, with the message there already or still to come."""
    values = measure_by_hand(echo, partial(exchange, suspends=suspends), rounds=IN_PROCESS_ROUNDS, loop=loop)
    what = f"in-process, {loop}, message {'still to come' if suspends else 'there already'}"
    report.add(what, "ns per receive and send", values["ours"], values["bare"], goal=600, judged="added")
    report.add(f"{what}: bare against bare", "ns per receive and send", values["same"], values["bare"])


async def echo(scope, receive, send):
    """Exchange messages, and note in the scope what that took."""
    await receive()
    await send(ACCEPT)
    with CpuClock() as clock:
        for _ in range(MESSAGES):
            await receive()
            await send(ANSWER)
    scope["took"] = clock.nanoseconds / MESSAGES


async def exchange(app, *, suspends):
    """Serve one WebSocket; return what a receive and a send took."""
    loop = asyncio.get_running_loop()

    async def receive_at_once():
        return MESSAGE

    async def receive_later():
        arrived = loop.create_future()
        loop.call_soon(arrived.set_result, MESSAGE)
        return await arrived

    async def send(message):
        pass

    scope = {**SCOPE}
    await app(scope, receive_later if suspends else receive_at_once, send)
    return scope["took"]
