"""The rollout lab as its users run it: a small deployment in processes and sockets of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

pytestmark = [pytest.mark.slow]

labs = pytest.mark.xdist_group("labs")
"""Those that are about time, one after the other."""

counts = pytest.mark.xdist_group("labs that count")
"""The others, beside those."""

ROOT = Path(__file__).resolve().parents[2]
HAPROXY = pytest.param(
    ("--balancer", "haproxy"),
    marks=pytest.mark.skipif(
        not shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin"),
        reason="HAProxy is not installed; tests/ecosystem/install.sh does it",
    ),
)
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


def moments_of(scenario, kind):
    """Return when events of that kind happened, in seconds since the first deregistration."""
    return [event["at"] for event in scenario["events"] if event["kind"] == kind]


def losses(results):
    """Return what the clients of a drain have lost, in Unix time."""
    return json.loads((results / "drain" / "clients-1.json").read_text())["losses"]


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


@labs
def test_a_deployment_before_and_after(tmp_path):
    """
    Six hundred clients: without the package all come back in one second, with it at an even pace, and nobody is cut.

    The busiest second has at most 1.5 times the mean of a drain; that of plain uvicorn has ten times as many and more.
    """
    both = ("--scenario", "sigterm-only", "--scenario", "drain")
    output, scenarios = roll(tmp_path, *both, "--clients", "600", "--scale", "0.06", "--ramp", "300")
    before, after = scenarios["sigterm-only"], scenarios["drain"]
    for each in (before, after):
        assert each["figures"]["codes"] == {"1012": 600}
        assert each["figures"]["cut"] == each["figures"]["never_back"] == 0
        assert each["tracebacks"] == 0
        assert moments_of(each, "cut") != []
    assert max(map(int, after["new_connections_by_second"])) < min(moments_of(after, "SIGTERM"))
    assert after["figures"]["ratio"] <= 1.5
    assert before["figures"]["peak"] >= 10 * after["figures"]["peak"]
    assert "peak new connections/s" in output


@counts
def test_a_crash_without_and_with_a_limit_on_handshakes(tmp_path):
    """The clients of the task that was killed are back, nobody else loses anything, and no health check is late."""
    both = ("--scenario", "crash", "--scenario", "crash-slow-admission")
    output, scenarios = roll(tmp_path, *both, "--tasks", "3", "--clients", "300", "--reconnect", "immediate")
    for each in scenarios.values():
        assert 90 <= each["figures"]["cut"] <= 110
        assert each["figures"]["never_back"] == 0
        assert each["survivors"]["late_checks"] == 0
    assert "longest stall of an event loop" in output


@counts
@pytest.mark.parametrize("options", [("--balancer", "tcp"), HAPROXY], ids=lambda options: options[1])
def test_a_balancer_that_drops_a_third_of_its_connections(tmp_path, options):
    """No task is lost, a third of the clients is, and all come back."""
    _, scenarios = roll(tmp_path, "--scenario", "balancer-admission", "--reconnect", "immediate", *options)
    figures = scenarios["balancer-admission"]["figures"]
    assert (figures["cut"], figures["never_back"], figures["hops"]) == (20, 0, 1.0)


@labs
@pytest.mark.parametrize("options", [("--fleet", "websockets"), HAPROXY], ids=lambda options: options[1])
def test_other_clients_and_another_balancer_see_the_same(tmp_path, options):
    """Everyone is told one by one, before SIGTERM; it does not hang on what the lab brings along."""
    _, scenarios = roll(tmp_path, "--scenario", "drain", *options)
    after = scenarios["drain"]
    assert after["figures"]["codes"] == {"1012": 60}
    assert after["figures"]["never_back"] == 0
    assert max(map(int, after["new_connections_by_second"])) < min(moments_of(after, "SIGTERM"))
    assert len(after["new_connections_by_second"]) >= 5


@counts
@pytest.mark.parametrize("options", [("--balancer", "tcp"), HAPROXY], ids=lambda options: options[1])
def test_a_random_sleep_after_sigterm_is_cut_by_the_balancer(tmp_path, options):
    """What was tried first: most of the sleeps are longer than the balancer waits."""
    _, scenarios = roll(tmp_path, "--scenario", "seed", "--scale", "0.05", "--delay", "60", *options)
    figures = scenarios["seed"]["figures"]
    assert figures["cut"] > 20
    assert figures["cut"] == figures["codes"]["1006"]
    assert figures["never_back"] == 0


@labs
def test_an_early_cut_meets_draining_tasks_only(tmp_path):
    """Two tasks that leave one after the other: each loses what it has left half-way through its own delay."""
    in_turn = ("--maximum-percent", "150", "--in-turn")
    _, scenarios = roll(tmp_path, "--scenario", "drain", "--fault", "early-cut", *in_turn)
    after = scenarios["drain"]
    halves, gone = moments_of(after, "fault"), moments_of(after, "deregistered")
    assert [later - earlier for earlier, later in zip(gone, halves, strict=True)] == pytest.approx([3, 3], abs=1)
    codes = after["figures"]["codes"]
    assert codes["1006"] == after["figures"]["cut"] > 10
    assert codes["1012"] > 10
    assert after["figures"]["never_back"] == 0
    cuts = sorted(lost for _, lost, code, _ in losses(tmp_path) if code == 1006)
    halves = [cuts[0] + half - halves[0] for half in halves]
    assert all(min(abs(cut - half) for half in halves) < 1 for cut in cuts)


@counts
def test_a_task_that_is_killed_takes_along_only_what_it_has_left(tmp_path):
    """Half of its clients had been told to leave by then, and the other task's all are."""
    _, scenarios = roll(tmp_path, "--scenario", "drain", "--fault", "kill-task", "--scale", "0.04")
    figures = scenarios["drain"]["figures"]
    assert 5 < figures["cut"] < 25
    assert figures["codes"] == {"1006": figures["cut"], "1012": 60 - figures["cut"]}
    assert figures["never_back"] == 0


@labs
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_that_is_stopped_leaves_nothing_behind(tmp_path, signum):
    """Ctrl-C and SIGTERM: wherever the lab is, its processes end with it, and its exit status tells which it was."""
    mark = uuid4().hex
    lab = start(tmp_path, "--scenario", "drain", mark=mark)
    try:
        while not list(tmp_path.glob("drain/clients-*.log")):
            assert lab.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        assert len(processes_marked(mark)) > 3
        lab.send_signal(signum)
        output, _ = lab.communicate(timeout=30)
    finally:
        lab.kill()
    assert lab.returncode == 128 + signum
    assert "every process has been ended" in output
    assert processes_marked(mark) == []


@counts
@pytest.mark.parametrize("balancer", [("--scenario", "second-balancer-alone"), HAPROXY])
def test_a_rotation_moves_all_clients_to_a_second_balancer(tmp_path, balancer):
    """Before the first one is switched off each has moved once, and none was refused or cut."""
    _, scenarios = roll(tmp_path, *balancer, "--scenario", "second-balancer")
    if "second-balancer-alone" in scenarios:
        assert scenarios["second-balancer-alone"]["figures"]["cut"] == 60
    rotated = scenarios["second-balancer"]["figures"]
    assert (rotated["cut"], rotated["codes"], rotated["hops"]) == (0, {"1012": 60}, 1.0)
    assert (rotated["never_back"], rotated["failures"]) == (0, {})


@counts
def test_old_tasks_drain_while_a_hook_holds_a_blue_green_deployment(tmp_path):
    """Traffic goes to the new tasks, the old ones empty, and only then the deployment goes on to take them out."""
    pause = ("--strategy", "blue-green", "--pause", "5", "--scale", "0.01", "--delay", "100")
    _, scenarios = roll(tmp_path, "--scenario", "drain", *pause)
    after = scenarios["drain"]
    figures = after["figures"]
    assert (figures["codes"], figures["hops"], figures["never_back"]) == ({"1012": 60}, 1.0, 0)
    (shifted,) = moments_of(after, "shifted")
    assert shifted == 0.0
    assert moments_of(after, "fault") == []
    assert max(map(int, after["closes_by_second"])) < min(moments_of(after, "deregistered"))


@counts
def test_three_generations_at_once(tmp_path):
    """The next deployment begins while the old tasks drain: some clients move twice, and none is cut."""
    _, scenarios = roll(tmp_path, "--scenario", "drain", "--next-after", "50", "--scale", "0.01")
    figures = scenarios["drain"]["figures"]
    assert (figures["cut"], figures["never_back"]) == (0, 0)
    assert 60 < figures["codes"]["1012"] <= 120
