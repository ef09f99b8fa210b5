"""
The queries of example_app/deploy/monitoring, in a real Prometheus that scrapes real tasks of the example.

Three tasks with two workers each: one drains, one has a worker whose event loop is blocked, one has more arrivals than
it may set up, and is killed in a drain.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from prometheus_process import RULES, program
from server_process import ROOT, TOKEN, eventually, free_port
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from starlette_drain.testing import FakeAWS

if sys.platform != "linux":
    pytest.skip("only Linux has all of 127.0.0.0/8", allow_module_level=True)

pytestmark = pytest.mark.xdist_group("crowds")

APPS = Path(__file__).parent / "apps"
DASHBOARD = RULES.with_name("grafana.json")
DRAINS, BLOCKED, STORMED = "127.0.0.2", "127.0.0.3", "127.0.0.4"
SETTINGS = {
    "DRAIN_ADMIN_TOKEN": TOKEN,
    "DRAIN_POLL_INTERVAL": "1",
    "DRAIN_WINDOW": "3",
    "DRAIN_GRACE": "1",
    "DRAIN_ADMISSION": "2",
}
FIRES = {"DrainWorkerSilent", "DrainSessionsForced", "DrainStorm", "DrainKilled"}
"""The rules whose condition comes true in this run. How long it must hold is tried in test_alarms.py."""
MAY_FIRE = {
    *("DrainWatchBlind", "DrainWatchStalled", "DrainWatchMissing"),  # for a moment, while the tasks start
    "DrainStormRefuses",  # if the kernel gives one worker nearly all arrivals
    "DrainDeadlineMissed",  # if the machine is too busy to cancel an application within a second
}


class Lab:
    """The tasks, and the Prometheus that scrapes them."""

    def __init__(self, folder, ends):
        self._folder, self._ends = folder, ends
        self.port, self._prometheus = free_port(), free_port()
        self._targets = folder / "targets"
        self._targets.mkdir()
        self.servers, self.began = {}, time.time()

    def start(self, host, environment):
        """Start a task with two workers: gunicorn, which can load the application once for both."""
        shared = self._folder / f"tmp-{host}"
        shared.mkdir(mode=0o700)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRAIN_", "AWS_", "ECS_"))}
        own = {"TARGETS": str(self._targets), "TASK": host, "TMPDIR": str(shared), "PYTHONPATH": f"{APPS}:{ROOT}"}
        command = (
            *(sys.executable, "-m", "gunicorn", "monitored:app", "-k", "uvicorn_worker.UvicornWorker", "--preload"),
            *("-w", "2", "-b", f"{host}:{self.port}", "--timeout", "600", "--no-control-socket"),
        )
        log = self._ends.enter_context((self._folder / f"{host}.log").open("w"))
        server = self.servers[host] = subprocess.Popen(
            command, cwd=APPS, env=kept | environment | SETTINGS | own, stdout=log, stderr=log, start_new_session=True
        )
        self._ends.callback(self.kill, server)

    def kill(self, server):
        """Kill a task, or Prometheus."""
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    def scrape(self):
        """Start Prometheus."""
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "streams", "file_sd_configs": [{"files": [f"{self._targets}/*.json"]}]}],
        }
        path = self._folder / "prometheus.json"
        path.write_text(json.dumps(config))
        command = (program("prometheus"), f"--config.file={path}", f"--storage.tsdb.path={self._folder / 'data'}")
        log = self._ends.enter_context((self._folder / "prometheus.log").open("w"))
        listen = f"--web.listen-address=127.0.0.1:{self._prometheus}"
        server = subprocess.Popen((*command, listen), stdout=log, stderr=log, start_new_session=True)
        self._ends.callback(self.kill, server)

    def ask(self, path, **query):
        """Ask Prometheus' API; return the data of the answer."""
        url = f"http://127.0.0.1:{self._prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def log(self, host):
        """Return what a task has logged."""
        return (self._folder / f"{host}.log").read_text()

    def now(self, query):
        """Return the series that *query* has now; none where Prometheus does not listen yet."""
        with suppress(OSError):
            return self.ask("query", query=query)["result"]
        return []

    def ever(self, query):
        """Return the series that *query* had at any time."""
        return self.ask("query_range", query=query, start=self.began, end=time.time() + 1, step="0.5")["result"]

    def websocket(self, host, path):
        """Connect a client."""
        return connect(f"ws://{host}:{self.port}{path}", open_timeout=20, close_timeout=1)

    def start_drain(self, host):
        """Start a drain by hand that takes long."""
        request = urllib.request.Request(
            f"http://{host}:{self.port}/drain",
            data=b'{"window": 300}',
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20):
            pass


@pytest.fixture
def lab(tmp_path):
    """Return the lab after all has happened."""
    fake = FakeAWS()
    with ExitStack() as ends:
        lab = Lab(tmp_path, ends)
        service = fake.add_service("streams", delay=40.0, port=lab.port)
        aws = ends.enter_context(fake.serve())
        lab.scrape()
        tasks = {}
        for host in (DRAINS, BLOCKED, STORMED):
            tasks[host] = fake.add_task(service, addresses=(host,))
            lab.start(host, aws.environment(tasks[host]))
        eventually(lambda: len(lab.now("drain_state")) == 6, "not all are scraped", within=60)
        eventually(lambda: len(lab.now("drain_watch == 1")) == 3, "not all watch", within=60)
        asyncio.run(happen(lab, lambda: fake.deactivate(tasks[DRAINS])))
        yield lab


async def happen(lab, deactivate):
    """Let it all happen."""

    async def until(query):
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(lab.now, query):  # noqa: ASYNC110 - Prometheus does not call us
                await asyncio.sleep(0.2)

    async def arrive():
        with suppress(OSError, InvalidStatus, TimeoutError):
            async with lab.websocket(STORMED, "/slow") as client:
                await client.wait_closed()

    async def block():
        _, writer = await asyncio.open_connection(BLOCKED, lab.port)
        writer.write(b"GET /block HTTP/1.1\r\nHost: lab\r\n\r\n")
        return writer

    blocked = await block()
    clients = [await lab.websocket(DRAINS, f"/devices/{number}") for number in range(6)]
    clients += [await lab.websocket(DRAINS, "/stubborn") for _ in range(2)]
    await clients.pop(0).close()
    arrivals = [asyncio.create_task(arrive()) for _ in range(8)]
    await until("sum(drain_sessions_active) == 7")
    deactivate()
    await until('drain_state{task="127.0.0.2"} == 1')
    with pytest.raises(InvalidStatus):
        await lab.websocket(DRAINS, "/devices/late")
    await until('count(drain_state{task="127.0.0.2"} == 2) == 2')
    await until('drain_sessions_active{task="127.0.0.4"} > 0')
    lab.start_drain(STORMED)
    await until('drain_sessions_remaining{task="127.0.0.4"} > 0')
    await until('drain_workers{drain_worker_state="silent"} > 0')
    lab.kill(lab.servers[STORMED])
    await until(f"{rules(lab)['DrainKilled']}")
    for each in arrivals:
        each.cancel()
    blocked.close()


def rules(lab):
    """Return the condition of each rule, as Prometheus has read it."""
    (group,) = lab.ask("rules")["groups"]
    assert {each["health"] for each in group["rules"]} == {"ok"}
    return {each["name"]: each["query"] for each in group["rules"]}


def queries():
    """Return the title of each panel of the dashboard, and one of its queries."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$service", ".*").replace("$__rate_interval", "5s")


# One test, for what it looks at takes ten seconds to happen, and tests of a module may run in several processes.
def test_what_happens_is_shown_and_nothing_else(lab):
    """Each panel has data, and each rule sees what it is for, in the process that it concerns."""
    empty = [(title, query) for title, query in queries() if not numbers(lab.ever(query))]
    assert empty == []

    for name in ("drain_sessions_planned", "drain_time_left_seconds"):
        assert {series["metric"]["task"] for series in lab.ever(name)} == {DRAINS, STORMED}

    seen = {name: lab.ever(query) for name, query in rules(lab).items()}
    assert {name for name, series in seen.items() if series} - MAY_FIRE == FIRES
    task = {series["metric"]["instance"]: series["metric"]["task"] for series in lab.ever("drain_state")}
    assert BLOCKED in {task[each["metric"]["instance"]] for each in seen["DrainWorkerSilent"]}

    # The first to say so is its sibling, in the log.
    assert "has not responded for 5 s or more: its event loop is blocked" in lab.log(BLOCKED)


def numbers(found):
    """Return the values of series that are numbers."""
    return [value for series in found for _, value in series["values"] if value != "NaN"]
