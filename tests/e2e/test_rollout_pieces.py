"""Pieces of the rollout lab that need real processes or sockets: what is said where one of them fails."""

import asyncio
import contextlib
import shutil
import socket
import sys
from collections import Counter

import pytest

from example_app.ports import find_port
from example_app.processes import Children
from example_app.rollout import balancer as balancers
from example_app.rollout.clients import stock
from example_app.rollout.clients.backoff import BEHAVIOURS
from example_app.rollout.clients.records import Records
from example_app.rollout.options import parse
from example_app.rollout.rollout import perform

pytestmark = pytest.mark.anyio

needs_haproxy = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin"),
    reason="HAProxy is not installed; tests/ecosystem/install.sh does it",
)


async def watch(_situation):
    """Show nothing."""


@contextlib.asynccontextmanager
async def balancer_of(kind, tmp_path, rule="round-robin", targets=1):
    """Make a balancer, and end what it has started."""
    async with Children() as children:
        made = balancers.BALANCERS[kind](children, tmp_path, clients=10, targets=targets, rule=rule)
        try:
            yield made
        finally:
            await made.stop()


@needs_haproxy
async def test_haproxy_that_refuses_its_configuration_is_named_at_once(tmp_path):
    """With its log; nobody waits for a socket that never comes."""
    async with balancer_of("haproxy", tmp_path, rule="nonsense") as balancer:
        with pytest.raises(RuntimeError, match=r"haproxy-1 ended with 1; see .*haproxy-1.log"):
            async with asyncio.timeout(5):
                await balancer.start()
    assert "Fatal errors found in configuration" in (tmp_path / "haproxy-1.log").read_text()


@needs_haproxy
async def test_what_haproxy_refuses_is_an_error(tmp_path):
    """A target that it has no room for is not lost in silence."""
    async with balancer_of("haproxy", tmp_path, targets=2) as balancer:
        await balancer.start()
        await balancer.route_to({("127.0.0.1", 1): 1, ("127.0.0.1", 2): 1})
        await balancer.route_to({("127.0.0.1", 2): 1})
        await balancer.cut(("127.0.0.1", 1))
        with pytest.raises(RuntimeError, match=r"haproxy-1 answers .*task3.* with “No such server"):
            await balancer.route_to({("127.0.0.1", 2): 1, ("127.0.0.1", 3): 1})


@pytest.mark.parametrize("kind", ["tcp", pytest.param("haproxy", marks=needs_haproxy)])
async def test_new_connections_follow_the_weights(kind, tmp_path):
    """As the weights of a listener rule: three of four go to one target, and none to that which weighs nothing."""
    counts = Counter()
    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for number in range(3):

            def accept(_reader, writer, number=number):
                counts[number] += 1
                writer.close()

            server = await stack.enter_async_context(await asyncio.start_server(accept, "127.0.0.1", 0))
            ports.append(server.sockets[0].getsockname()[1])
        balancer = await stack.enter_async_context(balancer_of(kind, tmp_path, targets=3))
        await balancer.start()
        a, b, c = (("127.0.0.1", port) for port in ports)
        await balancer.route_to({a: 1, b: 1, c: 0})
        await balancer.route_to({a: 3, b: 1, c: 0})
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
            await reader.read()
            writer.close()
    assert counts[2] == 0
    assert 2 <= counts[0] / counts[1] <= 4  # the first one may come before the nodes have obeyed


async def test_a_node_that_does_not_come_up_is_named_with_its_log(tmp_path):
    """A port that somebody else has, for instance."""
    async with balancer_of("tcp", tmp_path) as balancer:
        with socket.create_server(("127.0.0.1", 0)) as other:
            balancer.port = other.getsockname()[1]
            with pytest.raises(RuntimeError, match=r"balancer-1 ended with 1; see .*balancer-1.log"):
                await balancer.start()


async def test_a_node_that_has_gone_is_named_when_it_is_needed(tmp_path):
    """New connections would go nowhere."""
    async with balancer_of("tcp", tmp_path) as balancer:
        await balancer.start()
        balancer.nodes[0].kill()
        await balancer.nodes[0].wait(5)
        with pytest.raises(RuntimeError, match="balancer-1 ended with -9"):
            await balancer.route_to({("127.0.0.1", 1): 1})


async def test_a_balancer_that_fails_ends_the_rollout(tmp_path, monkeypatch):
    """With its error, instead of waiting for ever for a target that is never reached."""

    class Broken(balancers.BALANCERS["tcp"]):
        async def route_to(self, weights):
            msg = f"cannot route to {len(weights)}"
            raise RuntimeError(msg)

    monkeypatch.setitem(balancers.BALANCERS, "tcp", Broken)
    scenarios, plan = parse(["--tasks", "1", "--scale", "0.02", "--results", str(tmp_path)])
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(30):
            await perform(scenarios[0], plan, watch)
    assert caught.group_contains(RuntimeError, match="cannot route to 1")


async def test_an_attempt_that_nobody_accepts_is_no_new_connection():
    """The websockets fleet counts TCP connections as the lean one does: when there is one."""
    records = Records()
    client = stock.StockClient(7, BEHAVIOURS["phoenix"], records, stock.noting(records))
    living = asyncio.create_task(client.live(f"ws://127.0.0.1:{find_port()}/devices", 0))
    while not records.failures:  # noqa: ASYNC110 - records are no signal
        await asyncio.sleep(0.01)
    living.cancel()
    assert records.connected == []


async def test_an_answer_that_is_no_websocket_is_a_new_connection_and_a_failure():
    """The balancer had the connection, whatever came of it."""
    records = Records()

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/devices"
    client = stock.StockClient(7, BEHAVIOURS["phoenix"], records, stock.noting(records))
    living = asyncio.create_task(client.live(url, 0))
    while records.failures["InvalidStatus"] < 2:  # noqa: ASYNC110 - records are no signal
        await asyncio.sleep(0.01)
    living.cancel()
    server.close()
    assert len(records.connected) >= 2


async def test_a_program_that_does_not_exist_is_a_child_that_says_so(tmp_path):
    """Its log names it, and its exit status is not 0."""
    async with Children() as children:
        child = await children.start("ghost", ["/does/not/exist"], log=tmp_path / "ghost.log")
        assert await child.wait(10) == 1
    assert "/does/not/exist" in child.log.read_text() or "No such file" in child.log.read_text()


async def test_a_child_that_ignores_sigterm_does_not_outlive_its_block():
    """What still runs at the end is killed, with everything it has started."""
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    async with Children() as children:
        child = await children.start("stubborn", [sys.executable, "-c", stubborn])
        assert await anext(child.lines()) == "up"
        child.terminate()
        assert await child.wait(0.2) is None
    assert child.returncode == -9
