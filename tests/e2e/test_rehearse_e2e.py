"""``starlette-drain rehearse``: an application leaves well, or not, and the verdict says why."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from server_process import APPS, ROOT, eventually

CLIENTS = 10


def start(*arguments, **env):
    """Start a rehearsal of a short delay."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRAIN_", "AWS_", "ECS_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "starlette_drain", "rehearse", *arguments],
        cwd=APPS,
        env=kept | {"PYTHONPATH": f"{APPS}{os.pathsep}{ROOT}", "PYTHONIOENCODING": "utf-8"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def rehearse(*arguments, **env):
    """Play a rehearsal; return its exit code, output and errors."""
    asked = ("--sessions", str(CLIENTS), "--delay", "6", *arguments)
    playing = start("rehearsed:app", *asked, **env)
    out, err = playing.communicate(timeout=110)
    return playing.returncode, out, err


def test_one_that_leaves_well(tmp_path):
    """
    All are told 1012; the application's own AWS clients get neither endpoint nor credentials of the stand-in.

    Neither a long line of output holds it up nor a helper process that outlives the server with the same output.
    """
    own, picture = tmp_path / "environment.json", tmp_path / "drain.svg"
    mine = {"AWS_ACCESS_KEY_ID": "mine", "SEEN_ENVIRONMENT": str(own), "DRAIN_TARGET_PORT": "1"}
    mine["HELPER"] = "sleep 60"
    code, out, err = rehearse("--path", "/good/{n}", "--plot", str(picture), **mine)
    assert code == 0, out + err
    assert not err
    assert "Everything else that the application talks to is real" in out
    assert f"closes by code     {CLIENTS} x 1012" in out
    assert "Good: every client was asked to leave, and none was cut." in out
    assert b"<svg" in picture.read_bytes()
    seen = json.loads(own.read_text())
    assert {name: value for name, value in seen.items() if name.startswith("AWS_")} == {"AWS_ACCESS_KEY_ID": "mine"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/raises/{n}", "a traceback was logged 10 times: RuntimeError: it has gone"),
        ("/works/{n}", "10 endpoints still running when the server stopped"),
        ("/deaf/{n}", "the endpoint /deaf/{n} had to be cancelled 10 times"),
    ],
)
def test_endpoints_that_do_not(path, reason):
    """The verdict gives the reason with its remedy; of tracebacks that are the same one is shown."""
    code, out, err = rehearse("--path", path, DRAIN_GRACE="0.2")
    assert code == 1, out + err
    assert f"  - {reason}" in out
    assert "    -> " in out
    assert out.count("Traceback") <= 1


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (("--stream", "--path", "/events"), 1000),
        (("--client", "rehearsed:live", "--path", "/good/{n}"), 1012),
    ],
)
def test_other_clients(arguments, end):
    """Event streams end as responses do; clients of one's own say how they ended."""
    code, out, err = rehearse(*arguments, "--json")
    assert code == 0, out + err
    assert json.loads(out)["codes"] == [end] * CLIENTS


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (("rehearsed:app", "--path", "/none"), {}, "a client could not stay connected to /none"),
        (("rehearsed:app", "--stream", "--path", "/answer"), {}, "is text/plain. Remedy: check --path, and --header"),
        (("nowhere:app", "--json"), {}, "Could not import module"),
        (("rehearsed:app", "--client", "rehearsed:app"), {}, "is not a coroutine function"),
        (("rehearsed:app", "--header", "none"), {}, "is not a header"),
        (("rehearsed:app",), {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/1"}, "this is a task on ECS"),
    ],
)
def test_what_cannot_be_played(arguments, env, words):
    """Exit code 2, and why."""
    playing = start(*arguments, **env)
    out, err = playing.communicate(timeout=90)
    assert playing.returncode == 2, out
    assert words in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the children of a process in /proc")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(signum, tmp_path):
    """Whatever ends the rehearsal takes the server along."""
    own = tmp_path / "environment.json"
    playing = start("rehearsed:app", "--path", "/good/{n}", "--sessions", "3", SEEN_ENVIRONMENT=str(own))
    for line in playing.stdout:
        if "clients connected" in line:
            break
    (server,) = children_of(playing.pid)
    time.sleep(0.5)
    playing.send_signal(signum)
    playing.communicate(timeout=30)
    assert playing.returncode in (130, -signum)
    eventually(lambda: not Path(f"/proc/{server}").exists(), "the server is still there")


def children_of(pid):
    """Return the processes that *pid* has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
