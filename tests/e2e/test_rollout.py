"""The rollout lab as its users run it: a small deployment in processes and sockets of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--tasks", "2", "--clients", "60", "--scale", "0.02", "--ramp", "100")


def start(results, *arguments, mark=""):
    """Start the lab."""
    return subprocess.Popen(
        [sys.executable, "-m", "example_app.rollout", *SMALL, "--results", str(results), *arguments],
        cwd=ROOT,
        env={**os.environ, "ROLLOUT_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def roll(results, *arguments):
    """Run the lab to its end; return what it printed, and the scenarios of its JSON file by name."""
    lab = start(results, *arguments)
    output, _ = lab.communicate(timeout=180)
    assert lab.returncode == 0, output
    content = json.loads((results / "rollout.json").read_text())
    return output, {each["scenario"]: each for each in content["scenarios"]}


def processes_marked(mark):
    """Return the processes that have *mark* in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_a_deployment_before_and_after(tmp_path):
    """Without the package all clients lose their connection at SIGTERM; with it they are told one by one, before."""
    output, scenarios = roll(tmp_path, "--scenario", "sigterm-only", "--scenario", "drain")
    before, after = scenarios["sigterm-only"], scenarios["drain"]
    for each in (before, after):
        assert sum(each["figures"]["codes"].values()) == 60
        assert each["figures"]["never_back"] == 0
        assert each["tracebacks"] == 0
        assert [event["kind"] for event in each["events"]].count("cut") == 2
    stop = min(event["at"] for event in after["events"] if event["kind"] == "SIGTERM")
    seconds = [int(second) for second in after["new_connections_by_second"] if int(second) >= 0]
    assert after["figures"]["codes"] == {"1012": 60}
    assert max(seconds) < stop
    assert len(seconds) >= 5
    assert after["figures"]["peak"] < before["figures"]["peak"]
    assert "peak new connections/s" in output


def test_a_random_sleep_after_sigterm_is_cut_by_the_balancer(tmp_path):
    """What was tried first: most of the sleeps are longer than the balancer waits."""
    _, scenarios = roll(tmp_path, "--scenario", "seed", "--scale", "0.05", "--delay", "60")
    figures = scenarios["seed"]["figures"]
    assert figures["cut"] > 20
    assert figures["cut"] == figures["codes"]["1006"]
    assert figures["never_back"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_leaves_nothing_behind(tmp_path):
    """Wherever the lab is, its processes end with it."""
    mark = uuid4().hex
    lab = start(tmp_path, "--scenario", "drain", mark=mark)
    try:
        while not list(tmp_path.glob("drain/clients-*.log")):
            assert lab.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        assert len(processes_marked(mark)) > 3
        lab.send_signal(signal.SIGINT)
        output, _ = lab.communicate(timeout=30)
    finally:
        lab.kill()
    assert lab.returncode == 130
    assert "every process has been ended" in output
    assert processes_marked(mark) == []
