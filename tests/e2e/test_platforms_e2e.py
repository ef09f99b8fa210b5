"""What Kubernetes, systemd and Docker Compose run before SIGTERM, exactly as the files say, against the example."""

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from server_process import ROOT
from websocket_clients import listeners

pytestmark = pytest.mark.anyio

DEPLOY = ROOT / "example_app" / "deploy"
SESSIONS = 20
WINDOW = 1
"""Seconds, in place of the minutes in the files."""


def kubernetes():
    """Return the environment of the pod, and its preStop hook."""
    deployment, *_ = yaml.safe_load_all((DEPLOY / "kubernetes" / "streams.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    return environment, container["lifecycle"]["preStop"]["exec"]["command"]


def systemd():
    """Return the environment of the unit, and its ExecStop."""
    lines = [
        line.partition("=")[::2] for line in (DEPLOY / "systemd" / "streams.service").read_text().splitlines() if line
    ]
    unit = dict(lines)
    return dict(each.split("=", 1) for each in shlex.split(unit["Environment"])), shlex.split(unit["ExecStop"])


def compose():
    """Return the environment of a task, and its pre_stop hook."""
    task = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]["app-1"]
    (hook,) = task["pre_stop"]
    environment = {name: value for name, value in task["environment"].items() if name.startswith("DRAIN_")}
    return environment, hook["command"]


@pytest.fixture
def directory():
    """Return a temporary directory for a server and the command: its path is short, as those of sockets must be."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield path


@pytest.fixture
def run_hook(directory, tmp_path):
    """Run a hook where it would run beside *server*, only that nothing sleeps; return its exit code and output."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sleep").symlink_to(shutil.which("true"))
    (programs / "starlette-drain").symlink_to(Path(sys.executable).parent / "starlette-drain")

    def run(hook, server, environment):
        program, *arguments = (part.replace("$MAINPID", str(server.pid)) for part in hook)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DRAIN_")}
        path = f"{programs}:{os.environ['PATH']}"
        done = subprocess.run(
            [shutil.which(program.rpartition("/")[2], path=path), *arguments],
            cwd=ROOT,
            env=kept | environment | {"TMPDIR": directory, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("platform", [kubernetes, systemd])
async def test_the_hook_drains_and_sigterm_ends_it(serve, run_hook, directory, platform):
    """The sessions leave while the hook waits; SIGTERM finds no session, and the process ends at once."""
    environment, hook = platform()
    environment |= {"DRAIN_WINDOW": str(WINDOW)}
    arguments = ("--timeout-graceful-shutdown", "5")
    server = serve("example:app", *arguments, env={**environment, "TMPDIR": directory})
    async with listeners([server.websocket(f"/devices/{n}") for n in range(SESSIONS)]) as clients:
        code, output = await asyncio.to_thread(run_hook, hook, server, environment)
        assert (code, "drained, 0 open" in output) == (0, True), output
        server.signal(signal.SIGTERM)
        await asyncio.to_thread(server.wait)
        ends = [await each.close_policy() for each in clients]
    assert {each.code for each in ends} == {1012}
    assert server.trouble == []


async def test_haproxy_gives_late_arrivals_to_the_other_task(serve, run_hook, directory, tmp_path):
    """While one task drains and refuses, the balancer of the Compose file gives what arrives there to the other."""
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if haproxy is None:
        pytest.skip("there is no haproxy")
    environment, hook = compose()
    environment |= {"DRAIN_WINDOW": str(WINDOW)}
    each_of_its_own = (directory, str(tmp_path))
    leaving, staying = (serve("example:app", env={**environment, "TMPDIR": each}) for each in each_of_its_own)
    text = (DEPLOY / "compose" / "haproxy.cfg").read_text()
    for name, server in (("app-1", leaving), ("app-2", staying)):
        text = text.replace(f"{name}:8000", f"127.0.0.1:{server.port}")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(text)
    start = f"sed -i 's/bind :8080/bind 127.0.0.1:{{port}}/' {configuration}; exec {haproxy} -db -f {configuration}"
    balancer = serve("", command=("-c", start), python="/bin/sh", probe="/healthz")
    async with listeners([balancer.websocket(f"/devices/{n}") for n in range(SESSIONS)]) as clients:
        draining = asyncio.create_task(asyncio.to_thread(run_hook, hook, leaving, environment))
        while all(each.is_open for each in clients):
            assert not draining.done(), draining.result()
            await asyncio.sleep(0.02)
        # The task that drains has fewer connections, so HAProxy asks it first.
        async with listeners([balancer.websocket(f"/devices/late-{n}") for n in range(5)]) as late:
            code, output = await draining
            assert code == 0, output
            assert all(each.is_open for each in late)
            assert any(each.is_open for each in clients)
            assert {(await each.close_policy()).code for each in clients if not each.is_open} == {1012}
    assert "/devices/late-" in leaving.log
    assert staying.trouble == leaving.trouble == []
