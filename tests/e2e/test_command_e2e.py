"""``starlette-drain status | watch | start | cancel`` on a real server: in its container, and from elsewhere."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from server_process import ROOT, TOKEN, eventually
from websocket_clients import listeners

from starlette_drain.testing import FakeAWS

pytestmark = pytest.mark.anyio

SESSIONS = 30


@pytest.fixture
def directory():
    """Return a temporary directory for one server and the command: its path is short, as those of sockets must be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def start(serve, directory):
    """Start a server without an admin token, in a container of its own as far as the command can see."""

    def start(*arguments, env=None, **options):
        return serve("one_line:app", *arguments, env={"TMPDIR": str(directory), **(env or {})}, **options)

    return start


@pytest.fixture
def command(directory):
    """Run the command, where it would run in that container; return its exit code, output and errors."""

    def run(*arguments, **env):
        done = popen(arguments, env)
        out, err = done.communicate(timeout=60)
        return done.returncode, out, err

    def popen(arguments, env):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DRAIN_")}
        return subprocess.Popen(
            [sys.executable, "-m", "starlette_drain", *arguments],
            cwd=ROOT,
            env=kept | {"TMPDIR": str(directory)} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    run.popen = lambda *arguments, **env: popen(arguments, env)
    return run


async def test_a_drain_from_the_container_itself(start, command):
    """No token, no port: look, start and wait, read the report, serve again."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS):
        code, out, _ = command("status")
        assert (code, out.split()[-2:]) == (0, ["serving", str(SESSIONS)])
        # The clients answer meanwhile.
        code, out, err = await asyncio.to_thread(command, "start", "--window", "4", "--reason", "a test", "--wait")
        assert code == 0, out + err
        assert "starts to drain: 30 sessions" in out
        assert "drained, 0 open" in out
        assert "OUTCOME" in out
    code, out, _ = command("status", "--json")
    (task,) = json.loads(out)["tasks"]
    assert task["shown"]["report"]["causes"][0]["reason"] == "a test"
    assert task["shown"]["process"]["socket"].endswith(f"socket-{server.pid}")
    assert command("cancel")[1].startswith(f"process {server.pid} serves again, with 0 sessions")
    assert command("cancel")[0] == 1
    assert server.trouble == []


async def test_a_rotation_from_the_container_and_from_elsewhere(start, command):
    """Started without a token, seen with one, and cancelled."""
    server = start(env={"DRAIN_ADMIN_TOKEN": TOKEN})
    async with listeners([server.websocket("/ws")] * SESSIONS):
        code, out, err = command("rotate", "--fleet-rate", "0.1")
        assert code == 0, out + err
        assert "0 asked, 30 remain, 0.10/s, 300 s left" in out
        elsewhere = ("--url", server.url, "--json")
        code, out, _ = command("rotate", *elsewhere, DRAIN_ADMIN_TOKEN=TOKEN)
        assert (code, json.loads(out)["window"]) == (0, 300.0)
        assert command("rotate", "--window", "60")[0] == 1
        code, out, _ = command("rotate", "--cancel")
        assert (code, out.startswith(f"process {server.pid}: the rotation is cancelled")) == (0, True)
        assert command("rotate", "--cancel")[0] == 1


async def test_the_doctor_waits_for_two_workers(start, command):
    """One of them watches, and whichever is asked tells of the task. It needs no token in their container."""
    fake = FakeAWS()
    task = fake.add_task(fake.add_service("web"))
    with fake.serve() as aws:
        environ = aws.environment(task)
        waiting = command.popen("doctor", "--wait", "30", "--json", **environ)
        start("--workers", "2", workers=2, env=environ)
        out, err = await asyncio.to_thread(waiting.communicate, timeout=60)
    assert waiting.returncode == 0, out + err
    (found,) = json.loads(out)
    assert found["found"].startswith("target-health: ")


async def test_the_socket_is_private_and_goes_with_the_server(start, command, directory):
    """Only its user can open it, and a server that has ended leaves nothing behind."""
    server = start()
    eventually(lambda: command("status")[0] == 0, "the server does not answer the command")
    (made,) = directory.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700
    assert [each.stat().st_mode & 0o777 for each in made.iterdir()] == [0o600]
    server.signal(signal.SIGTERM)
    server.wait()
    assert list(directory.iterdir()) == []
    code, _, err = command("status", "--pid", str(server.pid))
    assert code == 2
    assert f"process {server.pid} does not answer the command here" in err


async def test_where_a_worker_is_stuck(start, command):
    """Another one answers for the task, says which is stuck, with how many sessions, and what to do."""
    server = start("--workers", "2", "--timeout-worker-healthcheck", "60", workers=2)
    async with listeners([server.websocket("/ws")] * SESSIONS):
        eventually(lambda: f" {SESSIONS}" in command("status")[1], "the workers do not find each other")
        stuck = max(server.pids)
        os.kill(stuck, signal.SIGSTOP)
        try:
            eventually(lambda: command("status")[0] == 1, "the stuck worker is not seen")
            out = command("status")[1]
            assert out.startswith(f"PROBLEM process {server.pid}: worker {stuck} is stuck")
            assert f"py-spy dump --pid {stuck}" in " ".join(out.split())
        finally:
            os.kill(stuck, signal.SIGCONT)
        eventually(lambda: command("status")[0] == 0, "the worker is not seen again")


async def test_watch_from_the_beginning_to_the_end(start, command):
    """It waits while the task serves, follows the drain, and ends with it; with --json a line for each look."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS):
        eventually(lambda: command("status")[0] == 0, "the server does not answer the command")
        assert command("watch", "--timeout", "1")[0] == 1
        watching = command.popen("watch", "--json", "--timeout", "50")
        json.loads(watching.stdout.readline())
        assert command("start", "--window", "3")[0] == 0
        out, _ = await asyncio.to_thread(watching.communicate, timeout=60)
    *looks, end = map(json.loads, out.splitlines())
    assert watching.returncode == 0
    assert {"serving", "draining", "drained"} >= {each["tasks"][0]["shown"]["state"] for each in looks}
    assert end["is_over"]
    assert (end["report"][0]["outcome"], end["report"][0]["shed"]) == ("drained", SESSIONS)


async def test_a_task_that_ends_while_it_is_watched(start, command):
    """Its end is the end of the drain; what was seen last is told, and the rest is not known."""
    server = start()
    async with listeners([server.websocket("/ws")] * SESSIONS):
        eventually(lambda: command("status")[0] == 0, "the server does not answer the command")
        watching = command.popen("start", "--window", "60", "--wait")
        for line in watching.stdout:
            if "draining" in line:
                break
        server.signal(signal.SIGKILL)
        out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert "gone" in out
    assert "not known" in out


async def test_from_elsewhere(start, command):
    """With --url it takes the admin token, and says what is wrong with it."""
    server = start(env={"DRAIN_ADMIN_TOKEN": TOKEN})
    assert command("status", "--url", server.url, DRAIN_ADMIN_TOKEN=TOKEN)[0] == 0
    code, _, err = command("status", "--url", server.url, DRAIN_ADMIN_TOKEN="no-" + TOKEN)
    assert (code, err) == (2, "Error: that is not the admin token; set DRAIN_ADMIN_TOKEN here to the task's own\n")
    assert "needs the admin token in DRAIN_ADMIN_TOKEN" in command("status", "--url", server.url)[2]
    code, _, err = command("start", "--url", f"{server.url}/pid", DRAIN_ADMIN_TOKEN=TOKEN)
    assert (code, "answers 405" in err) == (2, True)
    assert command("status", "--url", f"{server.url}/pid", DRAIN_ADMIN_TOKEN=TOKEN)[0] == 2
    code, _, err = command("status", "--url", "http://127.0.0.1:9", DRAIN_ADMIN_TOKEN=TOKEN)
    assert (code, "does not answer" in err) == (2, True)


async def test_several_servers(start, command):
    """It asks which, rather than drain any."""
    one, other = start(), start()
    eventually(lambda: "--pid" in command("start")[2], "it does not ask")
    assert command("status", "--pid", str(one.pid))[1].split()[-2] == "serving"
    assert f"process {other.pid}" in command("status", "--pid", str(other.pid))[1]
    assert command("status", "--pid", "1")[0] == 2
