"""One drain, followed at once on the page, by the command and in Prometheus: all three show the same figures."""

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from threading import Thread

import pytest
from server_process import ROOT, TOKEN, eventually
from test_dashboards import Lab
from test_page_in_chromium import drive
from test_real_clients import programs
from websockets.asyncio.client import connect

__all__ = ["programs"]

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("crowds")]

SESSIONS, GO = 12, 5
"""How many come, and how many of them go by themselves while the task drains."""

SERVING, DRAINING, DRAINED = range(3)


class Watch(Thread):
    """``starlette-drain watch``: what it printed last."""

    def __init__(self, url):
        super().__init__(daemon=True)
        command = [sys.executable, "-m", "starlette_drain", "watch", "--url", url, "--json"]
        environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self.open = self.report = None
        self.start()

    def run(self):
        """Read until it ends; its last line is the report."""
        with self.process.stdout as lines:
            for line in lines:
                look = json.loads(line)
                if "is_over" in look:
                    (self.report,) = look["report"]
                else:
                    self.open = look["sum"]["open"]

    def end(self):
        """End it, where the test has not come to its end."""
        self.process.kill()
        self.process.wait()
        self.join()


class Views:
    """The steps of the drain, and what is seen of it besides the page."""

    def __init__(self, server, lab, clients, ends):
        self._server, self._lab, self._clients, self._ends = server, lab, clients, ends
        self._loop = asyncio.get_running_loop()
        self.watch = None

    def serving(self):
        """Let all come before it begins; the first look is the command's."""
        self.watch = Watch(self._server.url)
        self._ends.callback(self.watch.end)
        self._until(SERVING)

    def draining(self):
        """Begin a drain that would take an hour, and let some go."""
        self._server.drain("POST", window=3600)
        self._until(DRAINING)  # the other worker too, which hears of it later
        for client in self._clients[:GO]:
            asyncio.run_coroutine_threadsafe(client.close(), self._loop).result(20)

    def drained(self):
        """Let the others be asked to leave, within seconds."""
        self._server.drain("POST", window=1)
        self._until(DRAINED)

    def look(self):
        """Return how many are open, once the command and Prometheus say the same."""
        agree = lambda: self.watch.open == self._value("sum(drain_sessions_active)")  # noqa: E731
        eventually(agree, "the command and Prometheus do not agree", within=60)
        return self.watch.open

    def ended(self, shown):
        """Compare the reports: the page's, the command's and the counters."""
        assert self.watch.process.wait(20) == 0
        self.watch.join(20)
        report, page = self.watch.report, json.loads(shown)
        reported = {
            "open at the start": report["sessions_at_start"],
            "asked to leave": report["shed"],
            "left on their own": report["left"],
            "forced": report["forced"],
            "still open": report["still_open"],
        }
        assert {name: int(page[name]) for name in reported} == reported
        assert report["sessions_at_start"] == SESSIONS
        assert report["left"] == GO
        assert self._value("sum(drain_sessions_shed_total)") == report["shed"] == SESSIONS - GO
        closed = 'sum(drain_sessions_closed_total{drain_close_reason="%s"})'
        assert self._value(closed % "app_shutdown") == report["shed"]
        assert self._value(closed % "normal_closure") == report["left"]
        assert self._value("sum(drain_sessions_remaining)") == report["still_open"]
        return "the same"

    def _until(self, state):
        # Or further: a worker to which the kernel gave no client has drained at once.
        query = f"count(drain_state >= {state})"
        eventually(lambda: self._value(query) == 2, f"not both workers are {state}", within=60)

    def _value(self, query):
        found = self._lab.now(query)
        return float(found[0]["value"][1]) if found else -1


async def test_one_drain_looks_the_same_from_three_sides(serve, tmp_path, programs):
    """Page, command and Prometheus agree on who is open before, during and after it, and on how each of them left."""
    async with AsyncExitStack() as stack:
        lab = Lab(tmp_path, stack)
        targets = {"TARGETS": str(tmp_path / "targets"), "TASK": "a"}
        server = serve("monitored:app", "--workers", "2", env=targets, probe="/healthz")
        lab.scrape()
        eventually(lambda: len(lab.now("drain_state")) == 2, "not both workers are scraped", within=60)
        clients = [
            await stack.enter_async_context(connect(server.websocket(f"/devices/{number}"), proxy=None))
            for number in range(SESSIONS)
        ]
        views = Views(server, lab, clients, stack)
        steps = {"Serving": views.serving, "Draining": views.draining, "Drained": views.drained}
        await drive("together", server, programs, tmp_path, **steps, look=views.look, report=views.ended)
    assert server.trouble == []
