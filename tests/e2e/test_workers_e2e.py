"""Several worker processes of one server, for real: one request drains them all."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from server_process import REASON, TOKEN, eventually

pytestmark = pytest.mark.xdist_group("crowds")

SESSIONS = int(os.environ.get("DRAIN_TEST_SESSIONS", "800"))
WINDOW = 12.0
HEALTH_CHECK = 120
HERE = Path(__file__).parent
GUNICORN = ("-m", "gunicorn", "{app}", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}")


@pytest.fixture(autouse=True)
def many_files():
    """Allow this process and its children to have enough files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, SESSIONS + 1000)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def shared_directory(tmp_path):
    """Return the directory in which the workers make theirs."""
    directory = tmp_path / "workers"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def start(serve, shared_directory):
    """Start a server with several workers."""

    def start(*arguments, workers=4, **options):
        environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "TMPDIR": str(shared_directory)}
        environment |= options.pop("env", {})
        # Its supervisor ends a worker that answers no ping, such as one that is stopped on a busy machine.
        patience = "--timeout-worker-healthcheck", f"{HEALTH_CHECK}"
        arguments = arguments or ("--workers", str(workers), "--log-level", "warning", *patience)
        return serve("one_line:app", *arguments, env=environment, **options)

    return start


@contextmanager
def crowd(server, number):
    """Connect *number* clients; yield what waits for their ends, in the order in which they ended."""
    command = [sys.executable, str(HERE / "crowd.py"), str(server.port), "/ws", str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "open\n"
            yield lambda: sorted(json.loads(process.stdout.readline()), key=lambda end: end[2])
        finally:
            process.kill()


@contextmanager
def crowd_on_all(server, workers, number):
    """Connect *number* clients, as many to each worker: the kernel alone may give all of them to one."""
    with ExitStack() as crowds:
        ends = []
        for pid in workers:
            with stopped(set(workers) - {pid}):
                ends.append(crowds.enter_context(crowd(server, number // len(workers))))
        yield lambda: sorted((end for each in ends for end in each()), key=lambda end: end[2])


@contextmanager
def stopped(pids):
    """Let these processes do nothing for a while."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def deviation(moments, began, window, number):
    """Return how many sessions *moments* are off the straight line at the most."""
    return max(
        abs(count - min(1.0, (at - began) / window) * number) for count, at in enumerate(moments, 1) if at >= began
    )


def settled(server, workers):
    """Wait until a worker knows of every other; return their process ids."""
    found = []

    def is_complete():
        found[:] = [each["pid"] for each in workers_of(server).get("workers", ())]
        return len(found) == workers

    eventually(is_complete, "the workers do not find each other")
    return found


def open_sessions(server):
    """Return how many sessions each worker has, as far as the one that answers knows."""
    return [each["sessions"]["open"] for each in workers_of(server).get("workers", ())]


def workers_of(server):
    """Return what the worker that happens to answer knows of all."""
    return server.drain()[1]


def test_one_post_drains_four_workers_on_one_even_line(start, shared_directory):
    """All sessions of all workers see 1012, the sum falls evenly, and ?wait answers when the last worker is empty."""
    server = start()
    workers = settled(server, 4)
    with crowd_on_all(server, workers, SESSIONS) as ends:
        # What a worker knows of the others may be a quarter of a second old.
        eventually(lambda: open_sessions(server) == [SESSIONS / 4] * 4, "not all sessions are shown")
        began = time.monotonic()
        code, shown = server.drain("POST", "?wait=60", window=WINDOW)
        waited = time.monotonic() - began
        told = ends()
    assert code == 202
    assert {each["state"] for each in shown["workers"]} == {"drained"}
    assert shown["report"]["shed"] == SESSIONS
    assert shown["report"]["forced"] == 0
    assert waited >= WINDOW - 1.5

    assert Counter((code, reason) for code, reason, _ in told) == {(1012, REASON): SESSIONS}
    moments = [at for _, _, at in told]
    mean = SESSIONS / WINDOW
    busiest = max(Counter(int(at - began) for at in moments).values())
    off = deviation(moments, began, WINDOW, SESSIONS)
    sys.stdout.write(
        f"{SESSIONS} sessions: at most {off:.1f} ({off / SESSIONS:.1%}) off the line, busiest second "
        f"{busiest / mean:.2f} of the mean, last {moments[-1] - began:.2f} s\n"
    )
    assert off <= 0.1 * SESSIONS
    assert busiest <= 1.5 * mean
    assert moments[-1] - began < WINDOW + 1.5

    (directory,) = shared_directory.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (shared_directory, directory)] == [0o700, 0o700]
    server.signal()
    server.wait()
    # A worker is not told whether another takes its place: the command stays for that one.
    assert [path.name for path in directory.iterdir()] == ["command-000001.json"]
    assert server.trouble == []


def test_a_worker_killed_half_way_does_not_disturb_the_rest(start):
    """The others keep to their line; the worker that takes its place joins the drain and admits nobody."""
    server = start()
    workers = settled(server, 4)
    number = SESSIONS // 2
    with crowd_on_all(server, workers, number) as ends:
        began = time.monotonic()
        server.drain("POST", window=WINDOW)
        time.sleep(WINDOW / 2)
        status = workers_of(server)
        # Not the one that may be asked next, and one that has somebody to lose.
        victim = max(status["workers"], key=lambda each: each["sessions"]["open"])
        os.kill(victim["pid"], signal.SIGKILL)
        told = ends()
    codes = Counter(code for code, _, _ in told)
    rest = [at for code, _, at in told if code == 1012]
    assert set(codes) == {1012, 1006}
    assert 1 <= codes[1006] <= victim["sessions"]["open"] + 1
    assert began + WINDOW - 1.5 < rest[-1] < began + WINDOW + 1.5
    quarter = [sum(began + WINDOW * part / 4 <= at < began + WINDOW * (part + 1) / 4 for at in rest) for part in (2, 3)]
    assert min(quarter) > 0.5 * max(quarter)

    def replaced():
        workers = workers_of(server).get("workers", ())
        new = [each for each in workers if each["pid"] not in {old["pid"] for old in status["workers"]}]
        return len(workers) == 4 and [each["state"] for each in new] == ["drained"]

    # uvicorn's supervisor waits for the answer to a ping even if the worker was killed meanwhile.
    complaint = "nobody took the place of the worker that was killed, or it does not drain"
    eventually(replaced, complaint, within=HEALTH_CHECK + 30.0)


def test_delete_on_any_worker_takes_the_drain_back_in_all(start):
    """Whichever worker gets the requests, and at once: all serve again, and admit whoever comes."""
    server = start(workers=2)
    settled(server, 2)
    with crowd(server, 20):
        server.drain("POST", window=600)
        eventually(lambda: all_drain(server), "not all drain")
        assert server.drain("DELETE")[0] == 200
        eventually(lambda: states(server) == {"serving"}, "not all serve again")
        for _ in range(5):
            assert server.drain("POST", window=600)[0] == 202
            assert server.drain("DELETE")[0] == 200
        eventually(lambda: states(server) == {"serving"}, "not all serve again")
        eventually(lambda: newcomers_stay(server), "newcomers are turned away")


def test_a_worker_that_has_drained_passes_a_nearer_deadline_on(start):
    """The worker that gets the second request has nobody left; the other keeps to the nearer deadline all the same."""
    server = start(workers=2)
    settled(server, 2)
    with crowd(server, 1):
        server.drain("POST", window=3000)
        eventually(lambda: states(server) == {"draining", "drained"}, "not one of them has drained")
        for window in range(2000, 1000, -10):
            _, shown = server.drain("POST", window=window)
            answering = min(shown["workers"], key=lambda each: each["seconds_ago"])
            if answering["state"] == "drained":
                break
        else:
            pytest.fail("the worker that has drained answers no request")
        eventually(lambda: 0 < time_left(server) <= window, "the one that drains keeps to the farther deadline")


def time_left(server):
    """Return how long the worker that answers may drain; 0 where it does not."""
    return server.drain()[1].get("drain", {}).get("time_left", 0)


def states(server):
    """Return the states of all workers; none while the one that answers has not met the others yet."""
    return {each["state"] for each in workers_of(server).get("workers", ())}


def newcomers_stay(server):
    """
    Return whether twenty newcomers stay beside the twenty there are, one or two of whom were asked to leave.

    To be asked again: "all serve" may be a quarter of a second old, and who is turned away does not come back.
    """
    with crowd(server, 20):
        time.sleep(1)
        return workers_of(server)["sessions"]["open"] > 30


def all_drain(server):
    """Return whether none serves. One that has got no session (the kernel deals unevenly) has drained at once."""
    return bool(states(server)) and "serving" not in states(server)


def test_under_gunicorn_too(start):
    """Gunicorn with uvicorn-worker: one request drains both workers."""
    pytest.importorskip("uvicorn_worker")
    server = start("-w", "2", "--log-level", "warning", workers=2, command=GUNICORN)
    workers = settled(server, 2)
    with crowd_on_all(server, workers, 100) as ends:
        server.drain("POST", "?wait=30", window=4)
        told = ends()
    assert Counter(code for code, _, _ in told) == {1012: 100}
    eventually(lambda: states(server) == {"drained"}, "not all have drained")
    server.signal()
    server.wait()
    assert server.trouble == []


@pytest.mark.parametrize("sigterm", ["true", "false"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_ends_itself_when_drained(start, shared_directory, workers, sigterm):
    """exit_when_drained: no signal from outside, a clean exit, with and without our own SIGTERM handler."""
    arguments = ("--workers", "2") if workers > 1 else ()
    environment = {"DRAIN_EXIT_WHEN_DRAINED": "true", "DRAIN_SIGTERM": sigterm}
    server = start(*arguments, "--log-level", "warning", workers=workers, env=environment)
    if workers > 1:
        settled(server, workers)
    with crowd(server, 20) as ends:
        server.drain("POST", window=4)
        assert server.is_running
        assert server.wait() in (0, -signal.SIGTERM)
        ended, told = time.monotonic(), ends()
        # By us, each in its turn, and not by the server's own end, which says 1012 too.
        assert Counter((code, reason) for code, reason, _ in told) == {(1012, REASON): 20}
        assert told[-1][2] - told[0][2] > 2
        assert told[-1][2] < ended
    assert server.trouble == []


def test_without_a_drain_nothing_is_left_behind(start, shared_directory):
    """The last worker takes the directory along."""
    server = start(workers=2)
    settled(server, 2)
    server.drain("POST", window=600)
    server.drain("DELETE")
    server.signal()
    server.wait()
    assert list(shared_directory.iterdir()) == []


def test_a_worker_that_takes_the_place_of_the_only_one_joins_the_drain(start):
    """Gunicorn replaces its only worker (max_requests, SIGHUP, a crash), and the drain stands."""
    pytest.importorskip("uvicorn_worker")
    server = start("-w", "1", "--log-level", "warning", workers=1, command=GUNICORN)
    first = int(server.get("/pid"))
    server.drain("POST", window=600)
    os.kill(first, signal.SIGTERM)
    eventually(lambda: is_another(server, first), "no worker takes its place")
    assert server.drain()[1]["state"] == "drained"
    assert server.drain("DELETE")[0] == 200


def is_another(server, pid):
    """Return whether another worker than *pid* answers."""
    try:
        return int(server.get("/pid")) != pid
    except OSError:
        return False


def test_under_gunicorn_the_server_ends_itself_too(start):
    """exit_when_drained tells the arbiter, which would start a worker again that ends by itself."""
    pytest.importorskip("uvicorn_worker")
    environment = {"DRAIN_EXIT_WHEN_DRAINED": "true"}
    server = start("-w", "2", "--log-level", "warning", workers=2, command=GUNICORN, env=environment)
    settled(server, 2)
    server.drain("POST", window=1)
    assert server.wait() == 0
