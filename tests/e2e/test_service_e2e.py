"""``starlette-drain status | watch | cancel`` on a service of three tasks with two workers each, one of them stuck."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from server_process import APPS, ROOT, TOKEN, eventually, free_port

from starlette_drain.testing import FakeAWS

if sys.platform != "linux":
    pytest.skip("only Linux has all of 127.0.0.0/8", allow_module_level=True)

pytestmark = pytest.mark.xdist_group("crowds")

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
SESSIONS = 20
DELAY = 40.0


class Lab:
    """A service on FakeAWS, whose tasks are real servers on addresses of their own."""

    def __init__(self, fake, aws, port):
        self.fake, self._aws, self._port = fake, aws, port
        self.tasks, self._servers, self._crowds = {}, {}, []

    def start(self, service, host):
        """Start a task with two workers, and clients on it."""
        task = self.tasks[host] = self.fake.add_task(service, addresses=(host,))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRAIN_", "AWS_", "ECS_"))}
        own = {"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_POLL_INTERVAL": "1", "PYTHONPATH": f"{APPS}{os.pathsep}{ROOT}"}
        self._servers[host] = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "one_line:app", "--host", host, "--port", str(self._port)),
                *("--workers", "2", "--timeout-worker-healthcheck", "600", "--log-level", "warning"),
            ],
            cwd=APPS,
            env=kept | self._aws.environment(task) | own,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def connect(self, host):
        """Let clients connect that live in a process of their own."""
        crowd = (
            "import asyncio, websockets\nasync def main():\n"
            f"    held = [await websockets.connect('ws://{host}:{self._port}/ws') for _ in range({SESSIONS})]\n"
            "    await asyncio.sleep(600)\nasyncio.run(main())"
        )
        self._crowds.append(subprocess.Popen([sys.executable, "-c", crowd], stderr=subprocess.DEVNULL))

    def ask(self, host):
        """Return what a task shows."""
        request = urllib.request.Request(
            f"http://{host}:{self._port}/drain", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def is_ready(self, host):
        """Whether both workers know each other and the target is watched."""
        with suppress(OSError):
            shown = self.ask(host)
            return len(shown["workers"]) == 2 and shown["watch"] == "watching"
        return False

    def end(self, host):
        """Stop a task, as ECS does after the delay."""
        with suppress(ProcessLookupError):
            os.killpg(self._servers[host].pid, signal.SIGKILL)
        self._servers[host].wait()
        self.tasks[host].last_status = "STOPPED"

    def close(self):
        """End all."""
        for crowd in self._crowds:
            crowd.kill()
            crowd.wait()
        for host in self._servers:
            self.end(host)


@pytest.fixture
def lab():
    """Return a service with three tasks and their clients."""
    port, fake = free_port(), FakeAWS()
    service = fake.add_service("web", delay=DELAY, port=port)
    service.desired = 3
    with fake.serve() as aws:
        lab = Lab(fake, aws, port)
        try:
            for host in HOSTS:
                lab.start(service, host)
            for host in HOSTS:
                eventually(lambda host=host: lab.is_ready(host), f"{host} is not ready", within=60)
                lab.connect(host)
            for host in HOSTS:
                eventually(lambda host=host: lab.ask(host)["sessions"]["open"] == SESSIONS, "not all are connected")
            lab.environment = {**aws.environment(), "DRAIN_ADMIN_TOKEN": TOKEN}
            lab.environment.pop("ECS_CONTAINER_METADATA_URI_V4")
            yield lab
        finally:
            lab.close()


@pytest.fixture
def command(lab):
    """Start the command as on a machine in the network of the service."""

    def start(*arguments, **env):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRAIN_", "AWS_", "ECS_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "starlette_drain", *arguments],
            cwd=ROOT,
            env=kept | lab.environment | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(*arguments, **env):
        done = start(*arguments, **env)
        out, err = done.communicate(timeout=60)
        return done.returncode, out, err

    run.start = start
    return run


WEB = ("--cluster", "main", "--service", "web")


@pytest.mark.timeout(200)
def test_three_tasks_one_of_them_with_a_stuck_worker(lab, command):
    """The stuck worker comes first, with what to do; the report is joined, and says what is not known."""
    code, out, err = command("status", *WEB)
    assert code == 0, out + err
    assert re.search(r"3 tasks\s+0 draining\s+60\s+60", out)

    stuck_task = lab.tasks[HOSTS[1]]
    stuck = max(each["pid"] for each in lab.ask(HOSTS[1])["workers"])
    os.kill(stuck, signal.SIGSTOP)
    for task in lab.tasks.values():
        lab.fake.deactivate(task)
    watching = command.start("watch", *WEB, "--timeout", "120")
    lines = []
    for line in watching.stdout:
        lines.append(line)
        if "-> " in line:
            break
    assert re.search(
        rf"^PROBLEM {stuck_task.id}: worker {stuck} is stuck: no heartbeat for", "".join(lines), re.MULTILINE
    )
    assert f"'py-spy dump --pid {stuck}'" in lines[-1]
    assert lines[-2].startswith("PROBLEM")

    # The other tasks empty; then ECS ends them all.
    for host in (HOSTS[0], HOSTS[2]):
        eventually(lambda host=host: lab.ask(host)["state"] == "drained", f"{host} does not drain", within=90)
    time.sleep(1)
    for host in HOSTS:
        lab.end(host)
    out, err = watching.communicate(timeout=60)
    assert watching.returncode == 1, out + err
    assert "OUTCOME" in out, out + err
    report = out[out.index("OUTCOME") :]
    drained = [line for line in report.splitlines() if " drained " in line]
    assert len(drained) == 2
    (unknown,) = (line for line in report.splitlines() if line.startswith(stuck_task.id) and "not known" in line)
    assert unknown


@pytest.mark.timeout(120)
def test_one_task_is_started_and_all_are_cancelled(lab, command):
    """A whole service is never started; what has no route gets the line for ECS Exec."""
    code, _, err = command("start", *WEB)
    assert (code, "an outage" in err) == (2, True)
    one = lab.tasks[HOSTS[0]].id
    code, out, err = command("start", *WEB, "--task", one, "--window", "60")
    assert code == 0, out + err
    assert "starts to drain: 20 sessions" in out
    code, out, _ = command("status", *WEB, "--json")
    assert [each["shown"]["state"] for each in json.loads(out)["tasks"]] == ["draining", "serving", "serving"]
    code, out, err = command("rotate", *WEB, "--fleet-rate", "0.5", "--json")
    rotations = json.loads(out)
    assert code == 1, out + err
    assert "drain" in rotations.pop(one)["error"]
    assert [each["state"] for each in rotations.values()] == ["rotating"] * 2
    (window,) = {each["window"] for each in rotations.values()}
    assert 2 * SESSIONS / 0.5 <= window <= 3 * SESSIONS / 0.5  # one of the three is emptying
    code, out, err = command("cancel", *WEB)
    assert code == 0, out + err
    assert "serves again" in out.splitlines()[0]
    code, out, err = command("status", *WEB, "--port", "9", PATH=str(Path(tempfile.gettempdir()) / "nowhere"))
    assert code == 1, out + err
    line = " ".join(out.split())
    arn = lab.tasks[HOSTS[2]].arn
    assert f"aws ecs execute-command --cluster main --task {arn} --container app --interactive" in line
