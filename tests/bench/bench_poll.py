"""
What the target-health trigger costs a process: loop stalls at the start and per poll, memory, and CPU per poll.

The real aioboto3 client asks a FakeAWS over a real socket, without TLS. It takes a minute and a half.
"""

import json
import signal
import time

import pytest
from harness.figures import interleave
from harness.process import cpu_seconds, resident_bytes
from server_process import eventually

from starlette_drain.testing import FakeAWS
from starlette_drain.testing.fake_aws import FakeRegistration

STARTS = 6
ROUNDS = 8
GROUPS = 5
"""Target groups, each polled once a second, where CPU is measured: more polls in less time."""

INTERVAL = 1.0
POLL = "DescribeTargetHealth"
POLLING = {"DRAIN_POLL_INTERVAL": f"{INTERVAL:g}", "DRAIN_POLL_SHARE": "1"}
NOT_POLLING = {**POLLING, "DRAIN_SOURCES": "none"}


@pytest.fixture
def fake():
    """Return a FakeAWS with one target group."""
    fake = FakeAWS()
    fake.add_task(fake.add_service("web", delay=300))
    return fake


@pytest.fixture
def aws(fake):
    """Serve it, and return the environment of a process that is a task of its."""
    with fake.serve() as endpoint:
        yield endpoint.environment()


def felt(server):
    """Stop feeling the pulse of the server's loop; return what was felt: see `pulse.Pulse`."""
    return json.loads(server.get("/pulse"))


def test_start(serve, report, fake, aws):
    """From the startup of the lifespan until the first poll has succeeded; and what is resident after that."""
    asked_after = []

    def start(app, settings):
        polled = fake.calls[POLL]
        server = serve(app, env={**aws, **settings})
        started = time.monotonic()
        if settings is POLLING:
            eventually(lambda: fake.calls[POLL] > polled, "it does not poll")
            asked_after.append(time.monotonic() - started)
        else:
            time.sleep(asked_after[-1] if asked_after else INTERVAL)
        time.sleep(0.2)  # the answer comes, and is read
        pulse = felt(server)
        server.get("/collect")
        resident = resident_bytes(server.pid)
        server.signal(signal.SIGKILL)
        server.wait()
        return {**pulse, "resident": resident / 2**20}

    variants = {
        "bare": lambda: start("beating:bare", NOT_POLLING),
        "not polling": lambda: start("beating:watched", NOT_POLLING),
        "polling": lambda: start("beating:watched", POLLING),
    }
    values = interleave(variants, STARTS)
    stalls, collections, resident = (
        {name: [each[what] for each in values[name]] for name in variants}
        for what in ("stall", "gc_longest", "resident")
    )
    what = "from startup to the first poll (bare: no polling): longest"
    report.add(f"{what} stall", "ms", stalls["polling"], stalls["not polling"], goal=30, judged="added")
    report.add(f"{what} garbage collection", "ms", collections["polling"], collections["not polling"])
    report.add("resident with polling (bare: no polling)", "MiB", resident["polling"], resident["not polling"])
    report.add("resident without polling", "MiB", resident["not polling"], resident["bare"])


def test_longest_stall_of_a_poll(serve, report, fake, aws):
    """The longest stall in stretches of one and a half intervals, on two servers of which one polls."""
    servers = {
        "polling": serve("beating:watched", env={**aws, **POLLING}),
        "not polling": serve("beating:watched", env={**aws, **NOT_POLLING}),
    }
    eventually(lambda: fake.calls[POLL] > 1, "it does not poll")
    for server in servers.values():
        felt(server)

    def stretch(server):
        server.get("/pulse?start")
        time.sleep(1.5 * INTERVAL)
        return felt(server)["stall"]

    values = interleave({name: lambda server=server: stretch(server) for name, server in servers.items()}, ROUNDS)
    report.add("longest stall in 1.5 s with a poll or two", "ms", values["polling"], values["not polling"])


def test_cpu_of_a_poll(serve, report):
    """CPU in stretches of two seconds, of a server that polls and one that does not, at the same time."""
    fake = FakeAWS()
    groups = [fake.add_target_group(f"group-{number}", delay=300) for number in range(GROUPS)]
    fake.add_task(fake.add_service("web", registrations=[FakeRegistration(group, "app", 8000) for group in groups]))
    costs = []
    with fake.serve() as endpoint:
        polling, idle = (
            serve("beating:watched", env={**endpoint.environment(), **settings}) for settings in (POLLING, NOT_POLLING)
        )
        eventually(lambda: fake.calls[POLL] > 2 * GROUPS, "it does not poll")
        for server in (polling, idle):
            felt(server)
        for _ in range(ROUNDS):
            polls, used, used_anyway = fake.calls[POLL], cpu_seconds(polling.pid), cpu_seconds(idle.pid)
            time.sleep(2 * INTERVAL)
            polls, used = fake.calls[POLL] - polls, cpu_seconds(polling.pid) - used
            used_anyway = cpu_seconds(idle.pid) - used_anyway
            costs.append((used - used_anyway) / polls * 1e3)
    report.add("CPU of a poll", "ms", costs)
