"""
What garbage collection costs a server with 16,000 sessions: as they connect, and in a drain.

About three minutes. The thresholds are Python's own, loop and WebSocket implementation those that uvicorn takes.
"""

import json
import time
from collections import Counter
from contextlib import ExitStack

from harness.figures import interleave
from harness.load import Load
from harness.process import resident_bytes
from server_process import ServerProcess

CONNECTIONS = 16_000
ROUNDS = 6
WINDOW = 10
MESSAGES = 1000
"""A second, while a server drains."""
YOUNG, FULL = (0, 1), (2,)


class Server:
    """A server, and its clients."""

    def __init__(self, process: ServerProcess, load: Load) -> None:
        self.process = process
        self.load = load

    def ask(self, path: str):
        """Return what it answers, however long it is held up."""
        return json.loads(self.process.get(path, timeout=60))

    def pauses(self, generations: tuple[int, ...]) -> list[float]:
        """Return how many milliseconds of CPU each collection took since this was last asked."""
        return [seconds * 1000 for generation, seconds in self.ask("/collections") if generation in generations]

    def collect(self) -> float:
        """Make a full collection; return how many milliseconds of CPU it took."""
        self.pauses(FULL)
        self.ask("/collect")
        return self.pauses(FULL)[-1]

    def collect_frozen(self) -> float:
        """Make a full collection while everything is frozen."""
        self.ask("/freeze")
        took = self.collect()
        self.ask("/thaw")
        return took


def test_garbage(serve, report):
    """A server without us and one with; 16,000 connections to each."""
    with ExitStack() as loads:
        bare, watched = servers = [
            Server(serve(f"collector:{app}"), loads.enter_context(Load())) for app in ("bare", "watched")
        ]
        connect(servers, report)
        values = interleave({server: server.collect for server in (bare, watched)}, ROUNDS)
        report.add("a full collection", "ms of CPU", values[watched], values[bare])
        frozen = [watched.collect_frozen() for _ in range(ROUNDS)]
        report.add("a full collection after gc.freeze()", "ms of CPU", frozen)
        drain(watched, "drain", report)


def connect(servers, report):
    """Open all connections, at all servers at once, and tell of the full collections meanwhile."""
    for server in servers:
        server.pauses(FULL)
        server.load.start("open", port=server.process.port, path="/ws", number=CONNECTIONS, first=0, deflate=False)
    for server in servers:
        server.load.finish()
    bare, watched = full = [server.pauses(FULL) for server in servers]
    assert all(full)
    what = f"full collections while {CONNECTIONS:,} connect"
    report.add(f"{what}: how many", "", [len(watched)], [len(bare)])
    report.add(f"{what}: the longest", "ms of CPU", [max(watched)], [max(bare)])
    report.add(f"{what}: all together", "ms of CPU", [sum(watched)], [sum(bare)])


def drain(server, what, report):
    """Drain, with messages meanwhile and a full collection in its midst, as an application may provoke one."""
    server.ask("/heartbeat?start")
    server.pauses(FULL)
    status, _ = server.process.drain("POST", window=WINDOW)
    assert status < 300
    server.load.start("chatter", rate=MESSAGES, seconds=WINDOW)
    time.sleep(1)
    by_itself = server.ask("/collections")
    provoked = server.collect()
    server.load.finish()
    closes = server.load.closes(within=WINDOW)
    assert Counter(code for _, code in closes) == {1012: CONNECTIONS}
    by_itself += server.ask("/collections")
    late = server.ask("/heartbeat")
    report.add(f"{what}: full collections that happen by themselves", "", [sum(kind in FULL for kind, _ in by_itself)])
    young = [seconds * 1000 for kind, seconds in by_itself if kind in YOUNG]
    report.add(f"{what}: the longest young collection", "ms of CPU", [max(young, default=0.0)])
    report.add(f"{what}: one full collection", "ms of CPU", [provoked])
    report.add(f"{what}: the longest stall", "ms", [late[0] * 1000])
    report.add(f"{what}: resident at its end", "MB", [resident_bytes(server.process.pid) / 1e6])
    report.add(f"{what}: garbage left at its end", "objects", [server.ask("/collect")])
