"""Three workers, one or all of them in trouble, and a drain by hand: all that can be told are told on the line."""

import asyncio
import os
import resource
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from server_process import REASON, TOKEN, eventually
from websocket_clients import listeners

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("crowds")]

SESSIONS = 45
WINDOW = 3.0
TOLD = (1012, REASON)
CUT = (1006, "")


@pytest.fixture
def start(serve, tmp_path):
    """Start a server with three workers that know each other."""

    def start(app="one_line:app"):
        directory = tmp_path / "workers"
        directory.mkdir(mode=0o700)
        environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "TMPDIR": str(directory)}
        server = serve(app, "--workers", "3", "--log-level", "warning", workers=3, env=environment)
        eventually(lambda: len(server.drain()[1]["workers"]) == 3, "the workers do not find each other")
        return server

    return start


def busiest(server):
    """Wait until all sessions are shown; return the pid of the worker that has most, and how many."""
    eventually(lambda: server.drain()[1]["sessions"]["open"] == SESSIONS, "not all sessions are shown")
    worker = max(server.drain()[1]["workers"], key=lambda each: each["sessions"]["open"])
    return worker["pid"], worker["sessions"]["open"]


async def post(server):
    """Drain by hand; return when it began."""
    began = time.monotonic()
    code, _ = await asyncio.to_thread(server.drain, "POST", window=WINDOW)
    assert code in (200, 202)
    return began


def limit_descriptors(pid):
    """Let a process open nothing more."""
    taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lowest = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def limit_space(pid):
    """Let a process write to no file any more."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))


async def told_on_the_line(clients, began):
    """Check that every client is told, evenly, within the window."""
    ends = [await each.close_policy() for each in clients]
    assert Counter(each.words for each in ends) == {TOLD: len(clients)}
    moments = sorted(each.at - began for each in ends)
    assert moments[-1] < WINDOW + 2
    assert moments[len(moments) // 2] > WINDOW / 4, "they left in a burst"


async def test_the_worker_without_descriptors_is_told(start):
    """The worker that is full is the one that needs the drain most."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        pid, _ = await asyncio.to_thread(busiest, server)
        limit_descriptors(pid)
        await asyncio.sleep(1)
        await told_on_the_line(clients, await post(server))


async def test_workers_that_can_write_nothing_tell_each_other_all_the_same(start):
    """The disk is full for all of them."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        await asyncio.to_thread(busiest, server)
        for pid in server.pids:
            limit_space(pid)
        await asyncio.sleep(1)
        await told_on_the_line(clients, await post(server))


async def test_workers_of_two_versions_drain_as_one(start):
    """As in a rolling restart after an upgrade."""
    server = start("two_versions:app")
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        await asyncio.to_thread(busiest, server)
        assert server.drain()[1]["scope"] == "task"
        await told_on_the_line(clients, await post(server))
    assert server.trouble == []


async def test_a_worker_that_was_stopped_holds_up_no_other_and_is_told_when_it_goes_on(start):
    """SIGSTOP, a debugger, a machine without memory: the others keep to their line."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        pid, its_own = await asyncio.to_thread(busiest, server)
        os.kill(pid, signal.SIGSTOP)
        await post(server)
        await asyncio.sleep(WINDOW + 0.8)
        assert sum(not each.is_open for each in clients) == SESSIONS - its_own
        os.kill(pid, signal.SIGCONT)
        ends = [await each.close_policy() for each in clients]
    assert Counter(each.words for each in ends) == {TOLD: SESSIONS}


async def test_of_a_worker_that_was_killed_only_its_own_clients_are_cut(start):
    """The others are told on the line, and the worker that takes its place joins the drain."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        pid, its_own = await asyncio.to_thread(busiest, server)
        await post(server)
        os.kill(pid, signal.SIGKILL)
        words = Counter([(await each.close_policy()).words for each in clients])
        assert words[TOLD] >= SESSIONS - its_own
        assert words[TOLD] + words[CUT] == SESSIONS
        await asyncio.to_thread(eventually, lambda: is_drained(server, pid), "its place does not drain")


def is_drained(server, pid):
    """Return whether three workers have drained, the killed one not among them."""
    workers = server.drain()[1]["workers"]
    is_replaced = len(workers) == 3 and pid not in {each["pid"] for each in workers}
    return is_replaced and {each["state"] for each in workers} == {"drained"}


async def test_damaged_files_are_stepped_over(start, tmp_path):
    """Whatever is in the directory, whole or half: the log names it, and the drain reaches all."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        pid, _ = await asyncio.to_thread(busiest, server)
        (directory,) = (tmp_path / "workers").glob("starlette-drain-*")
        (directory / "command-000001.json").write_text("{half")
        next(directory.glob(f"worker-{pid}-*")).write_text("")
        said = "command-000001.json cannot be read"
        await asyncio.to_thread(eventually, lambda: said in server.log, "the log does not name the file")
        await told_on_the_line(clients, await post(server))
