"""The demo, as ``make demo`` runs it, with fewer devices and less time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def start_demo(*options):
    """Start the demo in a process group of its own."""
    command = [sys.executable, "-m", "example_app.demo", *options]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        process_group=0,
    )


def server_of(demo):
    """Read what *demo* says until it names its server's process; return that process's id."""
    for line in demo.stdout:
        if "as process" in line:
            return int(line.split()[-1])
    pytest.fail(f"the demo did not start its server; it ended with {demo.wait()}")


def is_alive(pid):
    """Tell whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_device_is_closed_with_1012():
    """The demo ends with 0 and says that all close codes were 1012."""
    demo = start_demo("--clients", "50", "--delay", "12")
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, output
    assert "50 x 1012 (all 1012)" in output
    assert "All 50 devices were asked to come back; none was cut." in output


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_by_a_demo_that_is_interrupted(signum):
    """Ctrl-C, SIGTERM, and on Linux even SIGKILL take the server along."""
    if signum == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent has gone")
    demo = start_demo("--clients", "5", "--delay", "60")
    server = server_of(demo)
    time.sleep(1)
    os.kill(demo.pid, signum)
    demo.communicate(timeout=20)
    assert demo.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    for _ in range(50):
        if not is_alive(server):
            return
        time.sleep(0.1)
    pytest.fail(f"the server, process {server}, is still there")
